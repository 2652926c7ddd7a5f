package uplink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

// chainOf makes epochs 0, 1, … with the given starts.
func chainOf(starts ...int64) []forward.Epoch {
	var chain []forward.Epoch
	for i, s := range starts {
		chain = append(chain, forward.Epoch{Number: int32(i), ID: forward.ID{byte(i + 1)}, Start: s})
	}
	return chain
}

// batch builds a batch of records base, base+1, …
func batch(base int64, n int, epoch int32, codec record.Codec) []byte {
	var b record.Builder
	for i := range n {
		r := rec(base + int64(i))
		b.Append(&r)
	}
	return b.Build(nil, base, epoch, codec)
}

// rec is the record at an offset, with everything that a record can have.
func rec(offset int64) record.Record {
	r := record.Record{Offset: offset, Timestamp: 1_700_000_000_000 - offset*offset%977, Value: fmt.Appendf(nil, "value of %d, long enough to be worth compressing", offset)}
	switch offset % 4 {
	case 0:
		r.Key = fmt.Appendf(nil, "key %d", offset)
	case 1:
		r.Key = []byte{}
		r.Headers = []record.Field{{Key: "site", Value: []byte("s")}, {Key: "", Value: nil}, {Key: "empty", Value: []byte{}}}
	case 2:
		r.Value = nil
	}
	return r
}

func idempotent(base int64, n int, epoch int32, codec record.Codec) []byte {
	var b record.Builder
	for i := range n {
		r := rec(base + int64(i))
		b.Append(&r)
	}
	raw := b.BuildIdempotent(nil, codec, 7, 3, 11)
	record.Stamp(raw, base, epoch)
	return raw
}

// sent is what the core would take of messages: gaps, and records one by one.
type sent struct {
	gaps    []forward.Gap
	records []record.Record
}

// take checks messages as the core does (contiguous, in one epoch each, sound
// batches without producers) and flattens them.
func take(t *testing.T, chain []forward.Epoch, at *place, messages []*message) (out sent) {
	t.Helper()
	for _, m := range messages {
		for _, g := range m.gaps {
			if g.From != at.next || g.To <= g.From {
				t.Fatalf("gap %+v at %d", g, at.next)
			}
			at.next = g.To
			out.gaps = append(out.gaps, g)
		}
		if m.first != at.next || m.epoch < at.epoch {
			t.Fatalf("message from %d in epoch %d at %+v", m.first, m.epoch, *at)
		}
		bytes, records := 0, int64(0)
		for _, b := range m.batches {
			h, err := record.Check(b)
			if err != nil {
				t.Fatalf("batch at %d: %v", at.next, err)
			}
			if h.BaseOffset != at.next || h.Size() != len(b) || h.ProducerID != -1 || h.ProducerEpoch != -1 || h.BaseSequence != -1 ||
				h.Count != h.LastOffsetDelta+1 || h.LeaderEpoch != chain[m.epoch].Number {
				t.Fatalf("batch %+v at %d", h, at.next)
			}
			maxTS := int64(-1 << 62)
			if err := record.Records(b, func(r *record.Record) error {
				out.records = append(out.records, copyOf(r))
				maxTS = max(maxTS, r.Timestamp)
				return nil
			}); err != nil {
				t.Fatalf("records at %d: %v", at.next, err)
			}
			if maxTS != h.MaxTimestamp {
				t.Errorf("batch at %d says that its last time is %d, it is %d", h.BaseOffset, h.MaxTimestamp, maxTS)
			}
			at.next = h.NextOffset()
			bytes += len(b)
			records += int64(h.Count)
		}
		if at.next != m.last+1 || bytes != m.bytes || records != m.records {
			t.Fatalf("message of %d to %d, %d bytes, %d records ends at %d with %d, %d", m.first, m.last, m.bytes, m.records, at.next, bytes, records)
		}
		at.epoch = m.epoch
	}
	return out
}

func copyOf(r *record.Record) record.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = nil
	for _, h := range r.Headers {
		c.Headers = append(c.Headers, record.Field{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	return c
}

func recs(from, to int64) (out []record.Record) {
	for o := from; o < to; o++ {
		out = append(out, rec(o))
	}
	return out
}

func TestCut(t *testing.T) {
	var (
		gap = func(epoch int, from, to int64, reason string) forward.Gap {
			return forward.Gap{Epoch: forward.ID{byte(epoch + 1)}, From: from, To: to, Reason: reason}
		}
		join = func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	)
	for _, c := range []struct {
		name     string
		chain    []forward.Epoch
		at       place
		raw      []byte
		logStart int64
		target   int

		records  []record.Record
		gaps     []forward.Gap
		messages int
		batches  int
		end      place
		err      error
	}{
		{name: "nothing", chain: chainOf(0), end: place{0, 0}},
		{name: "a flushed batch", chain: chainOf(0), raw: batch(0, 100, 0, record.Zstd), records: recs(0, 100), messages: 1, batches: 1, end: place{0, 100}},
		{name: "small neighbours become one", chain: chainOf(0),
			raw:     join(batch(0, 10, 0, record.None), batch(10, 1, 0, record.None), batch(11, 9, 0, record.None)),
			records: recs(0, 20), messages: 1, batches: 1, end: place{0, 20}},
		{name: "at most 512 records", chain: chainOf(0),
			raw:     join(batch(0, 300, 0, record.None), batch(300, 300, 0, record.None)),
			records: recs(0, 600), messages: 1, batches: 2, end: place{0, 600}},
		{name: "not over a flushed one", chain: chainOf(0),
			raw:     join(batch(0, 10, 0, record.None), batch(10, 10, 0, record.Zstd), batch(20, 10, 0, record.None)),
			records: recs(0, 30), messages: 1, batches: 3, end: place{0, 30}},
		{name: "a producer's batches stay apart", chain: chainOf(0),
			raw:     join(idempotent(0, 10, 0, record.None), idempotent(10, 10, 0, record.Gzip)),
			records: recs(0, 20), messages: 1, batches: 2, end: place{0, 20}},
		{name: "trimmed", chain: chainOf(0), at: place{0, 7}, raw: join(batch(0, 10, 0, record.LZ4), batch(10, 5, 0, record.Zstd)),
			records: recs(7, 15), messages: 1, batches: 2, end: place{0, 15}},
		{name: "trimmed to nothing", chain: chainOf(0), at: place{0, 10}, raw: join(batch(0, 10, 0, record.None), batch(10, 5, 0, record.None)),
			records: recs(10, 15), messages: 1, batches: 1, end: place{0, 15}},
		{name: "an epoch a message", chain: chainOf(0, 10, 20),
			raw:     join(batch(0, 10, 0, record.None), batch(10, 10, 1, record.None), batch(20, 10, 2, record.None)),
			records: recs(0, 30), messages: 3, batches: 3, end: place{2, 30}},
		{name: "a message of at most target bytes", chain: chainOf(0), target: 1,
			raw:     join(batch(0, 10, 0, record.Zstd), batch(10, 10, 0, record.Zstd)),
			records: recs(0, 20), messages: 2, batches: 2, end: place{0, 20}},
		{name: "a hole", chain: chainOf(0), raw: join(batch(0, 10, 0, record.None), batch(20, 10, 0, record.None)),
			records: append(recs(0, 10), recs(20, 30)...), gaps: []forward.Gap{gap(0, 10, 20, "lost")}, messages: 2, batches: 2, end: place{0, 30}},
		{name: "a hole over epochs and log start", chain: chainOf(0, 10, 20, 40), raw: batch(50, 10, 3, record.Zstd), logStart: 15,
			records: recs(50, 60), gaps: []forward.Gap{gap(0, 0, 10, "retention"), gap(1, 10, 15, "retention"), gap(1, 15, 20, "lost"), gap(2, 20, 40, "lost"), gap(3, 40, 50, "lost")},
			messages: 1, batches: 1, end: place{3, 60}},
		{name: "retired, and nothing there", chain: chainOf(0, 10), logStart: 10, gaps: []forward.Gap{gap(0, 0, 10, "retention")}, messages: 1, end: place{0, 10}},
		{name: "of an unknown epoch", chain: chainOf(0), raw: join(batch(0, 10, 0, record.Zstd), batch(10, 10, 1, record.Zstd)),
			records: recs(0, 10), messages: 1, batches: 1, end: place{0, 10}, err: errChain},
		{name: "of an epoch before", chain: chainOf(0, 10), at: place{1, 10}, raw: batch(10, 10, 0, record.Zstd), end: place{1, 10}, err: errChain},
		{name: "over an epoch's end", chain: chainOf(0, 10), raw: batch(5, 10, 0, record.Zstd), end: place{0, 0}, err: errChain},
		{name: "damaged", chain: chainOf(0), raw: func() []byte {
			b := join(batch(0, 10, 0, record.None), batch(10, 10, 0, record.None))
			b[len(b)-3] ^= 1
			return b
		}(), records: recs(0, 10), messages: 1, batches: 1, end: place{0, 10}, err: record.ErrCRC},
		{name: "no batch", chain: chainOf(0), raw: make([]byte, 100), end: place{0, 0}, err: record.ErrMagic},
		{name: "cut short", chain: chainOf(0), raw: batch(0, 10, 0, record.Zstd)[:80], end: place{0, 0}, err: record.ErrShort},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.target == 0 {
				c.target = forward.MaxBatchBytes
			}
			cut := newCutter(c.chain, c.at, record.Zstd)
			messages, err := cut.cut(c.raw, c.logStart, c.target, 0)
			if !errors.Is(err, c.err) || err != nil && c.err == nil {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			at := c.at
			got := take(t, c.chain, &at, messages)
			if d := cmp.Diff(got, sent{c.gaps, c.records}, cmp.AllowUnexported(sent{})); d != "" {
				t.Error(d)
			}
			batches := 0
			for _, m := range messages {
				batches += len(m.batches)
			}
			if at != c.end || len(messages) != c.messages || batches != c.batches {
				t.Errorf("ends at %+v with %d messages and %d batches, want %+v, %d, %d", at, len(messages), batches, c.end, c.messages, c.batches)
			}
			if err == nil && cut.at != c.end {
				t.Errorf("cutter stands at %+v, want %+v", cut.at, c.end)
			}
		})
	}
}

// A flushed batch passes as it came, byte for byte; one with a producer but
// for those fields and the checksum.
func TestCutPassesFlushedBatchesUntouched(t *testing.T) {
	for _, codec := range []record.Codec{record.Zstd, record.Gzip, record.Snappy, record.LZ4} {
		raw := batch(40, 50, 0, codec)
		messages, err := newCutter(chainOf(0), place{0, 40}, record.Zstd).cut(bytes.Clone(raw), 0, forward.MaxBatchBytes, 0)
		if err != nil || len(messages) != 1 || !bytes.Equal(messages[0].batches[0], raw) {
			t.Errorf("%s: %v", codec, err)
		}
		raw = idempotent(40, 50, 0, codec)
		want := bytes.Clone(raw)
		record.ClearProducer(want)
		messages, err = newCutter(chainOf(0), place{0, 40}, record.Zstd).cut(raw, 0, forward.MaxBatchBytes, 0)
		if err != nil || len(messages) != 1 || !bytes.Equal(messages[0].batches[0], want) {
			t.Errorf("%s with a producer: %v", codec, err)
		}
	}
}

// For a slow link a large batch becomes small ones.
func TestCutSplits(t *testing.T) {
	for _, raw := range [][]byte{batch(0, 5000, 0, record.Zstd), idempotent(0, 5000, 0, record.Snappy), batch(0, 5000, 0, record.None)} {
		const split = 4000
		messages, err := newCutter(chainOf(0), place{0, 0}, record.Zstd).cut(raw, 0, split, split)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if m.bytes > 2*split {
				t.Errorf("a message of %d bytes", m.bytes)
			}
		}
		at := place{}
		if d := cmp.Diff(take(t, chainOf(0), &at, messages).records, recs(0, 5000)); d != "" {
			t.Error(d)
		}
	}
	one := batch(0, 1, 0, record.None)
	messages, err := newCutter(chainOf(0), place{0, 0}, record.None).cut(one, 0, 1, 1)
	if err != nil || len(messages) != 1 {
		t.Errorf("one record: %d messages, %v", len(messages), err)
	}
}

// An uncompressed batch that is not merged is compressed as it is.
func TestCutCompresses(t *testing.T) {
	appendTime := batch(0, 50, 0, record.None)
	appendTime[22] |= 8
	record.ClearProducer(appendTime)
	for name, raw := range map[string][]byte{
		"of a producer": idempotent(0, 50, 0, record.None), "large": batch(0, 5000, 0, record.None), "append time": appendTime,
	} {
		h, err := record.Check(raw)
		if err != nil {
			t.Fatal(err)
		}
		var want []record.Record
		_ = record.Records(raw, func(r *record.Record) error {
			want = append(want, copyOf(r))
			return nil
		})
		messages, err := newCutter(chainOf(0), place{0, 0}, record.Zstd).cut(bytes.Clone(raw), 0, forward.MaxBatchBytes, 0)
		if err != nil || len(messages) != 1 || len(messages[0].batches) != 1 {
			t.Fatalf("%s: %d messages, %v", name, len(messages), err)
		}
		at := place{}
		got := take(t, chainOf(0), &at, messages)
		if d := cmp.Diff(got.records, want); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		b := messages[0].batches[0]
		g, _ := record.PeekHeader(b)
		if g.Codec() != record.Zstd || g.LogAppendTime() != h.LogAppendTime() || g.MaxTimestamp != h.MaxTimestamp || g.BaseTimestamp != h.BaseTimestamp || len(b)*2 > len(raw) {
			t.Errorf("%s: %d bytes of %d, header %+v", name, len(b), len(raw), g)
		}
	}
}

// However a stream of batches is cut into fetches, and wherever the lane
// stands, the core gets the same records once.
func TestCutAnyStreamAnyFetches(t *testing.T) {
	codecs := []record.Codec{record.None, record.None, record.None, record.Zstd, record.Gzip, record.Snappy, record.LZ4}
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		starts := []int64{0}
		var batches [][]byte
		next := int64(0)
		for range 1 + rng.IntN(40) {
			if rng.IntN(8) == 0 && next > starts[len(starts)-1] {
				starts = append(starts, next)
			}
			n, epoch, codec := 1+rng.IntN(60), int32(len(starts)-1), codecs[rng.IntN(len(codecs))]
			if rng.IntN(4) == 0 {
				batches = append(batches, idempotent(next, n, epoch, codec))
			} else {
				batches = append(batches, batch(next, n, epoch, codec))
			}
			next += int64(n)
		}
		chain := chainOf(starts...)
		at := place{0, rng.Int64N(next)}
		for at.epoch+1 < len(chain) && chain[at.epoch+1].Start <= at.next {
			at.epoch++
		}
		from := at.next
		c := newCutter(chain, at, record.Zstd)
		var got []record.Record
		for c.at.next < next {
			var raw []byte
			most := 1 + rng.IntN(20_000)
			for _, b := range batches {
				if h, _ := record.PeekHeader(b); h.LastOffset() >= c.at.next && (len(raw) == 0 || len(raw)+len(b) <= most) {
					raw = append(raw, b...)
				} else if len(raw) > 0 {
					break
				}
			}
			messages, err := c.cut(raw, 0, 1+rng.IntN(forward.MaxBatchBytes), rng.IntN(2)*rng.IntN(5000))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			s := take(t, chain, &at, messages)
			if len(s.gaps) > 0 {
				t.Fatalf("seed %d: gaps %v", seed, s.gaps)
			}
			got = append(got, s.records...)
		}
		if d := cmp.Diff(got, recs(from, next)); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

// Whatever a hub answers, the cutter neither panics nor sends what the core
// must refuse.
func FuzzCut(f *testing.F) {
	f.Add(bytes.Join([][]byte{batch(0, 3, 0, record.None), idempotent(3, 2, 0, record.Zstd), batch(9, 2, 1, record.None)}, nil), int64(1), int64(0), 100, 0)
	f.Add(batch(0, 600, 0, record.None), int64(5), int64(2), 1, 10)
	f.Add([]byte{}, int64(0), int64(50), 0, 0)
	f.Fuzz(func(t *testing.T, raw []byte, next, logStart int64, target, split int) {
		chain := chainOf(0, 5, 9)
		next, logStart = max(0, next%1000), max(0, logStart%1000)
		at := place{0, next}
		for at.epoch+1 < len(chain) && chain[at.epoch+1].Start <= at.next {
			at.epoch++
		}
		raw = bytes.Clone(raw)
		_, _ = record.Batches(raw, func(_ record.Header, b []byte) error {
			// Without good checksums nothing behind them is reached.
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
			return nil
		})
		messages, err := newCutter(chain, at, record.Zstd).cut(raw, logStart, target, split)
		_ = err // what comes beside it must be good all the same
		place := at
		for _, m := range messages {
			for _, g := range m.gaps {
				if g.From != place.next || g.To <= g.From {
					t.Fatalf("gap %+v at %d", g, place.next)
				}
				place.next = g.To
			}
			if m.first != place.next || m.last < m.first-1 || len(m.batches) == 0 && len(m.gaps) == 0 {
				t.Fatalf("message %+v at %d", m, place.next)
			}
			for _, b := range m.batches {
				h, err := record.Check(b)
				if err != nil || h.BaseOffset != place.next || h.Size() != len(b) || h.Idempotent() {
					t.Fatalf("batch %+v at %d: %v", h, place.next, err)
				}
				place.next = h.NextOffset()
			}
			if place.next != m.last+1 {
				t.Fatalf("message %+v ends at %d", m, place.next)
			}
		}
	})
}
