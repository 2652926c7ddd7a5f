/* main.c - publishes readings to a hub from a POSIX system.
 *
 * All that is POSIX stands here: flags, the socket, two clocks, standard
 * input. mqtt.c and cbor.c go to a microcontroller as they are. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cbor.h"
#include "mqtt.h"

enum { EXIT_USAGE = 2 };

enum {
	MAX_ADDRESSES = 8,
	LINE = 64,
	CONNECT_MS = 10000,
	BACKOFF_MAX_MS = 60000
};

struct config {
	const char *host, *port, *client, *topic;
	uint32_t count; /* readings, 0: without end */
	uint32_t interval_ms;
	uint32_t backoff_ms; /* first pause before connecting again */
	uint16_t keepalive;
	int from_stdin;
};

struct address {
	struct sockaddr_storage addr;
	socklen_t len;
	int family, type, protocol;
};

/* All memory. Nothing is allocated once main has begun its loop. */
static struct config cfg;
static struct mqtt mq;
static struct address addresses[MAX_ADDRESSES];
static unsigned address_count;
static char line[LINE];
static size_t line_len;
static uint32_t noise;
static uint32_t reconnects;

static uint32_t millis(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint32_t)((uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u);
}

/* wall_ms is Unix time in ms; 0 while the clock has not been set. */
static uint64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (t.tv_sec < 1577836800) /* 2020 */
		return 0;
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* rnd is xorshift32: for jitter and the generator, not for secrets. */
static uint32_t rnd(void)
{
	noise ^= noise << 13;
	noise ^= noise >> 17;
	noise ^= noise << 5;
	return noise;
}

static void usage(void)
{
	fputs("usage: publisher [-h host] [-p port] [-i client] [-t topic] [-n count]\n"
	      "                 [-w interval_ms] [-k keepalive_s] [-b backoff_ms] [-s]\n"
	      "  -n 0 publishes without end; -s reads one number per line from standard\n"
	      "  input instead of making them up\n", stderr);
	exit(EXIT_USAGE);
}

static uint32_t number(const char *s, uint32_t max)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(s, &end, 10);
	if (errno != 0 || end == s || *end != '\0' || *s == '-' || v > max) {
		fprintf(stderr, "publisher: %s is not a number up to %lu\n", s, (unsigned long)max);
		usage();
	}
	return (uint32_t)v;
}

static void parse_flags(int argc, char **argv)
{
	int c;

	cfg.host = "127.0.0.1";
	cfg.port = "1883";
	cfg.client = "publisher";
	cfg.topic = "plant/line-1/publisher/telemetry";
	cfg.interval_ms = 1000;
	cfg.backoff_ms = 1000;
	cfg.keepalive = 60;
	while ((c = getopt(argc, argv, "h:p:i:t:n:w:k:b:s")) != -1) {
		switch (c) {
		case 'h':
			cfg.host = optarg;
			break;
		case 'p':
			cfg.port = optarg;
			break;
		case 'i':
			cfg.client = optarg;
			break;
		case 't':
			cfg.topic = optarg;
			break;
		case 'n':
			cfg.count = number(optarg, UINT32_MAX);
			break;
		case 'w':
			cfg.interval_ms = number(optarg, INT_MAX);
			break;
		case 'k':
			cfg.keepalive = (uint16_t)number(optarg, UINT16_MAX);
			break;
		case 'b':
			cfg.backoff_ms = number(optarg, BACKOFF_MAX_MS);
			break;
		case 's':
			cfg.from_stdin = 1;
			break;
		default:
			usage();
		}
	}
	if (optind != argc)
		usage();
}

/* resolve looks the host up, once: resolvers allocate. */
static void resolve(void)
{
	struct addrinfo hints, *list, *a;
	int err;

	memset(&hints, 0, sizeof hints);
	hints.ai_socktype = SOCK_STREAM;
	err = getaddrinfo(cfg.host, cfg.port, &hints, &list);
	if (err != 0) {
		fprintf(stderr, "publisher: %s port %s: %s\n", cfg.host, cfg.port, gai_strerror(err));
		exit(EXIT_FAILURE);
	}
	for (a = list; a != NULL && address_count < MAX_ADDRESSES; a = a->ai_next) {
		struct address *d = &addresses[address_count++];

		memcpy(&d->addr, a->ai_addr, a->ai_addrlen);
		d->len = a->ai_addrlen;
		d->family = a->ai_family;
		d->type = a->ai_socktype;
		d->protocol = a->ai_protocol;
	}
	freeaddrinfo(list);
}

/* dial connects to one address and gives a non-blocking socket, or -1. */
static int dial(const struct address *a)
{
	int fd = socket(a->family, a->type, a->protocol), err = 0, flags;
	socklen_t len = sizeof err;
	struct pollfd p;

	if (fd < 0)
		return -1;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		goto fail;
	if (connect(fd, (const struct sockaddr *)&a->addr, a->len) == 0)
		return fd;
	if (errno != EINPROGRESS)
		goto fail;
	p.fd = fd;
	p.events = POLLOUT;
	if (poll(&p, 1, CONNECT_MS) != 1)
		goto fail;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0)
		return fd;
fail:
	close(fd);
	return -1;
}

/* publish_reading encodes {"seq": n, "ts": unix ms, "value": v} and hands it
 * over. Without a set clock there is no ts: the hub then takes its own time. */
static void publish_reading(uint32_t seq, int is_float, int64_t whole, double real)
{
	uint8_t payload[64];
	uint64_t ts = wall_ms();
	struct cbor c;

	cbor_begin(&c, payload, sizeof payload);
	cbor_map(&c, ts != 0 ? 3 : 2);
	cbor_text(&c, "seq");
	cbor_uint(&c, seq);
	if (ts != 0) {
		cbor_text(&c, "ts");
		cbor_uint(&c, ts);
	}
	cbor_text(&c, "value");
	if (is_float)
		cbor_double(&c, real);
	else
		cbor_int(&c, whole);
	if (c.overflow || mqtt_publish(&mq, cfg.topic, payload, c.len) == MQTT_TOO_LARGE) {
		fputs("publisher: topic and reading do not fit into MQTT_PACKET\n", stderr);
		exit(EXIT_FAILURE);
	}
}

/* generated is a triangle between 200 and 300 with a little noise. */
static int64_t generated(uint32_t seq)
{
	uint32_t phase = seq % 200;

	return 200 + (int64_t)(phase < 100 ? phase : 200 - phase) + (int64_t)(rnd() % 5) - 2;
}

/* take_line publishes the first line of what was read from standard input,
 * if there is a whole one. */
static int take_line(uint32_t seq)
{
	char *nl = memchr(line, '\n', line_len), *end;
	long long whole;
	double real;
	size_t used;
	int ok = 1;

	if (nl == NULL) {
		if (line_len < LINE - 1)
			return 0;
		fputs("publisher: a line is too long\n", stderr);
		exit(EXIT_FAILURE);
	}
	*nl = '\0';
	used = (size_t)(nl - line) + 1;
	errno = 0;
	whole = strtoll(line, &end, 10);
	if (end != line && *end == '\0' && errno == 0) {
		publish_reading(seq, 0, whole, 0);
	} else {
		real = strtod(line, &end);
		ok = end != line && *end == '\0' && real - real == 0; /* finite */
		if (ok)
			publish_reading(seq, 1, 0, real);
		else
			fprintf(stderr, "publisher: not a number, left out: %s\n", line);
	}
	line_len -= used;
	memmove(line, line + used, line_len);
	return ok ? 1 : -1;
}

/* transfer moves bytes as far as the socket goes. -1: the connection is gone,
 * -2: the broker refuses this client. */
static int transfer(int fd)
{
	const uint8_t *out;
	uint8_t in[256];
	size_t n;
	ssize_t k;
	int err;

	while ((n = mqtt_output(&mq, &out)) > 0) {
		k = send(fd, out, n, MSG_NOSIGNAL);
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			break;
		if (k < 0)
			return -1;
		mqtt_sent(&mq, (size_t)k, millis());
	}
	for (;;) {
		k = recv(fd, in, sizeof in, 0);
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			break;
		if (k <= 0)
			return -1;
		err = mqtt_input(&mq, in, (size_t)k, millis());
		if (err == MQTT_REFUSED)
			return -2;
		if (err != MQTT_OK)
			return -1;
	}
	return mqtt_tick(&mq, millis()) == MQTT_OK ? 0 : -1;
}

/* due says whether time has come; times wrap around. */
static int due(uint32_t now, uint32_t time)
{
	return (int32_t)(now - time) >= 0;
}

static int until(uint32_t now, uint32_t time, int most)
{
	if (due(now, time))
		return 0;
	return time - now < (uint32_t)most ? (int)(time - now) : most;
}

int main(int argc, char **argv)
{
	uint32_t now, next_reading, next_dial, backoff, seq = 0;
	unsigned try = 0;
	int fd = -1, eof = 0, ended = 0;

	parse_flags(argc, argv);
	if (mqtt_init(&mq, cfg.client, cfg.keepalive) != MQTT_OK) {
		fprintf(stderr, "publisher: client id of 1 to %d bytes, please\n", MQTT_CLIENT_ID);
		return EXIT_USAGE;
	}
	resolve();
	now = millis();
	noise = now ^ (uint32_t)getpid() << 16 ^ 0x9e3779b9u;
	if (noise == 0)
		noise = 1;
	next_reading = next_dial = now;
	backoff = cfg.backoff_ms;

	for (;;) {
		struct pollfd p[2];
		nfds_t np = 0;
		int wait = 1000, err, was_online;
		const uint8_t *out;

		/* Readings, as long as there is room to keep them. */
		now = millis();
		while (!ended && mqtt_pending(&mq) < MQTT_SLOTS && due(now, next_reading)) {
			if (cfg.from_stdin) {
				int took = take_line(seq);

				if (took == 0) {
					ended = eof;
					break;
				}
				if (took < 0)
					continue;
			} else {
				publish_reading(seq, 0, generated(seq), 0);
			}
			seq++;
			next_reading += cfg.interval_ms;
			if (due(now, next_reading + cfg.interval_ms))
				next_reading = now; /* was held up: no hurry to catch up */
			ended = cfg.count != 0 && seq == cfg.count;
		}
		if (ended && mqtt_pending(&mq) == 0)
			break;

		/* The connection. */
		if (fd < 0 && due(now, next_dial)) {
			fd = dial(&addresses[try++ % address_count]);
			now = millis();
			if (fd >= 0) {
				mqtt_open(&mq, now);
			} else {
				/* Half to all of the pause: a plant full of devices
				 * shall not come back at once. */
				next_dial = now + backoff / 2 + rnd() % (backoff / 2 + 1);
				backoff = backoff * 2 < BACKOFF_MAX_MS ? backoff * 2 : BACKOFF_MAX_MS;
			}
		}
		if (fd >= 0) {
			was_online = mqtt_online(&mq);
			err = transfer(fd);
			if (!was_online && mqtt_online(&mq))
				backoff = cfg.backoff_ms;
			if (err != 0) {
				if (err == -2)
					fputs("publisher: the broker refuses this client\n", stderr);
				close(fd);
				fd = -1;
				mqtt_lost(&mq);
				reconnects++;
				next_dial = millis() + backoff / 2 + rnd() % (backoff / 2 + 1);
				backoff = backoff * 2 < BACKOFF_MAX_MS ? backoff * 2 : BACKOFF_MAX_MS;
				continue;
			}
		}

		/* Sleep until something can happen. */
		now = millis();
		if (ended && mqtt_pending(&mq) == 0)
			break;
		if (!ended && mqtt_pending(&mq) < MQTT_SLOTS && !(cfg.from_stdin && memchr(line, '\n', line_len) == NULL))
			wait = until(now, next_reading, wait);
		if (fd < 0)
			wait = until(now, next_dial, wait);
		if (fd >= 0) {
			p[np].fd = fd;
			p[np].events = POLLIN;
			if (mqtt_output(&mq, &out) > 0)
				p[np].events |= POLLOUT;
			np++;
		}
		if (cfg.from_stdin && !eof && line_len < LINE - 1 && memchr(line, '\n', line_len) == NULL) {
			p[np].fd = STDIN_FILENO;
			p[np].events = POLLIN;
			np++;
		}
		if (poll(p, np, wait) > 0 && np > 0 && p[np - 1].fd == STDIN_FILENO && p[np - 1].revents != 0) {
			ssize_t k = read(STDIN_FILENO, line + line_len, LINE - 1 - line_len);

			if (k > 0) {
				line_len += (size_t)k;
			} else if (k == 0 || errno != EINTR) {
				eof = 1;
				if (line_len > 0) /* a last line without its end */
					line[line_len++] = '\n';
			}
		}
	}

	if (fd >= 0) {
		uint8_t bye[2];

		mqtt_goodbye(bye);
		(void)!send(fd, bye, sizeof bye, MSG_NOSIGNAL);
		close(fd);
	}
	printf("published %lu acked %lu resent %lu reconnects %lu\n", (unsigned long)seq,
	       (unsigned long)mq.acked, (unsigned long)mq.resent, (unsigned long)reconnects);
	return EXIT_SUCCESS;
}
