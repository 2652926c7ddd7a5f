package record

import (
	"encoding/binary"
	"fmt"
)

// Field is one header of a record. A nil Value is Kafka's null.
type Field struct {
	Key   string
	Value []byte
}

// Record is one record. Key and Value nil are Kafka's null. Offset and
// Timestamp (ms since 1970) are absolute.
type Record struct {
	Offset    int64
	Timestamp int64
	Key       []byte
	Value     []byte
	Headers   []Field
}

// Header returns the value of the last header with that name, and whether
// there is one.
func (r *Record) Header(name string) ([]byte, bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// Limits of what a decoder believes before it allocates.
const (
	// MaxRecordsBytes bounds the decompressed records of one batch, in bytes: as
	// much as an uncompressed batch may hold.
	MaxRecordsBytes = MaxBatchBytes
	// MaxHeaders bounds the headers of one record.
	MaxHeaders = 1024
)

// Records decodes the records of the batch raw, decompressing them if need
// be, and calls f for each in order. The Record is reused between calls and
// its slices alias raw or a decompression buffer: f copies what it keeps.
// Offsets rise from record to record; they have gaps in a compacted batch
// only. An error of f ends the walk and is returned as it is. The CRC is not
// checked here (Check does).
func Records(raw []byte, f func(r *Record) error) error {
	return walk(raw, MaxRecordsBytes, f)
}

// CheckRecords decodes a batch that passed CheckProduced down to its last
// record, so that no reader will stumble over it: every record is well formed,
// offsets are dense, and decompressed they take at most maxBytes.
func CheckRecords(raw []byte, maxBytes int) error {
	next := int64(-1)
	return walk(raw, maxBytes, func(r *Record) error {
		if next >= 0 && r.Offset != next {
			return fmt.Errorf("%w: offset %d where %d should be", ErrCorrupt, r.Offset, next)
		}
		next = r.Offset + 1
		return nil
	})
}

func walk(raw []byte, maxBytes int, f func(r *Record) error) error {
	h, err := ParseHeader(raw)
	if err != nil {
		return err
	}
	body := raw[HeaderSize:h.Size()]
	if h.Codec() != None {
		if body, err = Decompress(h.Codec(), nil, body, maxBytes); err != nil {
			return err
		}
	}
	// A record takes at least 7 bytes, which bounds Count before any loop.
	if int64(h.Count)*7 > int64(len(body)) {
		return fmt.Errorf("%w: %d records in %d bytes", ErrCorrupt, h.Count, len(body))
	}
	var r Record
	last := int64(-1)
	for i := int32(0); i < h.Count; i++ {
		size, n := binary.Varint(body)
		if n <= 0 || size < 0 || size > int64(len(body)-n) {
			return fmt.Errorf("%w: record %d has a bad length", ErrCorrupt, i)
		}
		delta, err := decodeRecord(body[n:n+int(size)], &h, &r)
		if err == nil && delta <= last {
			err = fmt.Errorf("%w: offset delta %d behind %d", ErrCorrupt, delta, last)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		last = delta
		body = body[n+int(size):]
		if err := f(&r); err != nil {
			return err
		}
	}
	if len(body) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last record", ErrCorrupt, len(body))
	}
	return nil
}

// decodeRecord decodes one record and returns its offset delta.
func decodeRecord(b []byte, h *Header, r *Record) (int64, error) {
	d := decoder{b: b}
	d.skip(1) // record attributes: unused by Kafka
	dt := d.varint()
	do := d.varint()
	if do < 0 || do > int64(h.LastOffsetDelta) {
		return 0, fmt.Errorf("%w: offset delta %d", ErrCorrupt, do)
	}
	r.Timestamp = h.BaseTimestamp + dt
	if h.LogAppendTime() {
		r.Timestamp = h.MaxTimestamp
	}
	r.Offset = h.BaseOffset + do
	r.Key = d.bytes()
	r.Value = d.bytes()
	n := d.varint()
	if n < 0 || n > MaxHeaders || 2*n > int64(len(d.b)) {
		return 0, fmt.Errorf("%w: %d headers", ErrCorrupt, n)
	}
	old := r.Headers[:cap(r.Headers)]
	r.Headers = r.Headers[:0]
	for i := range int(n) {
		k := d.bytes()
		v := d.bytes()
		if k == nil && !d.bad {
			return 0, fmt.Errorf("%w: header without a name", ErrCorrupt)
		}
		// Neighbours mostly have the same names: no new string then.
		var name string
		if i < len(old) && old[i].Key == string(k) {
			name = old[i].Key
		} else {
			name = string(k)
		}
		r.Headers = append(r.Headers, Field{Key: name, Value: v})
	}
	if d.bad || len(d.b) != 0 {
		return 0, fmt.Errorf("%w: bad field length", ErrCorrupt)
	}
	return do, nil
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) skip(n int) {
	if len(d.b) < n {
		d.bad, d.b = true, nil
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes reads a length-prefixed field; length -1 is null.
func (d *decoder) bytes() []byte {
	n := d.varint()
	if d.bad || n == -1 {
		return nil
	}
	if n < 0 || n > int64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// Builder makes one batch of records. The zero Builder is ready. It is not
// safe for concurrent use. Append does not allocate once its buffer has
// grown.
type Builder struct {
	body   []byte
	count  int32
	baseTS int64
	maxTS  int64
}

// Count is the number of records appended since Reset.
func (b *Builder) Count() int { return int(b.count) }

// Size is the length in bytes of the uncompressed batch as it stands.
func (b *Builder) Size() int { return HeaderSize + len(b.body) }

// Reset forgets all records and keeps the buffer.
func (b *Builder) Reset() { b.body, b.count = b.body[:0], 0 }

// Append adds a record behind the others; its Offset is ignored, its bytes
// are copied. Decoders refuse a record with more than MaxHeaders headers, and
// a batch longer than MaxBatchBytes: the caller keeps below.
func (b *Builder) Append(r *Record) {
	if b.count == 0 {
		b.baseTS, b.maxTS = r.Timestamp, r.Timestamp
	} else if r.Timestamp > b.maxTS {
		b.maxTS = r.Timestamp
	}
	dt, do := r.Timestamp-b.baseTS, int64(b.count)
	size := 1 + varintLen(dt) + varintLen(do) + fieldLen(r.Key) + fieldLen(r.Value) + varintLen(int64(len(r.Headers)))
	for i := range r.Headers {
		k := len(r.Headers[i].Key)
		size += varintLen(int64(k)) + k + fieldLen(r.Headers[i].Value)
	}
	b.body = binary.AppendVarint(b.body, int64(size))
	b.body = append(b.body, 0)
	b.body = binary.AppendVarint(b.body, dt)
	b.body = binary.AppendVarint(b.body, do)
	b.body = appendField(b.body, r.Key)
	b.body = appendField(b.body, r.Value)
	b.body = binary.AppendVarint(b.body, int64(len(r.Headers)))
	for i := range r.Headers {
		b.body = binary.AppendVarint(b.body, int64(len(r.Headers[i].Key)))
		b.body = append(b.body, r.Headers[i].Key...)
		b.body = appendField(b.body, r.Headers[i].Value)
	}
	b.count++
}

// Build appends the finished batch to dst and returns it. Base offset and
// leader epoch are stamped as given; with a codec other than None the records
// are compressed unless that saves nothing. The Builder keeps its records
// until Reset. It panics on an empty Builder.
func (b *Builder) Build(dst []byte, baseOffset int64, leaderEpoch int32, codec Codec) []byte {
	if b.count == 0 {
		panic("record: Build of an empty Builder")
	}
	at := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	used := None
	if codec != None {
		if packed, err := Compress(codec, dst, b.body); err == nil && len(packed)-len(dst) < len(b.body) {
			dst, used = packed, codec
		}
	}
	if used == None {
		dst = append(dst, b.body...)
	}
	h := dst[at:]
	binary.BigEndian.PutUint32(h[8:], uint32(len(h)-12))
	h[16] = magicV2
	binary.BigEndian.PutUint16(h[21:], uint16(used))
	binary.BigEndian.PutUint32(h[23:], uint32(b.count-1))
	binary.BigEndian.PutUint64(h[27:], uint64(b.baseTS))
	binary.BigEndian.PutUint64(h[35:], uint64(b.maxTS))
	binary.BigEndian.PutUint64(h[43:], ^uint64(0))
	binary.BigEndian.PutUint16(h[51:], ^uint16(0))
	binary.BigEndian.PutUint32(h[53:], ^uint32(0))
	binary.BigEndian.PutUint32(h[57:], uint32(b.count))
	Stamp(h, baseOffset, leaderEpoch)
	sealCRC(h)
	return dst
}

// BuildIdempotent is Build with producer id, epoch and base sequence set.
func (b *Builder) BuildIdempotent(dst []byte, codec Codec, producerID int64, epoch int16, baseSequence int32) []byte {
	at := len(dst)
	dst = b.Build(dst, 0, 0, codec)
	h := dst[at:]
	binary.BigEndian.PutUint64(h[43:], uint64(producerID))
	binary.BigEndian.PutUint16(h[51:], uint16(epoch))
	binary.BigEndian.PutUint32(h[53:], uint32(baseSequence))
	sealCRC(h)
	return dst
}

func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}

func fieldLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

func appendField(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}
