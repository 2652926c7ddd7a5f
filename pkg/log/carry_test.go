package log

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// TestSlowPartitions: a thousand slow partitions cost the ring a few entries,
// not a thousand syncs a turn, and nothing of them is lost.
func TestSlowPartitions(t *testing.T) {
	const slow = 999
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.slotBytes, o.slots = 1<<20, 8
	l := mustOpen(t, o)
	mustCreate(t, l, "slow", slow)
	mustCreate(t, l, "busy", 1)
	for i := range slow {
		if _, _, err := mustPartition(t, l, "slow", int32(i)).Append(&record.Record{Value: []byte(fmt.Sprint("only ", i))}); err != nil {
			t.Fatal(err)
		}
	}
	busy := mustPartition(t, l, "busy", 0)
	rng := rand.New(rand.NewPCG(1, 2))
	const n = 600 // of 64 KB: five turns of the ring
	for range n {
		_, lsn, err := busy.Append(&record.Record{Value: noise(rng, 64<<10)})
		if err != nil {
			t.Fatal(err)
		}
		mustWait(t, l, lsn)
		// A device is slower than this memory: let the flusher keep up.
		for k := 0; k < 20 && l.Stats().JournalSlotsFree < 3; k++ {
			time.Sleep(100 * time.Microsecond)
		}
	}
	s := l.Stats()
	t.Logf("%d carries of %d bytes, %d segment syncs, %d segments sealed, journal %d bytes", s.Carries, s.CarriedBytes, s.SegmentSyncs, s.Seals, s.JournalWritten)
	if s.Carries < slow || s.SegmentSyncs > 100 || s.CarriedBytes > s.JournalWritten/8 {
		t.Fatalf("%d carries, %d segment syncs", s.Carries, s.SegmentSyncs)
	}
	clone := mem.CrashClone(vfs.CrashConfig{})
	mustClose(t, l)
	o.FS = clone
	l = mustOpen(t, o)
	defer mustClose(t, l)
	for i := range slow {
		if g := mustReadAll(t, mustPartition(t, l, "slow", int32(i))); len(g) != 1 || g[0].value != fmt.Sprint("only ", i) {
			t.Fatalf("slow/%d: %v", i, g)
		}
	}
	if g := mustReadAll(t, mustPartition(t, l, "busy", 0)); len(g) != n {
		t.Fatalf("busy: %d records", len(g))
	}
}

// TestCarryAcrossCrash cuts the power before calls while slow partitions, which
// get a record of an idempotent producer now and then, are carried from entry
// to entry: what was acknowledged is there, once, in order, also where the
// journal holds a record twice and the later one of two first.
func TestCarryAcrossCrash(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem, nil)
	o := testOptions(fault)
	type cut struct {
		fs    *vfs.Mem
		acked []int
		at    string
	}
	const slow = 5
	var mu sync.Mutex
	var cuts []cut
	acked := make([]int, slow)
	rng := rand.New(rand.NewPCG(4, 5))
	every := 2
	if testing.Short() {
		every = 8
	}
	l := mustOpen(t, o)
	mustCreate(t, l, "slow", slow)
	mustCreate(t, l, "busy", 1)
	busy := mustPartition(t, l, "busy", 0)
	fault.SetRule(func(op vfs.Op) error {
		if !slices.Contains(vfs.Changes, op.Kind) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(every) == 0 {
			cuts = append(cuts, cut{mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng}), slices.Clone(acked), op.String()})
		}
		return nil
	})
	values := rand.New(rand.NewPCG(6, 7))
	seqs := make([]int32, slow)
	for i := range 600 {
		if i%7 == 0 {
			k := values.IntN(slow)
			out, lsn := l.AppendBatches([]record.Append{{
				TopicPartition: record.TopicPartition{Topic: "slow", Partition: int32(k)},
				Batch:          produced(int64(100+k), 0, seqs[k], fmt.Sprint(seqs[k])),
			}})
			if out[0].Err != nil {
				t.Fatal(out[0].Err)
			}
			seqs[k]++
			mustWait(t, l, lsn)
			mu.Lock()
			acked[k] = int(seqs[k])
			mu.Unlock()
			continue
		}
		if _, lsn, err := busy.Append(&record.Record{Value: noise(values, 5000)}); err != nil {
			t.Fatal(err)
		} else {
			mustWait(t, l, lsn)
		}
	}
	s := l.Stats()
	mustClose(t, l)
	t.Logf("%d power cuts, %d heads carried forward", len(cuts), s.Carries)
	if s.Carries < 20 {
		t.Fatalf("%d heads carried", s.Carries)
	}
	o.ticks = make(chan time.Time)
	for i, c := range cuts {
		if i%3 == 0 { // what a reader of the stopped log finds
			kv, err := readVFSMeta(c.fs, "data")
			if err != nil {
				t.Fatal(err)
			}
			if r, err := verify(c.fs, "data", kv, nil); err != nil || !r.OK() {
				t.Fatalf("cut %d before %s: verify %v %v", i, c.at, err, r.Damages)
			}
		}
		o.FS = c.fs
		l, err := Open(o)
		if err != nil {
			t.Fatalf("cut %d before %s: %v", i, c.at, err)
		}
		if q := l.Recovery().Quarantined; len(q) > 0 {
			t.Fatalf("cut %d before %s: %v", i, c.at, q)
		}
		for k := range slow {
			p := mustPartition(t, l, "slow", int32(k))
			g := mustReadAll(t, p)
			if len(g) < c.acked[k] {
				t.Fatalf("cut %d before %s: slow/%d: %d records, %d acknowledged", i, c.at, k, len(g), c.acked[k])
			}
			for n, r := range g {
				if r.offset != int64(n) || r.value != fmt.Sprint(n) {
					t.Fatalf("cut %d before %s: slow/%d: record %d is %+v", i, c.at, k, n, r)
				}
			}
			// Its producer goes on where it was, and repeats what it sent.
			out, _ := l.AppendBatches([]record.Append{{
				TopicPartition: record.TopicPartition{Topic: "slow", Partition: int32(k)},
				Batch:          produced(int64(100+k), 0, int32(len(g)), fmt.Sprint(len(g))),
			}})
			if out[0].Err != nil || out[0].Duplicate || out[0].BaseOffset != int64(len(g)) {
				t.Fatalf("cut %d before %s: slow/%d: next batch %+v", i, c.at, k, out[0])
			}
			if len(g) == 0 {
				continue
			}
			out, _ = l.AppendBatches([]record.Append{{
				TopicPartition: record.TopicPartition{Topic: "slow", Partition: int32(k)},
				Batch:          produced(int64(100+k), 0, int32(len(g)-1), fmt.Sprint(len(g)-1)),
			}})
			if out[0].Err != nil || !out[0].Duplicate || out[0].BaseOffset != int64(len(g)-1) {
				t.Fatalf("cut %d before %s: slow/%d: repeated batch %+v", i, c.at, k, out[0])
			}
		}
		mustClose(t, l)
	}
}
