package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec is the compression of a batch's records, numbered as in the batch's
// attributes.
type Codec uint8

// The codecs of Kafka.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

func (c Codec) String() string {
	if int(c) < len(codecNames) {
		return codecNames[c]
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ParseCodec is the inverse of String.
func ParseCodec(s string) (Codec, error) {
	for i, n := range codecNames {
		if n == s {
			return Codec(i), nil
		}
	}
	return None, fmt.Errorf("compression %q is unknown: use zstd, lz4, gzip, snappy or none", s)
}

// zstdWindow bounds the memory of encoders and of decoders of our own batches
// (32-bit gateways with 512 MB).
const zstdWindow = 256 << 10

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zstdWindow), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err)
	}
	return e
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxRecordsBytes))
	if err != nil {
		panic(err)
	}
	return d
})

// Compress appends src, compressed, to dst. It is safe for concurrent use.
func Compress(c Codec, dst, src []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Zstd:
		return zstdEncoder().EncodeAll(src, dst), nil
	case Snappy:
		return append(dst, s2.EncodeSnappy(nil, src)...), nil
	case Gzip:
		buf := bytes.NewBuffer(dst)
		w := gzip.NewWriter(buf)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return buf.Bytes(), nil
	case LZ4:
		buf := bytes.NewBuffer(dst)
		w := lz4.NewWriter(buf)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			return nil, err
		}
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return buf.Bytes(), nil
	}
	return nil, fmt.Errorf("%w: codec %d", ErrCorrupt, c)
}

// xerialMagic begins the block framing that Java's snappy puts around blocks.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

// Decompress appends src, decompressed, to dst. More than limit bytes of
// output is ErrCorrupt. It is safe for concurrent use.
func Decompress(c Codec, dst, src []byte, limit int) ([]byte, error) {
	bad := func(err error) error { return fmt.Errorf("%w: %s: %w", ErrCorrupt, c, err) }
	switch c {
	case None:
		return append(dst, src...), nil
	case Zstd:
		var h zstd.Header
		if err := h.Decode(src); err != nil {
			return nil, bad(err)
		}
		if h.HasFCS && h.FrameContentSize > uint64(limit) {
			return nil, bad(fmt.Errorf("more than %d bytes", limit))
		}
		out, err := zstdDecoder().DecodeAll(src, dst)
		if err != nil {
			return nil, bad(err)
		}
		if len(out)-len(dst) > limit {
			return nil, bad(fmt.Errorf("more than %d bytes", limit))
		}
		return out, nil
	case Snappy:
		return unsnappy(dst, src, limit)
	case Gzip:
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, bad(err)
		}
		return readBounded(c, dst, r, limit)
	case LZ4:
		return readBounded(c, dst, lz4.NewReader(bytes.NewReader(src)), limit)
	}
	return nil, fmt.Errorf("%w: codec %d", ErrCorrupt, c)
}

func readBounded(c Codec, dst []byte, r io.Reader, limit int) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	n, err := io.Copy(buf, io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, c, err)
	}
	if n > int64(limit) {
		return nil, fmt.Errorf("%w: %s: more than %d bytes", ErrCorrupt, c, limit)
	}
	return buf.Bytes(), nil
}

func unsnappy(dst, src []byte, limit int) ([]byte, error) {
	block := func(b []byte) error {
		n, err := s2.DecodedLen(b)
		if err != nil {
			return err
		}
		if n > limit {
			return fmt.Errorf("more than %d bytes", limit)
		}
		limit -= n
		out, err := s2.Decode(nil, b)
		dst = append(dst, out...)
		return err
	}
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%w: snappy: %w", ErrCorrupt, err)
	}
	if !bytes.HasPrefix(src, xerialMagic) {
		if err := block(src); err != nil {
			return fail(err)
		}
		return dst, nil
	}
	if len(src) < 16 {
		return fail(ErrShort)
	}
	for src = src[16:]; len(src) > 0; {
		if len(src) < 4 {
			return fail(ErrShort)
		}
		n := binary.BigEndian.Uint32(src)
		if uint64(n) > uint64(len(src)-4) {
			return fail(ErrShort)
		}
		if err := block(src[4 : 4+n]); err != nil {
			return fail(err)
		}
		src = src[4+n:]
	}
	return dst, nil
}
