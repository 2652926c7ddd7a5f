package log

import (
	"errors"
	"math"
	"slices"
	"testing"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

func batchHeader(epoch int16, seq, count int32) *record.Header {
	return &record.Header{ProducerID: 9, ProducerEpoch: epoch, BaseSequence: seq, Count: count, LastOffsetDelta: count - 1}
}

// TestProducerRule is Kafka's rule of idempotence, case by case.
func TestProducerRule(t *testing.T) {
	type batch struct {
		epoch      int16
		seq, count int32
		after      int64 // ms since the last
		dup        int   // index of the batch that it repeats, plus 1
		err        error
	}
	for _, c := range []struct {
		name    string
		batches []batch
	}{
		{"unknown producer begins anywhere", []batch{{seq: 77, count: 1}, {seq: 78, count: 1}}},
		{"gap", []batch{{count: 3}, {seq: 4, count: 1, err: record.ErrOutOfOrderSeq}, {seq: 3, count: 1}}},
		{"repeat", []batch{{count: 3}, {seq: 3, count: 2}, {count: 3, dup: 1}, {seq: 3, count: 2, dup: 2}}},
		{"repeat of a part", []batch{{count: 3}, {count: 2, err: record.ErrOutOfOrderSeq}}},
		{"five are remembered", []batch{{count: 1}, {seq: 1, count: 1}, {seq: 2, count: 1}, {seq: 3, count: 1}, {seq: 4, count: 1},
			{count: 1, dup: 1}, {seq: 5, count: 1}, {count: 1, err: record.ErrOutOfOrderSeq}, {seq: 1, count: 1, dup: 2}}},
		{"wrap on the border", []batch{{seq: math.MaxInt32 - 1, count: 2}, {seq: 0, count: 1}, {seq: 1, count: 1}}},
		{"wrap inside a batch", []batch{{seq: math.MaxInt32, count: 3}, {seq: 2, count: 1}, {seq: math.MaxInt32, count: 3, dup: 1}}},
		{"1 does not follow MaxInt32", []batch{{seq: math.MaxInt32, count: 1}, {seq: 1, count: 1, err: record.ErrOutOfOrderSeq}}},
		{"new epoch begins at 0", []batch{{seq: 5, count: 1}, {epoch: 1, seq: 6, count: 1, err: record.ErrOutOfOrderSeq}, {epoch: 1, count: 1}, {epoch: 1, seq: 1, count: 1}}},
		{"old epoch", []batch{{epoch: 2, count: 1}, {epoch: 1, seq: 1, count: 1, err: record.ErrProducerFenced}}},
		{"expired", []batch{{count: 1}, {seq: 9, count: 1, after: producerExpiry.Milliseconds() + 1}, {seq: 10, count: 1}}},
		{"not yet expired", []batch{{count: 1}, {seq: 9, count: 1, after: producerExpiry.Milliseconds(), err: record.ErrOutOfOrderSeq}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ps, now, next := producers{}, int64(1000), int64(0)
			bases := make([]int64, len(c.batches))
			for i, b := range c.batches {
				now += b.after
				h := batchHeader(b.epoch, b.seq, b.count)
				base, dup, err := ps.check(h, now)
				if !errors.Is(err, b.err) || dup != (b.dup > 0) {
					t.Fatalf("batch %d: dup %v, err %v", i, dup, err)
				}
				if dup && base != bases[b.dup-1] {
					t.Fatalf("batch %d repeats offset %d, want %d", i, base, bases[b.dup-1])
				}
				if err == nil && !dup {
					bases[i] = next
					ps.add(h, next, now)
					next += int64(b.count)
				}
			}
		})
	}
}

func TestProducersAreBounded(t *testing.T) {
	ps := producers{}
	for i := range int64(3 * maxProducers) {
		h := batchHeader(0, 0, 1)
		h.ProducerID = i
		ps.add(h, i, i)
	}
	if len(ps) != maxProducers || ps[3*maxProducers-1] == nil || ps[0] != nil {
		t.Fatalf("%d producers", len(ps))
	}
}

// TestIdempotenceAcrossKill produces, kills, and sends the last batches again:
// whether their records were in the journal, in an open or a sealed segment.
func TestIdempotenceAcrossKill(t *testing.T) {
	for _, where := range []string{"journal", "open", "sealed", "sealed, then journal"} {
		t.Run(where, func(t *testing.T) {
			mem := vfs.NewMem()
			o := testOptions(mem)
			l := mustOpen(t, o)
			mustCreate(t, l, "a", 1)
			p := mustPartition(t, l, "a", 0)
			tp := record.TopicPartition{Topic: "a"}
			send := func(l *Log, seq int32) record.Appended {
				out, lsn := l.AppendBatches([]record.Append{{TopicPartition: tp, Batch: produced(5, 3, seq, "x", "y")}})
				if out[0].Err == nil {
					mustWait(t, l, lsn)
				}
				return out[0]
			}
			flush := func() {
				if err := l.flush.through(l.flush.committed.Load()); err != nil {
					t.Fatal(err)
				}
			}
			for i := range int32(7) {
				if a := send(l, 2*i); a.Err != nil || a.BaseOffset != int64(2*i) {
					t.Fatalf("%+v", a)
				}
				if i == 5 && where == "sealed, then journal" {
					flush()
					if err := l.flush.w.sealSegment(p.open); err != nil { // the flusher is idle
						t.Fatal(err)
					}
				}
			}
			switch where {
			case "open":
				flush()
			case "sealed":
				flush()
				if err := l.flush.w.sealSegment(p.open); err != nil {
					t.Fatal(err)
				}
			}
			clone := mem.CrashClone(vfs.CrashConfig{})
			mustClose(t, l)
			l = mustOpen(t, testOptions(clone))
			defer mustClose(t, l)
			for i := int32(2); i < 7; i++ {
				if a := send(l, 2*i); a.Err != nil || !a.Duplicate || a.BaseOffset != int64(2*i) {
					t.Fatalf("batch %d: %+v", i, a)
				}
			}
			if a := send(l, 2); !errors.Is(a.Err, record.ErrOutOfOrderSeq) {
				t.Fatalf("%+v", a)
			}
			if a := send(l, 14); a.Err != nil || a.Duplicate || a.BaseOffset != 14 {
				t.Fatalf("%+v", a)
			}
			out, _ := l.AppendBatches([]record.Append{{TopicPartition: tp, Batch: produced(5, 2, 16, "x")}})
			if !errors.Is(out[0].Err, record.ErrProducerFenced) {
				t.Fatalf("%+v", out[0])
			}
			var values []string
			for _, g := range mustReadAll(t, mustPartition(t, l, "a", 0)) {
				values = append(values, g.value)
			}
			if len(values) != 16 || slices.Contains(values, "") {
				t.Fatalf("%d records", len(values))
			}
		})
	}
}
