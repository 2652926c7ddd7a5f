package record_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"edgehub/pkg/log/record"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

func TestCodecNames(t *testing.T) {
	for _, c := range allCodecs {
		if got, err := record.ParseCodec(c.String()); got != c || err != nil {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if _, err := record.ParseCodec("brotli"); err == nil || !strings.Contains(err.Error(), `"brotli"`) {
		t.Errorf("brotli: %v", err)
	}
	if got := record.Codec(9).String(); got != "codec(9)" {
		t.Error(got)
	}
}

// samples are bodies of all sorts; blocks of codecs end at 64 and 128 KiB.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var text bytes.Buffer
	for i := range 4000 {
		fmt.Fprintf(&text, `{"device":"press-%d","ts":%d,"temperature":%.2f}`, i%7, 1_700_000_000_000+int64(i)*250, 20+rng.Float64())
	}
	return map[string][]byte{"one byte": {7}, "text": text.Bytes(), "noise": noise, "zeros": make([]byte, 300_000),
		"64 KiB": noise[:64<<10], "128 KiB and one": text.Bytes()[:128<<10+1]}
}

func TestCompressDecompress(t *testing.T) {
	for name, body := range samples() {
		for _, c := range allCodecs {
			prefix := []byte("prefix")
			packed, err := record.Compress(c, bytes.Clone(prefix), body)
			must(t, err)
			if !bytes.HasPrefix(packed, prefix) {
				t.Fatalf("%s %s: Compress lost what was there", c, name)
			}
			packed = packed[len(prefix):]
			out, err := record.Decompress(c, bytes.Clone(prefix), packed, len(body))
			if err != nil || !bytes.Equal(out, append(prefix, body...)) {
				t.Errorf("%s %s: %d of %d bytes, %v", c, name, len(out), len(body), err)
			}
			// The limit is exact.
			if _, err := record.Decompress(c, nil, packed, len(body)-1); !errors.Is(err, record.ErrCorrupt) {
				t.Errorf("%s %s: a byte over the limit: %v", c, name, err)
			}
			if c == record.None {
				continue
			}
			for _, cut := range []int{0, 1, len(packed) / 2, len(packed) - 1} {
				out, err := record.Decompress(c, nil, packed[:cut], len(body))
				if err == nil && bytes.Equal(out, body) {
					t.Errorf("%s %s: whole from %d of %d bytes", c, name, cut, len(packed))
				}
				if err != nil && (!errors.Is(err, record.ErrCorrupt) || errors.Is(err, record.ErrShort)) {
					t.Errorf("%s %s: cut at %d: %v", c, name, cut, err)
				}
			}
		}
	}
	if _, err := record.Compress(7, nil, nil); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("codec 7: %v", err)
	}
	if _, err := record.Decompress(7, nil, nil, 1); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("codec 7: %v", err)
	}
}

// foreign are encodings that other clients make and we do not.
var foreign = []struct {
	name  string
	codec record.Codec
	make  func(b []byte) []byte
}{
	{"gzip of the standard library", record.Gzip, func(b []byte) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		w.Write(b)
		w.Close()
		return buf.Bytes()
	}},
	{"gzip in two members", record.Gzip, func(b []byte) []byte {
		var buf bytes.Buffer
		for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
			w := gzip.NewWriter(&buf)
			w.Write(part)
			w.Close()
		}
		return buf.Bytes()
	}},
	{"snappy in Java's framing", record.Snappy, func(b []byte) []byte { return xerial(b, 32<<10) }},
	{"snappy in Java's framing, one block", record.Snappy, func(b []byte) []byte { return xerial(b, len(b)) }},
	{"lz4 in blocks of 4 MB, linked, with sums", record.LZ4, func(b []byte) []byte {
		var buf bytes.Buffer
		w := lz4.NewWriter(&buf)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block4Mb), lz4.ChecksumOption(true), lz4.BlockChecksumOption(true), lz4.SizeOption(uint64(len(b)))); err != nil {
			panic(err)
		}
		w.Write(b)
		w.Close()
		return buf.Bytes()
	}},
	{"zstd of unsaid length", record.Zstd, func(b []byte) []byte { return zstdStream(b, zstd.WithWindowSize(1<<20)) }},
	{"zstd with a checksum", record.Zstd, func(b []byte) []byte { return zstdStream(b, zstd.WithEncoderCRC(true)) }},
	{"zstd in two frames", record.Zstd, func(b []byte) []byte {
		one, err := record.Compress(record.Zstd, nil, b[:len(b)/3])
		if err != nil {
			panic(err)
		}
		return append(one, zstdStream(b[len(b)/3:])...)
	}},
	{"zstd behind a skippable frame", record.Zstd, func(b []byte) []byte {
		return append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zstdStream(b)...)
	}},
}

func xerial(b []byte, block int) []byte {
	out := []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}
	for len(b) > 0 {
		n := min(block, len(b))
		packed := s2.EncodeSnappy(nil, b[:n])
		out = binary.BigEndian.AppendUint32(out, uint32(len(packed)))
		out = append(out, packed...)
		b = b[n:]
	}
	return out
}

func zstdStream(b []byte, opts ...zstd.EOption) []byte {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		panic(err)
	}
	// Flushed in pieces: the frame cannot say its length.
	for len(b) > 0 {
		n := min(50_000, len(b))
		w.Write(b[:n])
		w.Flush()
		b = b[n:]
	}
	w.Close()
	return buf.Bytes()
}

func TestForeignEncodings(t *testing.T) {
	for _, f := range foreign {
		t.Run(f.name, func(t *testing.T) {
			for name, body := range samples() {
				packed := f.make(body)
				out, err := record.Decompress(f.codec, nil, packed, len(body))
				if err != nil || !bytes.Equal(out, body) {
					t.Errorf("%s: %d of %d bytes, %v", name, len(out), len(body), err)
				}
				if _, err := record.Decompress(f.codec, nil, packed, len(body)-1); !errors.Is(err, record.ErrCorrupt) {
					t.Errorf("%s: a byte over the limit: %v", name, err)
				}
			}
		})
	}
}

// TestOursIsReadByOthers: what we compress is read by decoders that are not
// the ones we use.
func TestOursIsReadByOthers(t *testing.T) {
	for name, body := range samples() {
		packed, err := record.Compress(record.Gzip, nil, body)
		must(t, err)
		r, err := gzip.NewReader(bytes.NewReader(packed))
		must(t, err)
		if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, body) {
			t.Errorf("gzip %s: %v", name, err)
		}
	}
	// LZ4 clients on small machines take no blocks over 64 KB: BD byte 0x40,
	// and Kafka's want version 1, independent blocks, without dictionary.
	for range 2 { // the second comes from the pool
		packed, err := record.Compress(record.LZ4, nil, make([]byte, 1<<20))
		must(t, err)
		if !bytes.HasPrefix(packed, []byte{0x04, 0x22, 0x4d, 0x18}) || packed[4]&0xe3 != 0x60 || packed[5] != 0x40 {
			t.Errorf("lz4 frame begins % x", packed[:7])
		}
	}
	// zstd readers need no more than our window, and find the length.
	packed, err := record.Compress(record.Zstd, nil, make([]byte, 5<<20))
	must(t, err)
	var h zstd.Header
	must(t, h.Decode(packed))
	if h.WindowSize > 256<<10 || !h.HasFCS {
		t.Errorf("zstd frame: window %d, length said %v", h.WindowSize, h.HasFCS)
	}
}

// TestBombs: a little that would become much is refused at the limit, and
// nothing near its size is allocated on the way.
func TestBombs(t *testing.T) {
	const bomb, limit = 64 << 20, 1 << 20
	zeros := make([]byte, 1<<20)
	fill := func(w io.WriteCloser) {
		for range bomb / len(zeros) {
			w.Write(zeros)
		}
		w.Close()
	}
	zstdBomb := func() []byte {
		// Blocks of one repeated byte: 4 bytes for 128 KiB. No length is said.
		b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38} // window 128 KiB
		for i := range bomb / (128 << 10) {
			head := uint32(128<<10)<<3 | 1<<1
			if i == bomb/(128<<10)-1 {
				head |= 1
			}
			b = append(b, byte(head), byte(head>>8), byte(head>>16), 0)
		}
		return b
	}
	tests := []struct {
		name  string
		codec record.Codec
		raw   func() []byte
	}{
		{"gzip", record.Gzip, func() []byte {
			var buf bytes.Buffer
			w, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
			fill(w)
			return buf.Bytes()
		}},
		{"lz4", record.LZ4, func() []byte {
			var buf bytes.Buffer
			w := lz4.NewWriter(&buf)
			fill(w)
			return buf.Bytes()
		}},
		{"zstd", record.Zstd, zstdBomb},
		{"zstd that says its length", record.Zstd, func() []byte {
			return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 4}, zstdBomb()[6:]...)
		}},
		{"zstd that says a small length", record.Zstd, func() []byte {
			return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0x10, 0, 0}, zstdBomb()[6:]...)
		}},
		{"zstd behind a small frame", record.Zstd, func() []byte {
			b, _ := record.Compress(record.Zstd, nil, zeros[:100])
			return append(b, zstdBomb()...)
		}},
		{"snappy", record.Snappy, func() []byte { return s2.EncodeSnappy(nil, make([]byte, 64<<20)) }},
		{"snappy that only says so", record.Snappy, func() []byte { return []byte{0xff, 0xff, 0x3f, 0, 0} }},
		{"snappy in Java's framing", record.Snappy, func() []byte { return xerial(make([]byte, 64<<20), 64<<10) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := tt.raw()
			warm, err := record.Compress(tt.codec, nil, zeros[:1000])
			must(t, err)
			_, err = record.Decompress(tt.codec, nil, warm, limit)
			must(t, err)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = record.Decompress(tt.codec, nil, raw, limit)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, record.ErrCorrupt) {
				t.Errorf("%d bytes: %v", len(raw), err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 16*limit {
				t.Errorf("%d bytes allocated for a limit of %d", got, limit)
			}
		})
	}
}

func TestSnappyThatOnlySaysItsLength(t *testing.T) {
	// A length below the limit that so few bytes cannot become.
	if _, err := record.Decompress(record.Snappy, nil, []byte{0x80, 0x80, 0x80, 0x08, 0, 0}, 64<<20); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestXerialDamage(t *testing.T) {
	sound := xerial([]byte("some bytes, some bytes, some bytes"), 10)
	for cut := 1; cut < len(sound); cut++ {
		out, err := record.Decompress(record.Snappy, nil, sound[:cut], 1<<20)
		if err == nil && len(out)%10 != 0 {
			t.Errorf("cut at %d: %q", cut, out)
		}
		if err != nil && !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	bad := bytes.Clone(sound)
	bad[16] = 0xff // block length
	if _, err := record.Decompress(record.Snappy, nil, bad, 1<<20); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("block longer than all: %v", err)
	}
}

// TestCompressionThatSavesNothing is left out.
func TestCompressionThatSavesNothing(t *testing.T) {
	for _, c := range allCodecs {
		raw := build([]record.Record{{Value: []byte("x")}}, 0, 0, c)
		h, err := record.Check(raw)
		must(t, err)
		if h.Codec() != record.None || len(raw) != record.HeaderSize+8 {
			t.Errorf("%s: one byte became %s, %d bytes", c, h.Codec(), len(raw))
		}
		raw = build([]record.Record{{Value: make([]byte, 1000)}}, 0, 0, c)
		if h, _ := record.Check(raw); h.Codec() != c {
			t.Errorf("%s: a thousand zeros became %s", c, h.Codec())
		}
	}
}

func TestRoundTripOfCodecs(t *testing.T) {
	recs := threeRecords()
	for i := range 500 {
		recs = append(recs, record.Record{Timestamp: recs[0].Timestamp + int64(i), Key: []byte("k"), Value: bytes.Repeat([]byte{byte(i)}, i)})
	}
	for i := range recs {
		recs[i].Offset = 77 + int64(i)
	}
	for _, c := range allCodecs {
		raw := build(recs, 77, 3, c)
		h, err := record.CheckProduced(raw)
		must(t, err)
		if h.Codec() != c || h.LeaderEpoch != 3 || h.NextOffset() != 77+int64(len(recs)) {
			t.Errorf("%s: %+v", c, h)
		}
		must(t, record.CheckRecords(raw, 1<<20))
		if err := record.CheckRecords(raw, 1000); c != record.None && !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("%s: over the limit: %v", c, err)
		}
		if d := diff(recs, decode(t, raw)); d != "" {
			t.Errorf("%s: %s", c, d)
		}
	}
}

// TestConcurrentCodecs is for the race detector: encoders, decoders and pools
// are shared.
func TestConcurrentCodecs(t *testing.T) {
	body := samples()["text"]
	var wg sync.WaitGroup
	for range 4 {
		for _, c := range allCodecs {
			wg.Go(func() {
				for i := range 5 {
					part := body[:len(body)-i]
					packed, err := record.Compress(c, nil, part)
					if err != nil {
						t.Error(err)
						return
					}
					// Broken input in between must not poison the pools.
					_, _ = record.Decompress(c, nil, packed[:len(packed)/2], len(part))
					out, err := record.Decompress(c, nil, packed, len(part))
					if err != nil || !bytes.Equal(out, part) {
						t.Errorf("%s: %v", c, err)
					}
				}
			})
		}
	}
	wg.Wait()
}
