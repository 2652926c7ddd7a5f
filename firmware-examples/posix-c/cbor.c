#include "cbor.h"

#include <float.h>
#include <string.h>

enum { MAJOR_UINT = 0, MAJOR_NINT = 1, MAJOR_TEXT = 3, MAJOR_ARRAY = 4, MAJOR_MAP = 5, MAJOR_SIMPLE = 7 };

void cbor_begin(struct cbor *c, uint8_t *buf, size_t cap)
{
	c->buf = buf;
	c->cap = cap;
	c->len = 0;
	c->overflow = 0;
}

/* room makes sure that a whole item of n bytes fits. */
static int room(struct cbor *c, size_t n)
{
	if (c->overflow || n > c->cap - c->len) {
		c->overflow = 1;
		return 0;
	}
	return 1;
}

static size_t head_len(uint64_t v)
{
	if (v < 24)
		return 1;
	if (v <= 0xff)
		return 2;
	if (v <= 0xffff)
		return 3;
	if (v <= 0xffffffffu)
		return 5;
	return 9;
}

/* head writes an item's first byte and its argument; there is room. */
static void head(struct cbor *c, unsigned major, uint64_t v)
{
	size_t n = head_len(v), i;
	uint8_t info;

	switch (n) {
	case 1:
		info = (uint8_t)v;
		break;
	case 2:
		info = 24;
		break;
	case 3:
		info = 25;
		break;
	case 5:
		info = 26;
		break;
	default:
		info = 27;
		break;
	}
	c->buf[c->len++] = (uint8_t)(major << 5 | info);
	for (i = n - 1; i > 0; i--)
		c->buf[c->len++] = (uint8_t)(v >> (8 * (i - 1)));
}

static void item(struct cbor *c, unsigned major, uint64_t v)
{
	if (room(c, head_len(v)))
		head(c, major, v);
}

void cbor_map(struct cbor *c, uint32_t pairs)
{
	item(c, MAJOR_MAP, pairs);
}

void cbor_array(struct cbor *c, uint32_t items)
{
	item(c, MAJOR_ARRAY, items);
}

void cbor_uint(struct cbor *c, uint64_t v)
{
	item(c, MAJOR_UINT, v);
}

void cbor_int(struct cbor *c, int64_t v)
{
	if (v < 0)
		item(c, MAJOR_NINT, (uint64_t)(-(v + 1)));
	else
		item(c, MAJOR_UINT, (uint64_t)v);
}

void cbor_text(struct cbor *c, const char *s)
{
	size_t n = strlen(s);

	if (!room(c, head_len(n) + n))
		return;
	head(c, MAJOR_TEXT, n);
	memcpy(c->buf + c->len, s, n);
	c->len += n;
}

void cbor_bool(struct cbor *c, int v)
{
	item(c, MAJOR_SIMPLE, v ? 21 : 20);
}

void cbor_double(struct cbor *c, double v)
{
	float f = v >= -FLT_MAX && v <= FLT_MAX ? (float)v : 0.0f;
	uint32_t b4;
	uint64_t b8;
	size_t i;

	if ((double)f == v) {
		if (!room(c, 5))
			return;
		memcpy(&b4, &f, sizeof b4);
		c->buf[c->len++] = MAJOR_SIMPLE << 5 | 26;
		for (i = 4; i > 0; i--)
			c->buf[c->len++] = (uint8_t)(b4 >> (8 * (i - 1)));
		return;
	}
	if (!room(c, 9))
		return;
	memcpy(&b8, &v, sizeof b8);
	c->buf[c->len++] = MAJOR_SIMPLE << 5 | 27;
	for (i = 8; i > 0; i--)
		c->buf[c->len++] = (uint8_t)(b8 >> (8 * (i - 1)));
}
