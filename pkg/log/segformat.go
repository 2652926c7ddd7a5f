package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"edgehub/pkg/log/record"
)

// Layout of a segment (big endian).
//
//	  0 header, segHeader bytes
//	512 record batches, one behind the other. A batch whose header would cross
//	    a block border begins on that border instead; every sync ends on one
//	    (J2). What lies between is zeros.
//	    footer, on a block border, once the segment is sealed; its last
//	    segTrailer bytes are the last of the file
//
// Header:
//
//	 0 magic "EHSG" | 4 version u8 | 5 zero [3] | 8 segment id u64
//	16 topic id [16] | 32 partition i32 | 36 epoch i32
//	40 base offset i64 | 48 hybrid time of creation i64 ms
//	56 length of the topic name u8 | 57 name, zeros
//	508 CRC-32C u32 of bytes 0..508
//
// Footer:
//
//	magic "EHSF" | version u8, then uvarints unless said:
//	next offset | end of batches | records | batches
//	first and last ingest (hybrid ms) | largest timestamp i64, base offset of
//	its batch | data digest u32 | epochs: count, each number, first offset |
//	holes: count, each first, last offset | index: count, each offset delta,
//	position delta, largest timestamp i64 until the next | producers: count,
//	each as encodeProducer
//	trailer: CRC-32C u32 of the footer before it | length u32 of it | magic
//
// The data digest is the CRC-32C of the header fields that batch CRCs leave
// out (base offset and leader epoch) of all batches in order.
const (
	segMagic     = 0x45485347 // "EHSG"
	segVersion   = 1
	segHeader    = 512
	footMagic    = 0x45485346 // "EHSF"
	footVersion  = 1
	segTrailer   = 12
	segBlock     = 4 << 10
	maxFooter    = 8 << 20
	indexStretch = 64 << 10 // bytes of segment per index entry
)

var (
	errNoFooter  = errors.New("segment has no footer")
	errBadFooter = errors.New("segment footer fails its checksum")
	errSegHeader = errors.New("segment header fails its checksum")
)

// segHead is the header of a segment.
type segHead struct {
	id        uint64
	topic     record.TopicID
	name      string
	partition int32
	epoch     int32
	base      int64
	created   int64 // hybrid, ms
}

func (h *segHead) encode() []byte {
	b := make([]byte, segHeader)
	binary.BigEndian.PutUint32(b[0:], segMagic)
	b[4] = segVersion
	binary.BigEndian.PutUint64(b[8:], h.id)
	copy(b[16:], h.topic[:])
	binary.BigEndian.PutUint32(b[32:], uint32(h.partition))
	binary.BigEndian.PutUint32(b[36:], uint32(h.epoch))
	binary.BigEndian.PutUint64(b[40:], uint64(h.base))
	binary.BigEndian.PutUint64(b[48:], uint64(h.created))
	b[56] = byte(len(h.name))
	copy(b[57:], h.name)
	binary.BigEndian.PutUint32(b[508:], crc32.Checksum(b[:508], castagnoli))
	return b
}

func parseSegHead(b []byte) (segHead, error) {
	var h segHead
	if len(b) < segHeader || binary.BigEndian.Uint32(b) != segMagic ||
		crc32.Checksum(b[:508], castagnoli) != binary.BigEndian.Uint32(b[508:]) {
		return h, errSegHeader
	}
	if b[4] != segVersion {
		return h, fmt.Errorf("segment of format %d: %w", b[4], errNewer)
	}
	h.id = binary.BigEndian.Uint64(b[8:])
	copy(h.topic[:], b[16:])
	h.partition = int32(binary.BigEndian.Uint32(b[32:]))
	h.epoch = int32(binary.BigEndian.Uint32(b[36:]))
	h.base = int64(binary.BigEndian.Uint64(b[40:]))
	h.created = int64(binary.BigEndian.Uint64(b[48:]))
	n := int(b[56])
	if n > record.MaxTopicName || h.base < 0 || h.partition < 0 || h.partition >= record.MaxPartitions {
		return h, errSegHeader
	}
	h.name = string(b[57 : 57+n])
	if err := record.CheckTopicName(h.name); err != nil {
		return h, errSegHeader
	}
	return h, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segName is the file name of a segment.
func segName(base int64, id uint64) string { return fmt.Sprintf("%020d-%016x.seg", base, id) }

// parseSegName is the inverse of segName.
func parseSegName(s string) (base int64, id uint64, ok bool) {
	s, ok = strings.CutSuffix(s, ".seg")
	if !ok || len(s) != 37 || s[20] != '-' {
		return 0, 0, false
	}
	base, err1 := strconv.ParseInt(s[:20], 10, 64)
	id, err2 := strconv.ParseUint(s[21:], 16, 64)
	return base, id, err1 == nil && err2 == nil
}

// indexEntry leads to a batch. maxTS is the largest timestamp of its batch and
// those behind it, up to the next entry's.
type indexEntry struct {
	offset int64
	pos    int64
	maxTS  int64
}

// epochFrom says that batches from first on are of the epoch.
type epochFrom struct {
	epoch int32
	first int64
}

// hole is a range of offsets that is lost.
type hole struct{ first, last int64 }

// segStats is what is known of the batches of a segment.
type segStats struct {
	next        int64 // offset behind the last record
	end         int64 // position behind the last batch
	records     int64
	batches     int64
	firstIngest int64 // hybrid ms
	lastIngest  int64
	maxTS       int64 // largest timestamp; minTime if none
	maxTSBase   int64 // base offset of the first batch that has it
	digest      uint32
	epochs      []epochFrom
	holes       []hole
}

// minTime is below every timestamp.
const minTime = -1 << 63

// add counts a batch at pos that ends at end.
func (s *segStats) add(h *record.Header, end int64) {
	s.next, s.end = h.NextOffset(), end
	s.records += int64(h.Count)
	s.batches++
	if h.MaxTimestamp > s.maxTS || s.batches == 1 {
		s.maxTS, s.maxTSBase = h.MaxTimestamp, h.BaseOffset
	}
	if n := len(s.epochs); n == 0 || s.epochs[n-1].epoch != h.LeaderEpoch {
		s.epochs = append(s.epochs, epochFrom{h.LeaderEpoch, h.BaseOffset})
	}
	var d [12]byte
	binary.BigEndian.PutUint64(d[0:], uint64(h.BaseOffset))
	binary.BigEndian.PutUint32(d[8:], uint32(h.LeaderEpoch))
	s.digest = crc32.Update(s.digest, castagnoli, d[:])
}

// addIndex keeps the index of a batch at pos: a new entry every indexStretch
// bytes.
func addIndex(index []indexEntry, h *record.Header, pos int64) []indexEntry {
	if n := len(index); n > 0 && pos-index[n-1].pos < indexStretch {
		index[n-1].maxTS = max(index[n-1].maxTS, h.MaxTimestamp)
		return index
	}
	return append(index, indexEntry{h.BaseOffset, pos, h.MaxTimestamp})
}

// footer is what a sealed segment says of itself.
type footer struct {
	segStats
	index     []indexEntry
	producers []*producer
}

// encode is the footer with its trailer. base is the segment's.
func (f *footer) encode(base int64) []byte {
	b := binary.BigEndian.AppendUint32(nil, footMagic)
	b = append(b, footVersion)
	b = binary.AppendUvarint(b, uint64(f.next))
	b = binary.AppendUvarint(b, uint64(f.end))
	b = binary.AppendUvarint(b, uint64(f.records))
	b = binary.AppendUvarint(b, uint64(f.batches))
	b = binary.AppendUvarint(b, uint64(f.firstIngest))
	b = binary.AppendUvarint(b, uint64(f.lastIngest))
	b = binary.BigEndian.AppendUint64(b, uint64(f.maxTS))
	b = binary.AppendUvarint(b, uint64(f.maxTSBase))
	b = binary.BigEndian.AppendUint32(b, f.digest)
	b = binary.AppendUvarint(b, uint64(len(f.epochs)))
	for _, e := range f.epochs {
		b = binary.AppendUvarint(b, uint64(e.epoch))
		b = binary.AppendUvarint(b, uint64(e.first))
	}
	b = binary.AppendUvarint(b, uint64(len(f.holes)))
	for _, h := range f.holes {
		b = binary.AppendUvarint(b, uint64(h.first))
		b = binary.AppendUvarint(b, uint64(h.last))
	}
	b = binary.AppendUvarint(b, uint64(len(f.index)))
	prev := indexEntry{offset: base}
	for _, e := range f.index {
		b = binary.AppendUvarint(b, uint64(e.offset-prev.offset))
		b = binary.AppendUvarint(b, uint64(e.pos-prev.pos))
		b = binary.BigEndian.AppendUint64(b, uint64(e.maxTS))
		prev = e
	}
	b = binary.AppendUvarint(b, uint64(len(f.producers)))
	for _, p := range f.producers {
		b = p.encode(b)
	}
	n := len(b)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint32(b, footMagic)
}

// footerLen reads from the trailer, the last segTrailer bytes of a file, how
// long the footer with its trailer is.
func footerLen(trailer []byte) (int, error) {
	if len(trailer) != segTrailer || binary.BigEndian.Uint32(trailer[8:]) != footMagic {
		return 0, errNoFooter
	}
	n := binary.BigEndian.Uint32(trailer[4:])
	if n > maxFooter {
		return 0, errBadFooter
	}
	return int(n) + segTrailer, nil
}

// parseFooter decodes a footer with its trailer. base is the segment's.
func parseFooter(b []byte, base int64) (*footer, error) {
	if len(b) < segTrailer+5 {
		return nil, errNoFooter
	}
	body := b[:len(b)-segTrailer]
	if binary.BigEndian.Uint32(body) != footMagic ||
		crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, errBadFooter
	}
	if body[4] != footVersion {
		return nil, fmt.Errorf("segment footer of format %d: %w", body[4], errNewer)
	}
	c := cursor{b: body[5:]}
	f := &footer{}
	f.next, f.end = c.offset(), c.offset()
	f.records, f.batches = c.offset(), c.offset()
	f.firstIngest, f.lastIngest = c.offset(), c.offset()
	f.maxTS, f.maxTSBase = int64(c.u64()), c.offset()
	f.digest = c.u32()
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		f.epochs = append(f.epochs, epochFrom{int32(c.uvarint()), c.offset()})
	}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		f.holes = append(f.holes, hole{c.offset(), c.offset()})
	}
	prev := indexEntry{offset: base}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		prev.offset += c.offset()
		prev.pos += c.offset()
		prev.maxTS = int64(c.u64())
		f.index = append(f.index, prev)
	}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		f.producers = append(f.producers, parseProducer(&c))
	}
	if c.bad || len(c.b) != 0 || f.next < base || f.end < segHeader {
		return nil, errBadFooter
	}
	return f, nil
}

// blockUp rounds a position up to the next block border of a segment.
func blockUp(pos int64) int64 { return (pos + segBlock - 1) &^ (segBlock - 1) }

// batchPos is where a batch that comes at or behind pos begins.
func batchPos(pos int64) int64 {
	if segBlock-pos%segBlock < record.HeaderSize {
		return blockUp(pos)
	}
	return pos
}
