package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"edgehub/pkg/log/record"
)

// Layout of a journal entry (big endian). It begins on a block border and is
// padded with zeros to the next.
//
//	 0 magic "EHJE" | 4 version u8 | 5 codec u8 (record.Codec: none, zstd)
//	 6 block shift u8 (12: 4 KiB, 14: 16 KiB) | 7 zero
//	 8 sequence u64 | 16 stored length u32 | 20 raw length u32
//	24 hybrid time i64 ms | 32 tail u64 | 40 epoch i32
//	44 CRC-32C u32 of the log's secret, bytes 0..44 and the stored payload
//	48 payload: sections, compressed as a whole unless that saves no block
const (
	entryMagic   = 0x45484a45 // "EHJE"
	entryVersion = 1
	entryHeader  = 48

	minBlock      = 4 << 10
	maxBlock      = 16 << 10 // SD and eMMC
	minBlockShift = 12
	maxBlockShift = 14

	// maxEntryRaw is the largest payload that a decoder believes.
	maxEntryRaw = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of entry decoders.
var (
	errNoEntry  = errors.New("no journal entry here")
	errBadEntry = errors.New("journal entry fails its checksum")
	errNewer    = errors.New("written by a newer version")
	errSection  = errors.New("journal section is malformed")
)

// entry is the header of a journal entry.
type entry struct {
	seq    uint64
	tail   uint64 // lowest sequence not yet wholly in synced segments
	time   int64  // hybrid, ms since 1970
	epoch  int32
	codec  record.Codec
	shift  uint8 // of the block size
	stored int
	raw    int
	crc    uint32
}

// size is the length of the entry in the journal, padding included.
func (e *entry) size() int64 {
	block := int64(1) << e.shift
	return (entryHeader + int64(e.stored) + block - 1) &^ (block - 1)
}

// saltedCRC is the checksum of entries: b alone cannot forge it without the
// log's secret.
func saltedCRC(secret *[16]byte, parts ...[]byte) uint32 {
	c := crc32.Update(0, castagnoli, secret[:])
	for _, p := range parts {
		c = crc32.Update(c, castagnoli, p)
	}
	return c
}

// seal writes the header of e over the first entryHeader bytes of b, which
// holds the stored payload behind them, and pads b with zeros to whole blocks.
func (e *entry) seal(b []byte, secret *[16]byte) []byte {
	e.stored = len(b) - entryHeader
	binary.BigEndian.PutUint32(b[0:], entryMagic)
	b[4], b[5], b[6], b[7] = entryVersion, byte(e.codec), e.shift, 0
	binary.BigEndian.PutUint64(b[8:], e.seq)
	binary.BigEndian.PutUint32(b[16:], uint32(e.stored))
	binary.BigEndian.PutUint32(b[20:], uint32(e.raw))
	binary.BigEndian.PutUint64(b[24:], uint64(e.time))
	binary.BigEndian.PutUint64(b[32:], e.tail)
	binary.BigEndian.PutUint32(b[40:], uint32(e.epoch))
	e.crc = saltedCRC(secret, b[:44], b[entryHeader:])
	binary.BigEndian.PutUint32(b[44:], e.crc)
	pad := int(e.size()) - len(b)
	return append(b, zeros[:pad]...)
}

var zeros [maxBlock]byte

// parseEntry decodes the header that b begins with. errNoEntry: none is here.
// It does not check the CRC.
func parseEntry(b []byte) (entry, error) {
	var e entry
	if len(b) < entryHeader || binary.BigEndian.Uint32(b) != entryMagic {
		return e, errNoEntry
	}
	e.codec, e.shift = record.Codec(b[5]), b[6]
	e.seq = binary.BigEndian.Uint64(b[8:])
	e.stored = int(binary.BigEndian.Uint32(b[16:]) & 0x7fffffff)
	e.raw = int(binary.BigEndian.Uint32(b[20:]) & 0x7fffffff)
	e.time = int64(binary.BigEndian.Uint64(b[24:]))
	e.tail = binary.BigEndian.Uint64(b[32:])
	e.epoch = int32(binary.BigEndian.Uint32(b[40:]))
	e.crc = binary.BigEndian.Uint32(b[44:])
	switch {
	case e.shift < minBlockShift, e.shift > maxBlockShift,
		e.raw > maxEntryRaw, e.stored > e.raw, e.codec == record.None && e.stored != e.raw,
		e.tail > e.seq, e.epoch < 0:
		return e, errBadEntry
	}
	return e, nil
}

// check verifies the CRC of the entry whose header and stored payload b begins
// with. errNewer: it is sound, but of a version that this code must not touch.
func (e *entry) check(b []byte, secret *[16]byte) error {
	if len(b) < entryHeader+e.stored {
		return errBadEntry
	}
	if saltedCRC(secret, b[:44], b[entryHeader:entryHeader+e.stored]) != e.crc {
		return errBadEntry
	}
	if b[4] != entryVersion || b[7] != 0 || e.codec != record.None && e.codec != record.Zstd {
		return fmt.Errorf("journal entry %d of format %d: %w", e.seq, b[4], errNewer)
	}
	return nil
}

// payload is the raw payload of the checked entry b; it may alias b.
func (e *entry) payload(b []byte) ([]byte, error) {
	stored := b[entryHeader : entryHeader+e.stored]
	if e.codec == record.None {
		return stored, nil
	}
	raw, err := record.Decompress(e.codec, make([]byte, 0, min(e.raw, 16*len(stored)+minBlock)), stored, e.raw)
	if err != nil {
		return nil, fmt.Errorf("journal entry %d: %w", e.seq, err)
	}
	if len(raw) != e.raw {
		return nil, fmt.Errorf("journal entry %d: %d bytes, want %d", e.seq, len(raw), e.raw)
	}
	return raw, nil
}

// Sections of an entry: type u8, length uvarint, body. A type that a reader
// does not know makes it refuse the whole log: it was written by a newer
// version. Numbers are for ever.
const (
	// sectionBatches: topic id, then pieces: partition uvarint, kind u8
	// (pieceOwn, pieceProduced), length uvarint, whole record batches.
	sectionBatches = 1
	// sectionEpoch: number i32, random id [16]. First of an Open's first entry.
	sectionEpoch = 2
	// 3 is reserved for clock steps, 9 for ticks, 10 for MQTT session deltas.

	// sectionLogStart: topic id, partition uvarint, offset uvarint.
	sectionLogStart = 4
	// sectionTopic: JSON of topicMeta; a topic created or configured.
	sectionTopic = 5
	// sectionDelete: topic id.
	sectionDelete = 6
	// sectionRecap: topic id, count uvarint, then partition uvarint, next
	// offset uvarint: partitions that the entry before this one wrote and this
	// one does not, so that its loss leaves exact ranges (J6).
	sectionRecap = 7
	// sectionClose: empty. The log was closed in good order.
	sectionClose = 8
)

const (
	pieceOwn      = 0 // built here from single records; may be merged
	pieceProduced = 1 // made by a Kafka producer; kept verbatim
)

// sections calls f with each section of a raw payload. f gets the body as a
// part of b.
func sections(b []byte, f func(typ byte, body []byte) error) error {
	for len(b) > 0 {
		typ := b[0]
		n, k := binary.Uvarint(b[1:])
		if k <= 0 || n > uint64(len(b)-1-k) {
			return errSection
		}
		body := b[1+k : 1+k+int(n)]
		b = b[1+k+int(n):]
		if err := f(typ, body); err != nil {
			return err
		}
	}
	return nil
}

// appendSection appends a whole section.
func appendSection(dst []byte, typ byte, body []byte) []byte {
	dst = append(dst, typ)
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

// uvarintLen is the length of v as a uvarint.
func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

// cursor reads fields of a section or a table. After a field that is cut
// short, bad is set and all later reads are zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

// offset reads an offset; one that is not an int64 is bad.
func (c *cursor) offset() int64 {
	v := c.uvarint()
	if v > 1<<62 {
		c.bad, c.b = true, nil
		return 0
	}
	return int64(v)
}

func (c *cursor) partition() int32 {
	v := c.uvarint()
	if v >= record.MaxPartitions {
		c.bad, c.b = true, nil
		return 0
	}
	return int32(v)
}

func (c *cursor) topicID() (id record.TopicID) {
	copy(id[:], c.take(len(id)))
	return id
}

func (c *cursor) u8() byte {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if v := c.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// bytes reads a uvarint length and as many bytes.
func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	return c.take(int(n))
}

func (c *cursor) err() error {
	if c.bad {
		return errSection
	}
	return nil
}

// piece is a run of whole batches of one partition in an entry.
type piece struct {
	topic     record.TopicID
	partition int32
	produced  bool
	data      []byte
}

// batchPieces decodes a sectionBatches body. data aliases body.
func batchPieces(body []byte, f func(piece) error) error {
	c := cursor{b: body}
	pc := piece{topic: c.topicID()}
	for len(c.b) > 0 {
		pc.partition = c.partition()
		kind := c.u8()
		pc.produced = kind == pieceProduced
		pc.data = c.bytes()
		if c.bad || kind > pieceProduced {
			return errSection
		}
		if err := f(pc); err != nil {
			return err
		}
	}
	return c.err()
}

// appendLogStart appends a sectionLogStart.
func appendLogStart(dst []byte, id record.TopicID, partition int32, offset int64) []byte {
	var body [16 + 2*binary.MaxVarintLen64]byte
	b := append(body[:0], id[:]...)
	b = binary.AppendUvarint(b, uint64(partition))
	b = binary.AppendUvarint(b, uint64(offset))
	return appendSection(dst, sectionLogStart, b)
}
