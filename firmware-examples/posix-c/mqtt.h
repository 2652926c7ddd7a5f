/* mqtt.h - an MQTT 3.1.1 publisher for small devices.
 *
 * It publishes with QoS 1 and keeps each message until the broker has
 * acknowledged it; the hub does so once the message is on its disk. After a
 * lost connection it sends again, in order and with the DUP flag, what was
 * not acknowledged.
 *
 * It has no heap, no sockets and no clock: the caller moves bytes and tells
 * the time. One struct mqtt is all the memory it uses. Times are milliseconds
 * of any clock that only goes forward; they may wrap around.
 *
 * The order of calls for a connection:
 *
 *   mqtt_open          the transport is connected
 *   mqtt_output/sent   as long as there is something to send
 *   mqtt_input         for what is received
 *   mqtt_tick          now and then, at least every second
 *   mqtt_lost          the transport is gone, or a call said MQTT_BROKEN
 *
 * mqtt_publish may be called at any time, connected or not. */
#ifndef MQTT_H
#define MQTT_H

#include <stddef.h>
#include <stdint.h>

/* Sizes: change them to fit. RAM is about SLOTS * (PACKET + 8) + 300 bytes. */
#ifndef MQTT_SLOTS
#define MQTT_SLOTS 16 /* messages kept until they are acknowledged, at most 255 */
#endif
#ifndef MQTT_PACKET
#define MQTT_PACKET 256 /* largest PUBLISH with topic and payload, bytes */
#endif
#ifndef MQTT_CLIENT_ID
#define MQTT_CLIENT_ID 64 /* longest client id, bytes */
#endif

/* How long the broker may take to answer CONNECT, PINGREQ or a PUBLISH. */
#ifndef MQTT_ANSWER_MS
#define MQTT_ANSWER_MS 20000u
#endif

enum { MQTT_OK = 0, MQTT_FULL = -1, MQTT_TOO_LARGE = -2, MQTT_BROKEN = -3, MQTT_REFUSED = -4 };

struct mqtt_slot {
	uint16_t id;
	uint16_t len;
	uint8_t state; /* see mqtt.c */
	uint8_t packet[MQTT_PACKET];
};

struct mqtt {
	/* messages, a ring in the order of publishing */
	struct mqtt_slot slot[MQTT_SLOTS];
	uint8_t first, count;
	uint16_t next_id;

	/* connection */
	uint8_t state;
	uint8_t want_connect, want_ping;
	uint16_t keepalive; /* seconds, 0: none */
	uint32_t last_out, asked; /* times */
	uint8_t asking;		  /* an answer is due */

	/* what is being sent: a slot, or control */
	const uint8_t *out;
	size_t out_len;
	int out_slot; /* index, or -1 */
	uint8_t control[MQTT_CLIENT_ID + 16];

	/* what is being received */
	uint8_t in_state, in_type, in_shift, in_got;
	uint32_t in_left;
	uint8_t in_body[4];

	char client_id[MQTT_CLIENT_ID + 1];

	/* counters */
	uint32_t acked, resent;
};

/* mqtt_init makes m ready. keepalive is in seconds, 0 for none. MQTT_TOO_LARGE:
 * the client id is empty or too long. */
int mqtt_init(struct mqtt *m, const char *client_id, uint16_t keepalive);

/* mqtt_publish takes a message, which it copies. MQTT_FULL: no slot is free,
 * try again after an acknowledgement. */
int mqtt_publish(struct mqtt *m, const char *topic, const uint8_t *payload, size_t len);

/* mqtt_pending is how many messages are not acknowledged. */
unsigned mqtt_pending(const struct mqtt *m);

void mqtt_open(struct mqtt *m, uint32_t now);
void mqtt_lost(struct mqtt *m);

/* mqtt_output gives the bytes to send next; 0: nothing now. mqtt_sent says
 * how many of them the transport has taken. */
size_t mqtt_output(struct mqtt *m, const uint8_t **bytes);
void mqtt_sent(struct mqtt *m, size_t n, uint32_t now);

/* mqtt_input takes received bytes. MQTT_BROKEN: that is not MQTT, close the
 * connection. MQTT_REFUSED: the broker does not let this client in. */
int mqtt_input(struct mqtt *m, const uint8_t *bytes, size_t n, uint32_t now);

/* mqtt_tick keeps the connection alive. MQTT_BROKEN: the broker does not
 * answer. */
int mqtt_tick(struct mqtt *m, uint32_t now);

/* mqtt_online says whether the broker has accepted the connection. */
int mqtt_online(const struct mqtt *m);

/* mqtt_goodbye writes a DISCONNECT packet of 2 bytes, the last thing to send. */
void mqtt_goodbye(uint8_t packet[2]);

#endif
