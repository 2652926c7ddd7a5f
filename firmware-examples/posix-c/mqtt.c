#include "mqtt.h"

#include <string.h>

/* Control packet types, in the high half of the first byte. */
enum { CONNACK = 2, PUBACK = 4, PINGRESP = 13 };

/* States of a slot. */
enum {
	SLOT_NEW,   /* never sent, not even in part */
	SLOT_AGAIN, /* sent over an earlier connection: DUP */
	SLOT_SENT,  /* sent over this connection, at least in part */
	SLOT_ACKED  /* done; leaves the ring when it is the first */
};

/* States of the connection. */
enum { OFFLINE, CONNECTING, ONLINE };

/* States of the receiver. */
enum { IN_TYPE, IN_LENGTH, IN_BODY };

enum { NO_SLOT = -1 };

#define DUP 0x08
#define PUBLISH_QOS1 0x32

static struct mqtt_slot *at(struct mqtt *m, unsigned i)
{
	return &m->slot[(m->first + i) % MQTT_SLOTS];
}

int mqtt_init(struct mqtt *m, const char *client_id, uint16_t keepalive)
{
	size_t n = strlen(client_id);

	memset(m, 0, sizeof *m);
	if (n == 0 || n > MQTT_CLIENT_ID)
		return MQTT_TOO_LARGE;
	memcpy(m->client_id, client_id, n);
	m->keepalive = keepalive;
	m->next_id = 1;
	m->out_slot = NO_SLOT;
	return MQTT_OK;
}

/* put_length writes an MQTT remaining length, at most 4 bytes. */
static size_t put_length(uint8_t *p, size_t v)
{
	size_t n = 0;

	do {
		p[n] = (uint8_t)(v & 0x7f);
		v >>= 7;
		if (v > 0)
			p[n] |= 0x80;
		n++;
	} while (v > 0);
	return n;
}

static size_t put_text(uint8_t *p, const char *s, size_t n)
{
	p[0] = (uint8_t)(n >> 8);
	p[1] = (uint8_t)n;
	memcpy(p + 2, s, n);
	return n + 2;
}

int mqtt_publish(struct mqtt *m, const char *topic, const uint8_t *payload, size_t len)
{
	size_t topic_len = strlen(topic), body, n;
	struct mqtt_slot *s;

	if (topic_len == 0 || topic_len > MQTT_PACKET || len > MQTT_PACKET)
		return MQTT_TOO_LARGE;
	body = 2 + topic_len + 2 + len;
	if (body + 5 > MQTT_PACKET)
		return MQTT_TOO_LARGE;
	if (m->count == MQTT_SLOTS)
		return MQTT_FULL;
	s = at(m, m->count);
	/* There are more ids than slots and acks free slots from the first on,
	 * so an id that comes around is free. */
	s->id = m->next_id++;
	if (m->next_id == 0)
		m->next_id = 1;
	n = 0;
	s->packet[n++] = PUBLISH_QOS1;
	n += put_length(s->packet + n, body);
	n += put_text(s->packet + n, topic, topic_len);
	s->packet[n++] = (uint8_t)(s->id >> 8);
	s->packet[n++] = (uint8_t)s->id;
	if (len > 0)
		memcpy(s->packet + n, payload, len);
	s->len = (uint16_t)(n + len);
	s->state = SLOT_NEW;
	m->count++;
	return MQTT_OK;
}

unsigned mqtt_pending(const struct mqtt *m)
{
	return m->count;
}

int mqtt_online(const struct mqtt *m)
{
	return m->state == ONLINE;
}

/* ask notes that an answer of the broker is due, unless one is already. */
static void ask(struct mqtt *m, uint32_t now)
{
	if (!m->asking) {
		m->asking = 1;
		m->asked = now;
	}
}

void mqtt_open(struct mqtt *m, uint32_t now)
{
	mqtt_lost(m);
	m->state = CONNECTING;
	m->want_connect = 1;
	m->last_out = now;
	ask(m, now);
}

void mqtt_lost(struct mqtt *m)
{
	unsigned i;

	m->state = OFFLINE;
	m->want_connect = m->want_ping = 0;
	m->asking = 0;
	m->out_len = 0;
	m->out_slot = NO_SLOT;
	m->in_state = IN_TYPE;
	for (i = 0; i < m->count; i++)
		if (at(m, i)->state == SLOT_SENT)
			at(m, i)->state = SLOT_AGAIN;
}

static void start_connect(struct mqtt *m)
{
	static const uint8_t protocol[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 0}; /* 3.1.1, clean session 0 */
	size_t id = strlen(m->client_id), n = 0;

	m->control[n++] = 0x10;
	n += put_length(m->control + n, sizeof protocol + 2 + 2 + id);
	memcpy(m->control + n, protocol, sizeof protocol);
	n += sizeof protocol;
	m->control[n++] = (uint8_t)(m->keepalive >> 8);
	m->control[n++] = (uint8_t)m->keepalive;
	n += put_text(m->control + n, m->client_id, id);
	m->out = m->control;
	m->out_len = n;
}

size_t mqtt_output(struct mqtt *m, const uint8_t **bytes)
{
	unsigned i;

	if (m->out_len == 0 && m->want_connect) {
		m->want_connect = 0;
		start_connect(m);
	} else if (m->out_len == 0 && m->want_ping) {
		m->want_ping = 0;
		m->control[0] = 0xc0;
		m->control[1] = 0;
		m->out = m->control;
		m->out_len = 2;
	} else if (m->out_len == 0 && m->state == ONLINE) {
		for (i = 0; i < m->count; i++) {
			struct mqtt_slot *s = at(m, i);

			if (s->state != SLOT_NEW && s->state != SLOT_AGAIN)
				continue;
			if (s->state == SLOT_AGAIN) {
				s->packet[0] |= DUP;
				m->resent++;
			}
			s->state = SLOT_SENT;
			m->out_slot = (int)((m->first + i) % MQTT_SLOTS);
			m->out = s->packet;
			m->out_len = s->len;
			break;
		}
	}
	*bytes = m->out;
	return m->out_len;
}

void mqtt_sent(struct mqtt *m, size_t n, uint32_t now)
{
	if (n == 0)
		return;
	m->out += n;
	m->out_len -= n;
	m->last_out = now;
	if (m->out_slot != NO_SLOT)
		ask(m, now);
	if (m->out_len == 0)
		m->out_slot = NO_SLOT;
}

/* answered: the broker lives. If it owes more, the wait begins anew. */
static void answered(struct mqtt *m, uint32_t now)
{
	unsigned i;

	m->asking = 0;
	for (i = 0; i < m->count; i++)
		if (at(m, i)->state == SLOT_SENT) {
			ask(m, now);
			return;
		}
}

/* acked: an ack of what was not sent in whole is not for us, but for one who
 * used this client id before. */
static void acked(struct mqtt *m, uint16_t id)
{
	unsigned i;

	for (i = 0; i < m->count; i++) {
		struct mqtt_slot *s = at(m, i);

		if (s->id != id || s->state == SLOT_ACKED)
			continue;
		if (s->state == SLOT_NEW || (int)((m->first + i) % MQTT_SLOTS) == m->out_slot)
			return;
		s->state = SLOT_ACKED;
		m->acked++;
		break;
	}
	while (m->count > 0 && at(m, 0)->state == SLOT_ACKED) {
		m->first = (uint8_t)((m->first + 1) % MQTT_SLOTS);
		m->count--;
	}
}

static int packet(struct mqtt *m, uint32_t now)
{
	switch (m->in_type >> 4) {
	case CONNACK:
		if (m->state != CONNECTING || m->in_got < 2)
			return MQTT_BROKEN;
		if (m->in_body[1] != 0)
			return MQTT_REFUSED;
		m->state = ONLINE;
		break;
	case PUBACK:
		if (m->state != ONLINE || m->in_got < 2)
			return MQTT_BROKEN;
		acked(m, (uint16_t)(m->in_body[0] << 8 | m->in_body[1]));
		break;
	case PINGRESP:
		break;
	default: /* nothing else comes to one who does not subscribe */
		return MQTT_BROKEN;
	}
	answered(m, now);
	return MQTT_OK;
}

int mqtt_input(struct mqtt *m, const uint8_t *bytes, size_t n, uint32_t now)
{
	size_t i;

	for (i = 0; i < n; i++) {
		uint8_t b = bytes[i];

		switch (m->in_state) {
		case IN_TYPE:
			m->in_type = b;
			m->in_left = 0;
			m->in_shift = 0;
			m->in_got = 0;
			m->in_state = IN_LENGTH;
			continue;
		case IN_LENGTH:
			m->in_left |= (uint32_t)(b & 0x7f) << m->in_shift;
			m->in_shift = (uint8_t)(m->in_shift + 7);
			if (b & 0x80) {
				if (m->in_shift >= 28)
					return MQTT_BROKEN;
				continue;
			}
			m->in_state = IN_BODY;
			break;
		default:
			if (m->in_got < sizeof m->in_body)
				m->in_body[m->in_got++] = b;
			m->in_left--;
			break;
		}
		if (m->in_left == 0) {
			int err = packet(m, now);

			m->in_state = IN_TYPE;
			if (err != MQTT_OK)
				return err;
		}
	}
	return MQTT_OK;
}

int mqtt_tick(struct mqtt *m, uint32_t now)
{
	if (m->state == OFFLINE)
		return MQTT_OK;
	if (m->asking && now - m->asked > MQTT_ANSWER_MS)
		return MQTT_BROKEN;
	if (m->state == ONLINE && m->keepalive > 0 && !m->asking &&
	    now - m->last_out >= (uint32_t)m->keepalive * 500u) {
		m->want_ping = 1;
		ask(m, now);
	}
	return MQTT_OK;
}

void mqtt_goodbye(uint8_t packet[2])
{
	packet[0] = 0xe0;
	packet[1] = 0;
}
