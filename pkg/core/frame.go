package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/fxamacker/cbor/v2"
)

// frameHeaderName is the NATS header that holds a frame's header. The name
// of a NATS header is case-sensitive here.
const frameHeaderName = "Hub-Frame"

// frameVersion is the version of header and body. A reader that meets
// another one quarantines: an older hub must not guess.
const frameVersion = 1

// Sizes of a frame, in bytes.
const (
	// frameTarget is how much a frame gathers; one larger batch goes alone.
	frameTarget = 512 << 10
	// maxFrameBatches is the largest batch run that a frame may carry, so that
	// it fits max_payload (8 MB) with its control part.
	maxFrameBatches = 7 << 20
	maxControl      = 7 << 20
	framePrefix     = 12
)

// noTime is the running maximum of record time before the first record.
const noTime = math.MinInt64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of a frame that cannot be believed.
var (
	errFrame        = errors.New("frame is malformed")
	errFrameVersion = errors.New("frame of another version")
)

// frameHeader stands in front of a frame, in the NATS header, so that
// look-ups by offset and time need not decode bodies. The body's checksum
// covers it.
type frameHeader struct {
	Base     int64  // offset of the first record, or the next one's if Count is 0
	Count    int64  // offsets that the frame takes
	Epoch    int32  // leader epoch, stamped into each batch
	Writer   uint64 // random number of the leadership that wrote it
	Number   uint64 // counts the writer's attempts
	Prev     uint64 // stream sequence that the writer had folded; the frame counts at Prev+1 only (C1)
	Keyframe uint64 // sequence of the last keyframe, this one's own if it is one
	MaxTime  int64  // running maximum of record time up to and with this frame, ms; noTime if none
	Time     int64  // writer's clock, running maximum, ms since 1970: ingest time
	Bytes    int64  // running sum of batch bytes up to and with this frame
}

func (h *frameHeader) next() int64      { return h.Base + h.Count }
func (h *frameHeader) isKeyframe() bool { return h.Keyframe == h.Prev+1 }

// encode is the header's text: version and fields in order, decimals
// separated by one space, writer in hex.
func (h *frameHeader) encode() string {
	b := make([]byte, 0, 128)
	b = strconv.AppendInt(b, frameVersion, 10)
	for _, v := range []int64{h.Base, h.Count, int64(h.Epoch)} {
		b = strconv.AppendInt(append(b, ' '), v, 10)
	}
	b = strconv.AppendUint(append(b, ' '), h.Writer, 16)
	for _, v := range []uint64{h.Number, h.Prev, h.Keyframe} {
		b = strconv.AppendUint(append(b, ' '), v, 10)
	}
	for _, v := range []int64{h.MaxTime, h.Time, h.Bytes} {
		b = strconv.AppendInt(append(b, ' '), v, 10)
	}
	return string(b)
}

// parseFrameHeader is the inverse of encode. Errors: errFrame,
// errFrameVersion.
func parseFrameHeader(s string) (frameHeader, error) {
	var h frameHeader
	f := strings.Split(s, " ")
	if v, err := strconv.Atoi(f[0]); err != nil {
		return h, fmt.Errorf("%w: header %.80q", errFrame, s)
	} else if v != frameVersion {
		return h, fmt.Errorf("%w: %d, this hub reads %d: update it", errFrameVersion, v, frameVersion)
	}
	if len(f) != 11 {
		return h, fmt.Errorf("%w: header of %d fields", errFrame, len(f))
	}
	var bad error
	signed := func(i, bits int) int64 {
		v, err := strconv.ParseInt(f[i], 10, bits)
		if err != nil && bad == nil {
			bad = err
		}
		return v
	}
	unsigned := func(i, base int) uint64 {
		v, err := strconv.ParseUint(f[i], base, 64)
		if err != nil && bad == nil {
			bad = err
		}
		return v
	}
	h = frameHeader{
		Base: signed(1, 64), Count: signed(2, 64), Epoch: int32(signed(3, 32)),
		Writer: unsigned(4, 16), Number: unsigned(5, 10), Prev: unsigned(6, 10), Keyframe: unsigned(7, 10),
		MaxTime: signed(8, 64), Time: signed(9, 64), Bytes: signed(10, 64),
	}
	switch {
	case bad != nil:
		return h, fmt.Errorf("%w: header: %w", errFrame, bad)
	case h.Base < 0 || h.Count < 0 || h.Base > math.MaxInt64-h.Count || h.Epoch < 0 || h.Bytes < 0:
		return h, fmt.Errorf("%w: header %.80q", errFrame, s)
	case h.Keyframe > h.Prev+1 || h.Keyframe == 0:
		return h, fmt.Errorf("%w: keyframe %d behind frame %d", errFrame, h.Keyframe, h.Prev+1)
	}
	return h, nil
}

// sum folds the header into the body's checksum.
func (h *frameHeader) sum() uint32 {
	return crc32.Checksum([]byte(h.encode()), castagnoli)
}

// span is what a partition holds of one epoch of a source: the edge's
// offsets [Start, Next), declared gaps included.
type span struct {
	Epoch forward.ID `cbor:"1,keyasint"`
	Start int64      `cbor:"2,keyasint"`
	Next  int64      `cbor:"3,keyasint"`
}

// sourceSpans are the spans by which one frame (or, in a keyframe, all
// frames) took a source further, oldest first.
type sourceSpans struct {
	Source forward.Source `cbor:"1,keyasint"`
	Spans  []span         `cbor:"2,keyasint"`
}

// sourceGap is a gap that the edge declared.
type sourceGap struct {
	Source forward.Source `cbor:"1,keyasint"`
	Gap    forward.Gap    `cbor:"2,keyasint"`
}

// producerEntry is the state of an idempotent producer, newest batch last.
type producerEntry struct {
	ID      int64      `cbor:"1,keyasint"`
	Epoch   int16      `cbor:"2,keyasint"`
	Time    int64      `cbor:"3,keyasint"` // Time of the frame that last had a batch of it
	Batches []seqRange `cbor:"4,keyasint"`
}

// seqRange is one batch of an idempotent producer.
type seqRange struct {
	First int32 `cbor:"1,keyasint"`
	Last  int32 `cbor:"2,keyasint"`
	Base  int64 `cbor:"3,keyasint"`
}

// control is the part of a frame's body before the batches. Marks and Gaps
// are this frame's; in a keyframe, which carries no batches, Marks and
// Producers are the whole tables.
type control struct {
	Marks     []sourceSpans   `cbor:"1,keyasint,omitempty"`
	Gaps      []sourceGap     `cbor:"2,keyasint,omitempty"`
	Producers []producerEntry `cbor:"3,keyasint,omitempty"`
}

// frame is a whole frame. Batches alias the message it was decoded from.
type frame struct {
	frameHeader
	control
	Batches []byte
}

var (
	cborEnc = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode())
	cborDec = must(cbor.DecOptions{
		MaxNestedLevels:  8,
		MaxArrayElements: 1 << 20,
		MaxMapPairs:      1 << 16,
		IndefLength:      cbor.IndefLengthForbidden,
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options
	}
	return v
}

// encodeBody is the message body of f:
//
//	0 version uint8 | 1..3 zero | 4 length of control uint32 | 8 crc uint32 | 12 control, CBOR | batches
//
// The CRC is CRC-32C of control, xor that of the header's text. Batches carry
// their own.
func (f *frame) encodeBody() ([]byte, error) {
	c, err := cborEnc.Marshal(&f.control)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(c) > maxControl {
		return nil, fmt.Errorf("encode frame: %d bytes of marks and producers, at most %d", len(c), maxControl)
	}
	b := make([]byte, framePrefix, framePrefix+len(c)+len(f.Batches))
	b[0] = frameVersion
	binary.BigEndian.PutUint32(b[4:], uint32(len(c)))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(c, castagnoli)^f.sum())
	b = append(b, c...)
	return append(b, f.Batches...), nil
}

// decodeFrame decodes and verifies a stored message: checksums of control and
// of every batch, and that the batches are count offsets from base on, of the
// header's epoch (C4). The frame aliases body.
func decodeFrame(header string, body []byte) (*frame, error) {
	h, err := parseFrameHeader(header)
	if err != nil {
		return nil, err
	}
	f := &frame{frameHeader: h}
	if len(body) < framePrefix {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, len(body))
	}
	if body[0] != frameVersion {
		return nil, fmt.Errorf("%w: body %d", errFrameVersion, body[0])
	}
	n := binary.BigEndian.Uint32(body[4:])
	if n > maxControl || uint64(n) > uint64(len(body)-framePrefix) {
		return nil, fmt.Errorf("%w: control of %d bytes", errFrame, n)
	}
	c := body[framePrefix : framePrefix+n]
	if crc32.Checksum(c, castagnoli)^h.sum() != binary.BigEndian.Uint32(body[8:]) {
		return nil, fmt.Errorf("%w: checksum", errFrame)
	}
	if err := cborDec.Unmarshal(c, &f.control); err != nil {
		return nil, fmt.Errorf("%w: control: %w", errFrame, err)
	}
	f.Batches = body[framePrefix+n:]
	next := h.Base
	for rest := f.Batches; len(rest) > 0; {
		b, err := record.Check(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: batch at offset %d: %w", errFrame, next, err)
		}
		if b.BaseOffset != next || b.LeaderEpoch != h.Epoch {
			return nil, fmt.Errorf("%w: batch of offset %d epoch %d where %d of epoch %d was due",
				errFrame, b.BaseOffset, b.LeaderEpoch, next, h.Epoch)
		}
		next = b.NextOffset()
		rest = rest[b.Size():]
	}
	if next != h.next() {
		return nil, fmt.Errorf("%w: batches end at offset %d, header at %d", errFrame, next, h.next())
	}
	return f, nil
}
