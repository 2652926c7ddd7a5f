package record

import (
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory of encoders and of decoders of our own batches
// (32-bit gateways with 512 MB).
const zstdWindow = 256 << 10

// zstdBlock is the most that one block of a frame can become, in bytes (RFC
// 8878, 3.1.1.2.4).
const zstdBlock = 128 << 10

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zstdWindow), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err)
	}
	return e
})

// zstdDecoder grows its destination as it needs. zstdCappedDecoder never
// writes behind the capacity of its destination.
var (
	zstdDecoder       = sync.OnceValue(func() *zstd.Decoder { return newZstdDecoder(false) })
	zstdCappedDecoder = sync.OnceValue(func() *zstd.Decoder { return newZstdDecoder(true) })
)

func newZstdDecoder(capped bool) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxRecordsBytes), zstd.WithDecodeAllCapLimit(capped))
	if err != nil {
		panic(err)
	}
	return d
}

// unzstd appends the frames of src, decompressed, to dst: at most limit bytes.
//
// The decoder has one limit for its whole life and does not know what a frame
// without a length will become. So the block headers are walked first: they
// say within a block or two what comes out. Only where that leaves the limit
// in doubt does the output get exactly the limit's room.
func unzstd(dst, src []byte, limit int) ([]byte, error) {
	least, most, err := zstdSize(src, uint64(limit))
	switch {
	case err != nil:
		return nil, err
	case least > uint64(limit):
		return nil, errTooLong
	case most <= uint64(limit):
		// Text becomes four to ten times its size; the decoder makes more room
		// where that is not enough.
		return zstdDecoder().DecodeAll(src, slices.Grow(dst, min(int(most), 4*len(src)+512)))
	}
	const slack = 16 // what the decoder wants behind its output
	dst = slices.Grow(dst, limit+slack)
	out, err := zstdCappedDecoder().DecodeAll(src, dst[:len(dst):len(dst)+limit+slack])
	if err == nil && len(out)-len(dst) > limit {
		err = errTooLong
	}
	return out, err
}

// zstdSize walks the frames and blocks of src and bounds their decompressed
// size in bytes. It stops early where least has passed limit. Lengths that
// frames tell are taken as true: the decoder holds them to that.
func zstdSize(src []byte, limit uint64) (least, most uint64, err error) {
	for len(src) > 0 && least <= limit {
		var h zstd.Header
		if err := h.Decode(src); err != nil {
			return 0, 0, err
		}
		src = src[h.HeaderSize:]
		if h.Skippable {
			if uint64(h.SkippableSize) > uint64(len(src)) {
				return 0, 0, errCutShort
			}
			src = src[h.SkippableSize:]
			continue
		}
		if h.HasFCS {
			if h.FrameContentSize > limit {
				return h.FrameContentSize, h.FrameContentSize, nil
			}
			least += h.FrameContentSize
			most += h.FrameContentSize
		}
		for last := false; !last; {
			if len(src) < 3 {
				return 0, 0, errCutShort
			}
			head := uint32(src[0]) | uint32(src[1])<<8 | uint32(src[2])<<16
			src = src[3:]
			last = head&1 != 0
			size := head >> 3
			atLeast, atMost := uint64(size), uint64(size)
			switch head >> 1 & 3 {
			case 1: // one byte, repeated
				size = 1
			case 2: // compressed
				atLeast, atMost = 0, zstdBlock
			}
			if uint64(size) > uint64(len(src)) {
				return 0, 0, errCutShort
			}
			src = src[size:]
			if !h.HasFCS {
				least += atLeast
				most += atMost
			}
		}
		if h.HasCheckSum {
			if len(src) < 4 {
				return 0, 0, errCutShort
			}
			src = src[4:]
		}
	}
	return least, most, nil
}
