package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var allCodecs = []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clone copies a record deeply, nil slices as nil.
func clone(r *record.Record) record.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = nil
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, record.Field{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	return c
}

// decode is every record of a batch.
func decode(t testing.TB, raw []byte) []record.Record {
	t.Helper()
	var out []record.Record
	must(t, record.Records(raw, func(r *record.Record) error {
		out = append(out, clone(r))
		return nil
	}))
	return out
}

// diff is "" if the two are the same, null and empty told apart. cmp alone
// takes seconds for some hundred records.
func diff(want, got []record.Record) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d records, want %d", len(got), len(want))
	}
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	for i := range want {
		w, g := &want[i], &got[i]
		if w.Offset != g.Offset || w.Timestamp != g.Timestamp || !same(w.Key, g.Key) || !same(w.Value, g.Value) ||
			!slices.EqualFunc(w.Headers, g.Headers, func(a, b record.Field) bool { return a.Key == b.Key && same(a.Value, b.Value) }) {
			return fmt.Sprintf("record %d: %s", i, cmp.Diff(w, g))
		}
	}
	return ""
}

// build makes one batch of recs.
func build(recs []record.Record, base int64, epoch int32, c record.Codec) []byte {
	var b record.Builder
	for i := range recs {
		b.Append(&recs[i])
	}
	return b.Build(nil, base, epoch, c)
}

// threeRecords has every shape of a field: full, empty and null, and a time
// before the first one's.
func threeRecords() []record.Record {
	const base = 1_700_000_000_000
	return []record.Record{
		{Timestamp: base, Key: []byte("press-7"), Value: []byte(`{"t":21.5}`), Headers: []record.Field{
			{Key: "mqtt.topic", Value: []byte("plant/1")}, {Key: "empty", Value: []byte{}}, {Key: "null"}}},
		{Timestamp: base - 250},
		{Timestamp: base + 3_600_000, Key: []byte{}, Value: []byte{}},
	}
}

// golden is threeRecords at offset 1234567890123, epoch 7, made by a program
// of a few lines in another language from the layout in Kafka's documentation.
const golden = `
	00 00 01 1f 71 fb 04 cb 00 00 00 7b 00 00 00 07 02 14 d2 3e 7f 00 00 00 00 00 02
	00 00 01 8b cf e5 68 00 00 00 01 8b d0 1c 56 80 ff ff ff ff ff ff ff ff ff ff ff ff ff ff 00 00 00 03
	6e 00 00 00 0e 70 72 65 73 73 2d 37 14 7b 22 74 22 3a 32 31 2e 35 7d 06
	14 6d 71 74 74 2e 74 6f 70 69 63 0e 70 6c 61 6e 74 2f 31 0a 65 6d 70 74 79 00 08 6e 75 6c 6c 01
	0e 00 f3 03 02 01 01 00
	12 00 80 ba b7 03 04 00 00 00`

// goldenIdempotent is the header of the same records from producer 4711,
// epoch 3, sequence 99.
const goldenIdempotent = `
	00 00 00 00 00 00 00 00 00 00 00 7b 00 00 00 00 02 b0 8f d2 40 00 00 00 00 00 02
	00 00 01 8b cf e5 68 00 00 00 01 8b d0 1c 56 80 00 00 00 00 00 00 12 67 00 03 00 00 00 63 00 00 00 03`

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	must(t, err)
	return b
}

func TestGolden(t *testing.T) {
	want := unhex(t, golden)
	got := build(threeRecords(), 1234567890123, 7, record.None)
	if d := cmp.Diff(hex.Dump(want), hex.Dump(got)); d != "" {
		t.Fatal(d)
	}
	h, err := record.Check(want)
	must(t, err)
	wantHeader := record.Header{BaseOffset: 1234567890123, Length: 123, LeaderEpoch: 7, CRC: 0x14d23e7f, LastOffsetDelta: 2,
		BaseTimestamp: 1_700_000_000_000, MaxTimestamp: 1_700_003_600_000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: 3}
	if d := cmp.Diff(wantHeader, h); d != "" {
		t.Error(d)
	}
	if h.Size() != len(want) || h.LastOffset() != 1234567890125 || h.NextOffset() != 1234567890126 || h.Idempotent() {
		t.Errorf("size %d, last %d, next %d", h.Size(), h.LastOffset(), h.NextOffset())
	}
	recs := threeRecords()
	for i := range recs {
		recs[i].Offset = 1234567890123 + int64(i)
	}
	if d := diff(recs, decode(t, want)); d != "" {
		t.Error(d)
	}

	var b record.Builder
	for _, r := range threeRecords() {
		b.Append(&r)
	}
	idem := b.BuildIdempotent([]byte("before"), record.None, 4711, 3, 99)
	if d := cmp.Diff("before"+string(unhex(t, goldenIdempotent)), string(idem[:6+record.HeaderSize])); d != "" {
		t.Error(d)
	}
	h, err = record.CheckProduced(idem[6:])
	must(t, err)
	if !h.Idempotent() || h.ProducerID != 4711 || h.ProducerEpoch != 3 || h.BaseSequence != 99 {
		t.Errorf("producer: %+v", h)
	}
	record.ClearProducer(idem[6:])
	record.Stamp(idem[6:], 1234567890123, 7)
	if !bytes.Equal(idem[6:], want) {
		t.Error("cleared and stamped, the batch is not the plain one")
	}
}

// remake changes a sound batch and seals it again.
func remake(raw []byte, change func(b []byte)) []byte {
	b := bytes.Clone(raw)
	change(b)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestRefusals(t *testing.T) {
	sound := build(threeRecords(), 10, 1, record.None)
	put32 := func(at int, v int32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
	}
	put64 := func(at int, v int64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[at:], uint64(v)) }
	}
	attr := func(v uint16) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint16(b[21:], v) } }
	const rec0, rec1 = record.HeaderSize, record.HeaderSize + 56
	tests := []struct {
		name string
		raw  []byte
		// The error of each step; a step is only reached if those before pass.
		parse, check, produced, records, dense error
	}{
		{name: "sound", raw: sound},
		{name: "empty", raw: nil, parse: record.ErrShort},
		{name: "half a header", raw: sound[:60], parse: record.ErrShort},
		{name: "a byte short", raw: sound[:len(sound)-1], parse: record.ErrShort},
		{name: "a byte behind", raw: append(bytes.Clone(sound), 0), produced: record.ErrCorrupt},
		{name: "format 1", raw: remake(sound, func(b []byte) { b[16] = 1 }), parse: record.ErrMagic},
		{name: "length 48", raw: remake(sound, put32(8, 48)), parse: record.ErrLength},
		{name: "length negative", raw: remake(sound, put32(8, -1)), parse: record.ErrLength},
		{name: "length huge", raw: remake(sound, put32(8, math.MaxInt32)), parse: record.ErrLength},
		{name: "offset negative", raw: remake(sound, put64(0, -1)), parse: record.ErrCorrupt},
		{name: "offset past the end of numbers", raw: remake(sound, put64(0, math.MaxInt64-2)), parse: record.ErrCorrupt},
		{name: "count negative", raw: remake(sound, put32(57, -3)), parse: record.ErrCorrupt},
		{name: "delta negative", raw: remake(sound, put32(23, -1)), parse: record.ErrCorrupt},
		{name: "delta too small", raw: remake(sound, put32(23, 1)), parse: record.ErrCorrupt},
		{name: "delta too large", raw: remake(sound, put32(23, 5)), produced: record.ErrCorrupt},
		{name: "count smaller", raw: remake(sound, put32(57, 2)), produced: record.ErrCorrupt, records: record.ErrCorrupt},
		{name: "count zero", raw: remake(sound, put32(57, 0)), produced: record.ErrCorrupt, records: record.ErrCorrupt},
		{name: "count and delta larger", raw: remake(sound, func(b []byte) { put32(57, 4)(b); put32(23, 3)(b) }), records: record.ErrCorrupt},
		{name: "count absurd", raw: remake(sound, func(b []byte) { put32(57, 1<<30)(b); put32(23, 1<<30-1)(b) }), records: record.ErrCorrupt},
		{name: "bit flipped in a record", raw: func() []byte { b := bytes.Clone(sound); b[rec0+9] ^= 4; return b }(), check: record.ErrCRC},
		{name: "bit flipped in the CRC", raw: func() []byte { b := bytes.Clone(sound); b[17] ^= 4; return b }(), check: record.ErrCRC},
		{name: "codec 5", raw: remake(sound, attr(5)), produced: record.ErrCorrupt, records: record.ErrCorrupt},
		{name: "zstd without zstd in it", raw: remake(sound, attr(4)), records: record.ErrCorrupt},
		{name: "transactional", raw: remake(sound, attr(0x10)), produced: record.ErrCorrupt},
		{name: "control", raw: remake(sound, attr(0x20)), produced: record.ErrCorrupt},
		{name: "log append time", raw: remake(sound, attr(0x08)), produced: record.ErrCorrupt},
		{name: "record longer than the batch", raw: remake(sound, func(b []byte) { b[rec1] = 0x7e }), records: record.ErrCorrupt},
		{name: "record shorter than its fields", raw: remake(sound, func(b []byte) { b[rec1] = 0x0c }), records: record.ErrCorrupt},
		{name: "record of negative length", raw: remake(sound, func(b []byte) { b[rec1] = 0x01 }), records: record.ErrCorrupt},
		{name: "offset delta past the last", raw: remake(sound, func(b []byte) { b[rec1+4] = 6 }), records: record.ErrCorrupt},
		{name: "offset delta negative", raw: remake(sound, func(b []byte) { b[rec1+4] = 1 }), records: record.ErrCorrupt},
		{name: "offset delta twice", raw: remake(sound, func(b []byte) { b[rec1+4] = 0 }), records: record.ErrCorrupt},
		{name: "key of length -2", raw: remake(sound, func(b []byte) { b[rec1+5] = 3 }), records: record.ErrCorrupt},
		{name: "key longer than the record", raw: remake(sound, func(b []byte) { b[rec1+5] = 20 }), records: record.ErrCorrupt},
		{name: "headers negative", raw: remake(sound, func(b []byte) { b[rec1+7] = 1 }), records: record.ErrCorrupt},
		{name: "headers without bytes", raw: remake(sound, func(b []byte) { b[rec1+7] = 2 }), records: record.ErrCorrupt},
		{name: "header without a name", raw: remake(sound, func(b []byte) { b[rec0+24] = 1 }), records: record.ErrCorrupt},
		{name: "a gap in the offsets", raw: remake(sound, func(b []byte) { put32(23, 3)(b); b[len(b)-4] = 6 }), produced: record.ErrCorrupt, dense: record.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := record.ParseHeader(tt.raw); !errors.Is(err, tt.parse) {
				t.Fatalf("ParseHeader: %v, want %v", err, tt.parse)
			} else if err != nil {
				if _, err := record.Check(tt.raw); !errors.Is(err, tt.parse) {
					t.Errorf("Check: %v, want %v", err, tt.parse)
				}
				return
			}
			if _, err := record.Check(tt.raw); !errors.Is(err, tt.check) {
				t.Fatalf("Check: %v, want %v", err, tt.check)
			} else if err != nil {
				if _, err := record.CheckProduced(tt.raw); !errors.Is(err, tt.check) {
					t.Errorf("CheckProduced: %v, want %v", err, tt.check)
				}
				return
			}
			if _, err := record.CheckProduced(tt.raw); !errors.Is(err, tt.produced) {
				t.Errorf("CheckProduced: %v, want %v", err, tt.produced)
			}
			if err := record.Records(tt.raw, func(*record.Record) error { return nil }); !errors.Is(err, tt.records) {
				t.Errorf("Records: %v, want %v", err, tt.records)
			}
			if tt.dense == nil {
				tt.dense = tt.records
			}
			if err := record.CheckRecords(tt.raw, 1<<20); !errors.Is(err, tt.dense) {
				t.Errorf("CheckRecords: %v, want %v", err, tt.dense)
			}
		})
	}
}

func TestLogAppendTime(t *testing.T) {
	raw := remake(build(threeRecords(), 0, 0, record.None), func(b []byte) { b[22] |= 0x08 })
	for _, r := range decode(t, raw) {
		if r.Timestamp != 1_700_003_600_000 {
			t.Errorf("record %d at %d, want the batch's largest time", r.Offset, r.Timestamp)
		}
	}
}

func TestStampKeepsChecksum(t *testing.T) {
	for _, c := range allCodecs {
		raw := build(threeRecords(), 0, 0, c)
		record.Stamp(raw, 1<<40, 12)
		h, err := record.Check(raw)
		if err != nil || h.BaseOffset != 1<<40 || h.LeaderEpoch != 12 {
			t.Errorf("%s: %+v, %v", c, h, err)
		}
	}
}

func TestBatches(t *testing.T) {
	var all []byte
	var ends []int
	for i := range 4 {
		all = append(all, build(threeRecords(), int64(3*i), 0, allCodecs[i])...)
		ends = append(ends, len(all))
	}
	// Cut anywhere, exactly the whole batches are walked.
	for cut := 0; cut <= len(all); cut++ {
		var seen int
		n, err := record.Batches(all[:cut], func(h record.Header, raw []byte) error {
			if h.BaseOffset != int64(3*seen) || len(raw) != h.Size() || cap(raw) != len(raw) {
				t.Fatalf("cut %d: batch %d: %+v in %d bytes", cut, seen, h, len(raw))
			}
			seen++
			return nil
		})
		must(t, err)
		want, end := 0, 0
		for _, e := range ends {
			if e <= cut {
				want, end = want+1, e
			}
		}
		if seen != want || n != end {
			t.Fatalf("cut %d: %d batches to %d, want %d to %d", cut, seen, n, want, end)
		}
	}
	stop := errors.New("stop")
	if n, err := record.Batches(all, func(h record.Header, _ []byte) error {
		if h.BaseOffset == 6 {
			return stop
		}
		return nil
	}); err != stop || n != ends[1] {
		t.Errorf("stopped at %d with %v, want %d", n, err, ends[1])
	}
	bad := bytes.Clone(all)
	bad[ends[0]+16] = 0
	if n, err := record.Batches(bad, func(record.Header, []byte) error { return nil }); !errors.Is(err, record.ErrMagic) || n != ends[0] {
		t.Errorf("bad second batch: %d, %v", n, err)
	}
}

func TestErrorOfCallbackIsReturned(t *testing.T) {
	stop := errors.New("stop")
	seen := 0
	err := record.Records(build(threeRecords(), 0, 0, record.None), func(*record.Record) error {
		seen++
		return stop
	})
	if err != stop || seen != 1 {
		t.Errorf("%v after %d records", err, seen)
	}
}

func TestHeaderLookup(t *testing.T) {
	r := record.Record{Headers: []record.Field{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "a", Value: []byte("2")}}}
	if v, ok := r.Header("a"); !ok || string(v) != "2" {
		t.Errorf("a: %q, %v; want the last", v, ok)
	}
	if v, ok := r.Header("b"); !ok || v != nil {
		t.Errorf("b: %q, %v; want null", v, ok)
	}
	if _, ok := r.Header("c"); ok {
		t.Error("c is there")
	}
}

// TestHeaderNames: names are right although decoders reuse them, whatever
// comes in turn.
func TestHeaderNames(t *testing.T) {
	var recs []record.Record
	for i := range 40 {
		r := record.Record{Offset: int64(i), Timestamp: 1}
		for j := range i % 5 {
			name := "device"
			if (i+j)%3 == 0 {
				name = strings.Repeat("x", i%7+1)
			}
			r.Headers = append(r.Headers, record.Field{Key: name, Value: []byte{byte(i), byte(j)}})
		}
		recs = append(recs, r)
	}
	if d := diff(recs, decode(t, build(recs, 0, 0, record.Zstd))); d != "" {
		t.Error(d)
	}
}

func TestTooManyHeaders(t *testing.T) {
	for _, n := range []int{record.MaxHeaders, record.MaxHeaders + 1} {
		err := record.CheckRecords(build([]record.Record{{Headers: make([]record.Field, n)}}, 0, 0, record.None), 1<<20)
		if want := n > record.MaxHeaders; errors.Is(err, record.ErrCorrupt) != want {
			t.Errorf("%d headers: %v", n, err)
		}
	}
}

func TestBuildOfNothingPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var b record.Builder
	b.Build(nil, 0, 0, record.None)
}
