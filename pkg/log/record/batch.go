// Package record holds Kafka's RecordBatch v2, the one byte format that a
// record has on disk, on the wire and at the core, and the types that stores
// exchange. It is pure: no I/O, no goroutines, no clock.
//
// Layout of a batch (big endian; Kafka's DefaultRecordBatch, KIP-98):
//
//	 0 baseOffset int64       | 8 length int32 (bytes after this field)
//	12 leaderEpoch int32      | 16 magic int8 (2)    | 17 crc uint32 (CRC-32C of 21..end)
//	21 attributes int16       | 23 lastOffsetDelta int32
//	27 baseTimestamp int64 ms | 35 maxTimestamp int64 ms
//	43 producerID int64       | 51 producerEpoch int16 | 53 baseSequence int32
//	57 count int32            | 61 records
//
// baseOffset and leaderEpoch lie outside the CRC, so a store stamps them
// without touching the rest.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// HeaderSize is the length of a batch without its records, in bytes.
const HeaderSize = 61

// MaxBatchBytes is the largest batch that any decoder here accepts, in bytes.
// Stores refuse smaller ones by TopicConfig.MaxMessageBytes.
const MaxBatchBytes = 64 << 20

// NoProducer is the producer id of a batch whose producer is not idempotent.
const NoProducer = -1

const (
	attrCodecMask     = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20

	magicV2 = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of decoders. All of them mean that the bytes cannot be believed;
// ErrShort alone means that more bytes could make them whole.
var (
	ErrShort   = errors.New("record batch is cut short")
	ErrMagic   = errors.New("record batch is not of format 2")
	ErrLength  = errors.New("record batch has an impossible length")
	ErrCRC     = errors.New("record batch fails its checksum")
	ErrCorrupt = errors.New("record batch is malformed")
)

// Header is the fixed part of a batch, decoded.
type Header struct {
	BaseOffset      int64
	Length          int32 // bytes after the length field
	LeaderEpoch     int32
	CRC             uint32
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // ms since 1970
	MaxTimestamp    int64 // ms since 1970
	ProducerID      int64 // NoProducer if none
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32
}

// Size is the length of the whole batch in bytes.
func (h *Header) Size() int { return int(h.Length) + 12 }

// LastOffset is the offset of the last record.
func (h *Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// NextOffset is the offset behind the batch.
func (h *Header) NextOffset() int64 { return h.LastOffset() + 1 }

// Codec is the compression of the records.
func (h *Header) Codec() Codec { return Codec(h.Attributes & attrCodecMask) }

// Control says that the batch holds markers, not records of a user.
func (h *Header) Control() bool { return h.Attributes&attrControl != 0 }

// Transactional says that a transactional producer made the batch.
func (h *Header) Transactional() bool { return h.Attributes&attrTransactional != 0 }

// LogAppendTime says that MaxTimestamp stands for every record's time.
func (h *Header) LogAppendTime() bool { return h.Attributes&attrLogAppendTime != 0 }

// Idempotent says that the batch carries a producer id.
func (h *Header) Idempotent() bool { return h.ProducerID >= 0 }

// ParseHeader decodes the header of the batch that b begins with. It checks
// that b holds the whole batch and that counts and lengths are possible, not
// the CRC. b is not kept.
//
// Errors: ErrShort, ErrLength, ErrMagic, ErrCorrupt.
func ParseHeader(b []byte) (Header, error) {
	h, err := PeekHeader(b)
	if err != nil {
		return h, err
	}
	if len(b) < h.Size() {
		return h, ErrShort
	}
	return h, nil
}

// PeekHeader is ParseHeader for a reader that has the first HeaderSize bytes
// only.
func PeekHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderSize {
		return h, ErrShort
	}
	h.BaseOffset = int64(binary.BigEndian.Uint64(b[0:]))
	h.Length = int32(binary.BigEndian.Uint32(b[8:]))
	h.LeaderEpoch = int32(binary.BigEndian.Uint32(b[12:]))
	if b[16] != magicV2 {
		return h, ErrMagic
	}
	h.CRC = binary.BigEndian.Uint32(b[17:])
	h.Attributes = int16(binary.BigEndian.Uint16(b[21:]))
	h.LastOffsetDelta = int32(binary.BigEndian.Uint32(b[23:]))
	h.BaseTimestamp = int64(binary.BigEndian.Uint64(b[27:]))
	h.MaxTimestamp = int64(binary.BigEndian.Uint64(b[35:]))
	h.ProducerID = int64(binary.BigEndian.Uint64(b[43:]))
	h.ProducerEpoch = int16(binary.BigEndian.Uint16(b[51:]))
	h.BaseSequence = int32(binary.BigEndian.Uint32(b[53:]))
	h.Count = int32(binary.BigEndian.Uint32(b[57:]))
	if h.Length < HeaderSize-12 || int64(h.Length) > MaxBatchBytes-12 {
		return h, ErrLength
	}
	if h.Count < 0 || h.LastOffsetDelta < 0 || h.LastOffsetDelta < h.Count-1 || h.BaseOffset < 0 ||
		h.BaseOffset > math.MaxInt64-1-int64(h.LastOffsetDelta) {
		return h, ErrCorrupt
	}
	return h, nil
}

// Check decodes the header of the batch that b begins with and verifies its
// CRC over attributes..end. It does not decode records.
func Check(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return h, err
	}
	if crc32.Checksum(b[21:h.Size()], castagnoli) != h.CRC {
		return h, ErrCRC
	}
	return h, nil
}

// CheckProduced verifies a batch as a producer sends it: b holds exactly one
// batch with a good CRC, base offset 0 or any other (stores restamp it), no
// control bit, not transactional, record times of its own (not log append
// time), a known codec, and lastOffsetDelta = count-1. CheckRecords looks at
// the records.
func CheckProduced(b []byte) (Header, error) {
	h, err := Check(b)
	if err != nil {
		return h, err
	}
	switch {
	case len(b) != h.Size():
		return h, fmt.Errorf("%w: %d bytes behind the batch", ErrCorrupt, len(b)-h.Size())
	case h.Control() || h.Transactional():
		return h, fmt.Errorf("%w: control or transactional batch", ErrCorrupt)
	case h.LogAppendTime():
		return h, fmt.Errorf("%w: log append time is for stores to set", ErrCorrupt)
	case h.Codec() > Zstd:
		return h, fmt.Errorf("%w: codec %d", ErrCorrupt, h.Codec())
	case h.Count < 1 || h.LastOffsetDelta != h.Count-1:
		return h, fmt.Errorf("%w: %d records with last offset delta %d", ErrCorrupt, h.Count, h.LastOffsetDelta)
	}
	return h, nil
}

// Stamp writes base offset and leader epoch into the batch that b begins
// with, in place. The CRC does not cover them.
func Stamp(b []byte, baseOffset int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b[0:], uint64(baseOffset))
	binary.BigEndian.PutUint32(b[12:], uint32(leaderEpoch))
}

// ClearProducer removes producer id, epoch and sequence from the batch that b
// holds and recomputes its CRC, in place. b must be exactly one batch.
func ClearProducer(b []byte) {
	binary.BigEndian.PutUint64(b[43:], ^uint64(0))
	binary.BigEndian.PutUint16(b[51:], ^uint16(0))
	binary.BigEndian.PutUint32(b[53:], ^uint32(0))
	sealCRC(b)
}

func sealCRC(b []byte) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}

// Batches calls f with every whole batch of b in turn; f must not keep raw. A
// batch cut short at the end of b ends the walk without an error, as Kafka
// clients treat a Fetch response. It returns the length of the whole batches
// walked and the first error of a header or of f.
func Batches(b []byte, f func(h Header, raw []byte) error) (int, error) {
	n := 0
	for len(b)-n >= HeaderSize {
		h, err := PeekHeader(b[n:])
		if err != nil {
			return n, err
		}
		if len(b)-n < h.Size() {
			return n, nil
		}
		if err := f(h, b[n:n+h.Size():n+h.Size()]); err != nil {
			return n, err
		}
		n += h.Size()
	}
	return n, nil
}
