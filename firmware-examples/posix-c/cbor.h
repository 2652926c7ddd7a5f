/* cbor.h - writes CBOR (RFC 8949) into a fixed buffer: what a sensor needs.
 *
 * Begin with cbor_begin, write items, then look at overflow: once something
 * did not fit, nothing more is written and len is what fitted before. */
#ifndef CBOR_H
#define CBOR_H

#include <stddef.h>
#include <stdint.h>

struct cbor {
	uint8_t *buf;
	size_t cap;
	size_t len;
	int overflow; /* 1 once an item did not fit */
};

void cbor_begin(struct cbor *c, uint8_t *buf, size_t cap);
void cbor_map(struct cbor *c, uint32_t pairs); /* followed by pairs keys and values */
void cbor_array(struct cbor *c, uint32_t items);
void cbor_uint(struct cbor *c, uint64_t v);
void cbor_int(struct cbor *c, int64_t v);
void cbor_text(struct cbor *c, const char *s); /* UTF-8, ends at NUL */
void cbor_bool(struct cbor *c, int v);
void cbor_double(struct cbor *c, double v); /* as 4 bytes where that loses nothing */

#endif
