package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
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

// Compressors and decompressors that are worth keeping: a gzip writer alone
// takes 800 KB.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Writers  = sync.Pool{New: func() any {
		w := lz4.NewWriter(nil)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			panic(err)
		}
		return w
	}}
	lz4Readers = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
)

// Compress appends src, compressed, to dst. It is safe for concurrent use. dst
// and src must not overlap.
func Compress(c Codec, dst, src []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Zstd:
		return zstdEncoder().EncodeAll(src, dst), nil
	case Snappy:
		dst = slices.Grow(dst, max(0, s2.MaxEncodedLen(len(src))))
		return dst[:len(dst)+len(s2.EncodeSnappy(dst[len(dst):cap(dst)], src))], nil
	case Gzip:
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		buf := bytes.NewBuffer(dst)
		w.Reset(buf)
		return finish(buf, w, src)
	case LZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		buf := bytes.NewBuffer(dst)
		w.Reset(buf)
		return finish(buf, w, src)
	}
	return nil, fmt.Errorf("%w: codec %d", ErrCorrupt, c)
}

func finish(buf *bytes.Buffer, w io.WriteCloser, src []byte) ([]byte, error) {
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// What is wrong with compressed bytes. It always comes wrapped in ErrCorrupt:
// the batch around them is whole, so none of it is ErrShort.
var (
	errTooLong  = errors.New("longer than the limit")
	errCutShort = errors.New("cut short")
)

// Decompress appends src, decompressed, to dst. More than limit bytes of
// output, or more than MaxRecordsBytes, is ErrCorrupt; it is noticed before
// more than the limit and a block of 128 KiB has been written. It is safe for concurrent use. dst
// and src must not overlap.
func Decompress(c Codec, dst, src []byte, limit int) ([]byte, error) {
	var out []byte
	var err error
	limit = min(limit, MaxRecordsBytes)
	switch c {
	case None:
		if len(src) > limit {
			return nil, fmt.Errorf("%w: %w: %d of %d bytes", ErrCorrupt, errTooLong, len(src), limit)
		}
		return append(dst, src...), nil
	case Zstd:
		out, err = unzstd(dst, src, limit)
	case Snappy:
		out, err = unsnappy(dst, src, limit)
	case Gzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err = r.Reset(bytes.NewReader(src)); err == nil {
			out, err = readBounded(dst, r, limit)
		}
	case LZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		out, err = readBounded(dst, r, limit)
	default:
		return nil, fmt.Errorf("%w: codec %d", ErrCorrupt, c)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, c, err)
	}
	return out, nil
}

func readBounded(dst []byte, r io.Reader, limit int) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	n, err := io.Copy(buf, io.LimitReader(r, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errTooLong
	}
	return buf.Bytes(), err
}

// xerialMagic begins the block framing that Java's snappy puts around blocks:
// the magic, two versions of 4 bytes, then blocks behind their lengths.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func unsnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return unsnappyBlock(dst, src, limit)
	}
	if len(src) < xerialHeader {
		return nil, errCutShort
	}
	begin := len(dst)
	for src = src[xerialHeader:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, errCutShort
		}
		n := binary.BigEndian.Uint32(src)
		if uint64(n) > uint64(len(src)-4) {
			return nil, errCutShort
		}
		var err error
		if dst, err = unsnappyBlock(dst, src[4:4+n], limit-(len(dst)-begin)); err != nil {
			return nil, err
		}
		src = src[4+n:]
	}
	return dst, nil
}

// snappyRatio is more than snappy can win: its best element copies 64 bytes
// and takes 3.
const snappyRatio = 22

func unsnappyBlock(dst, b []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(b)
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, errTooLong
	case n/snappyRatio > len(b):
		return nil, fmt.Errorf("%d bytes cannot come from %d", n, len(b))
	}
	dst = slices.Grow(dst, n)
	if _, err := s2.Decode(dst[len(dst):len(dst)+n:len(dst)+n], b); err != nil {
		return nil, err
	}
	return dst[:len(dst)+n], nil
}
