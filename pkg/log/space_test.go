package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// smallDisk is a file system of 3 MB and the options of a log on it. Ticks
// come from the test.
func smallDisk() (*vfs.Mem, Options, chan time.Time) {
	mem := vfs.NewMem()
	mem.SetTotal(3 << 20)
	tick := make(chan time.Time)
	o := testOptions(mem)
	o.ticks, o.segBytes, o.ballastBytes = tick, 16<<10, 128<<10
	return mem, o, tick
}

func mustCreatePriority(t testing.TB, l *Log, name string, prio record.Priority) *Partition {
	t.Helper()
	cfg := record.TopicConfig{RetentionTime: -1, RetentionBytes: -1, MaxMessageBytes: 16 << 10, Priority: prio}
	if _, err := l.CreateTopic(name, cfg); err != nil {
		t.Fatal(err)
	}
	return mustPartition(t, l, name, 0)
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rng.IntN(26))
	}
	return b
}

// settleDisk lets evictions come to their end: found, durable, unlinked, seen.
func settleDisk(l *Log, tick chan time.Time) {
	for range 4 {
		tick <- time.Time{}
		tick <- time.Time{} // the one before is done
	}
}

func ledgerOf(t testing.TB, l *Log) (out []LedgerEntry) {
	t.Helper()
	p := mustPartition(t, l, LedgerTopic, 0)
	for _, g := range mustReadAll(t, p) {
		e, err := ParseLedgerEntry([]byte(g.value))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// checkLedger says that entries of a partition for a full disk cover exactly
// what lies below its log start.
func checkLedger(entries []LedgerEntry, p *Partition) error {
	next := int64(0)
	for _, e := range entries {
		if e.Topic != p.Topic() || e.Partition != p.Index() || e.Reason != LedgerDiskFull {
			continue
		}
		if e.From != next || e.Count != e.To-e.From || e.Bytes <= 0 || e.TopicID != p.TopicID().String() {
			return fmt.Errorf("%s: entry %+v behind %d", p, e, next)
		}
		next = e.To
	}
	if start := p.Offsets().LogStart; start != next {
		return fmt.Errorf("%s: log start %d, the ledger goes to %d", p, start, next)
	}
	return nil
}

// TestEviction fills a disk: the oldest segments of the lowest priority go,
// each range is in the ledger, and the log goes on taking records.
func TestEviction(t *testing.T) {
	_, o, tick := smallDisk()
	l := mustOpen(t, o)
	low, normal, high := mustCreatePriority(t, l, "raw", record.PriorityLow),
		mustCreatePriority(t, l, "means", record.PriorityNormal), mustCreatePriority(t, l, "alarms", record.PriorityHigh)
	rng := rand.New(rand.NewPCG(1, 2))
	// The first that make room are raw; means only once raw is down to what is
	// not sealed; alarms then.
	fill := func(ps ...*Partition) {
		for range 60 {
			for _, p := range ps {
				_, lsn, err := p.Append(&record.Record{Value: noise(rng, 900)})
				if err != nil {
					t.Fatal(err)
				}
				mustWait(t, l, lsn)
			}
		}
		settleDisk(l, tick)
	}
	for range 8 {
		fill(low, normal, high)
	}
	for low.Offsets().LogStart == 0 {
		fill(low)
	}
	if normal.Offsets().LogStart != 0 || high.Offsets().LogStart != 0 {
		t.Fatalf("raw %+v, means %+v, alarms %+v", low.Offsets(), normal.Offsets(), high.Offsets())
	}
	for normal.Offsets().LogStart == 0 {
		fill(high)
	}
	if s := l.Stats().Partitions[4]; high.Offsets().LogStart != 0 || s.Topic != "means" && s.Topic != "raw" {
		t.Fatalf("alarms %+v, %+v", high.Offsets(), s)
	}
	for high.Offsets().LogStart == 0 {
		fill(high)
	}
	check := func() {
		t.Helper()
		for _, p := range []*Partition{low, normal, high} {
			if err := checkLedger(ledgerOf(t, l), p); err != nil {
				t.Fatal(err)
			}
			if g := mustReadAll(t, p); int64(len(g)) != p.Offsets().HighWatermark-p.Offsets().LogStart {
				t.Fatalf("%s: %d records in %+v", p, len(g), p.Offsets())
			}
		}
	}
	check()
	s := l.Stats()
	if s.Refusing || s.Refused != 0 || s.Evictions == 0 || s.DiskFree < s.DiskFloor || s.Ballast == 0 {
		t.Fatalf("%+v", s)
	}
	mustClose(t, l)
	l = mustOpen(t, o)
	defer mustClose(t, l)
	low, normal, high = mustPartition(t, l, "raw", 0), mustPartition(t, l, "means", 0), mustPartition(t, l, "alarms", 0)
	check()
}

// TestRefusal: where nothing can go, records are refused at once and the log is
// not poisoned; what was taken becomes durable with the ballast's room; reads
// go on, also after a start on the full disk; with room it takes records again.
func TestRefusal(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill %v", kill), func(t *testing.T) {
			mem, o, tick := smallDisk()
			o.segBytes = 1 << 20 // nothing is sealed
			o.ballastBytes = 256 << 10
			l := mustOpen(t, o)
			p := mustCreatePriority(t, l, "a", record.PriorityLow)
			tick <- time.Time{} // the ballast
			tick <- time.Time{}
			if l.Stats().Ballast == 0 {
				t.Fatal("no ballast")
			}
			rng := rand.New(rand.NewPCG(1, 2))
			mustAppend(t, p, "first")
			free, total, err := mem.Space("data")
			if err != nil {
				t.Fatal(err)
			}
			mem.SetTotal(total - free) // someone else takes the rest
			var last LSN
			n := 1
			for {
				_, lsn, err := p.Append(&record.Record{Value: noise(rng, 900)})
				if err != nil {
					if !errors.Is(err, record.ErrStorage) || l.Err() != nil {
						t.Fatalf("%v, log %v", err, l.Err())
					}
					break
				}
				n, last = n+1, lsn
				if n > 5000 {
					t.Fatal("never refused")
				}
			}
			mustWait(t, l, last) // the ballast makes room for what was taken
			if _, lsn := l.AppendBatches([]record.Append{{TopicPartition: record.TopicPartition{Topic: "a"}, Batch: produced(-1, -1, -1, "x")}}); lsn > l.Durable()+1 {
				t.Fatal("a refused batch waits")
			}
			if _, _, err := l.AppendGroup([]GroupRecord{{p, record.Record{}}}); !errors.Is(err, record.ErrStorage) {
				t.Fatalf("group: %v", err)
			}
			if lsn, err := l.CommitOffsets("g", []record.GroupOffset{{TopicPartition: record.TopicPartition{Topic: "a"}, Offset: 1}}); err != nil {
				t.Fatalf("a group's offset: %v", err)
			} else {
				mustWait(t, l, lsn)
			}
			if s := l.Stats(); !s.Refusing || s.Refused == 0 || s.Failed {
				t.Fatalf("%+v", s)
			}
			if kill {
				mem = mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng})
				mem.SetTotal(total - free)
			}
			mustClose(t, l)
			if kill {
				o.FS = mem
			}
			l = mustOpen(t, o)
			defer func() { mustClose(t, l) }()
			p = mustPartition(t, l, "a", 0)
			if g := mustReadAll(t, p); len(g) != n {
				t.Fatalf("%d records, want %d", len(g), n)
			}
			mem.SetTotal(total)
			tick <- time.Time{}
			tick <- time.Time{}
			tick <- time.Time{}
			mustAppend(t, p, "again")
			if s := l.Stats(); s.Refusing || s.DiskFree == 0 {
				t.Fatalf("%+v", s)
			}
		})
	}
}

// TestCloseWhileFull: neither a commit that waits for room nor Close blocks for
// ever, and what was acknowledged is there.
func TestCloseWhileFull(t *testing.T) {
	mem, o, tick := smallDisk()
	o.ballastBytes, o.segBytes = -1, 1<<20
	l := mustOpen(t, o)
	p := mustCreatePriority(t, l, "a", record.PriorityLow)
	rng := rand.New(rand.NewPCG(1, 2))
	free, total, err := mem.Space("data")
	if err != nil {
		t.Fatal(err)
	}
	mem.SetTotal(total - free)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case tick <- time.Time{}:
				time.Sleep(time.Millisecond)
			case <-stop:
				return
			}
		}
	})
	for {
		if _, _, err := p.Append(&record.Record{Value: noise(rng, 900)}); err != nil {
			break
		}
	}
	// Internal topics are still taken, until the journal is full.
	for i := range 400 {
		if _, err := l.CommitOffsets("g", []record.GroupOffset{{Offset: int64(i), TopicPartition: record.TopicPartition{Topic: "a"}, Metadata: string(noise(rng, 50))}}); err != nil {
			if !errors.Is(err, record.ErrStorage) || l.Err() != nil {
				t.Fatal(err)
			}
			break
		}
	}
	durable := p.Offsets().HighWatermark
	mustClose(t, l)
	close(stop)
	wg.Wait()
	clone := mem.CrashClone(vfs.CrashConfig{})
	o.FS = clone
	l = mustOpen(t, o)
	defer mustClose(t, l)
	if g := mustReadAll(t, mustPartition(t, l, "a", 0)); int64(len(g)) < durable {
		t.Fatalf("%d records, %d were acknowledged", len(g), durable)
	}
}

// TestSyncWithoutSpace: a sync that fails, for whatever reason, is never tried
// again as if it had worked.
func TestSyncWithoutSpace(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem(), nil)
	l := mustOpen(t, testOptions(fault))
	mustCreate(t, l, "a", 1)
	mustAppend(t, mustPartition(t, l, "a", 0), "x")
	fault.SetRule(vfs.OnPath("topics/a", vfs.FailNth(1, syscall.ENOSPC, vfs.OpSync)))
	if err := l.flush.through(l.flush.committed.Load()); !errors.Is(err, record.ErrStorage) {
		t.Fatalf("flush: %v", err)
	}
	if l.Err() == nil {
		t.Fatal("the log goes on")
	}
	if err := l.Close(); err == nil {
		t.Fatal("close passes")
	}
}

// TestDamageInLedger: what is found lost is in the ledger once, whoever finds
// it, however often.
func TestDamageInLedger(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("found by a reader %v", live), func(t *testing.T) {
			mem := vfs.NewMem()
			o := testOptions(mem)
			l := mustOpen(t, o)
			mustCreate(t, l, "a", 1)
			p := mustPartition(t, l, "a", 0)
			for i := range 50 {
				mustAppend(t, p, fmt.Sprint(i, strings.Repeat("x", 100)))
				if i%10 == 9 {
					if err := l.flush.through(l.flush.committed.Load()); err != nil {
						t.Fatal(err)
					}
				}
			}
			name := files(t, mem, "data/topics/a/0")[0].Name
			if live {
				flip(t, mem, name, 4096+70, 1)
				if g := mustReadAll(t, p); len(g) >= 50 {
					t.Fatalf("%d records", len(g))
				}
				mustAppend(t, p, "behind the ledger's entry")
			}
			mustClose(t, l)
			if !live {
				flip(t, mem, name, 4096+70, 1)
			}
			for range 3 {
				l = mustOpen(t, o)
				if g := mustReadAll(t, mustPartition(t, l, "a", 0)); len(g) >= 50 {
					t.Fatalf("%d records", len(g))
				}
				have := ledgerOf(t, l)
				if len(have) != 1 || have[0].Reason != LedgerDamage || have[0].Topic != "a" || have[0].From != 10 || have[0].To != 20 || have[0].Count != 10 {
					t.Fatalf("ledger %+v", have)
				}
				mustClose(t, l)
			}
		})
	}
}

// TestCrashWhileEvicting cuts the power before every call while a full disk
// makes room: what is gone is in the ledger, what is not is readable, dense,
// and holds all that was acknowledged.
func TestCrashWhileEvicting(t *testing.T) {
	mem, o, tick := smallDisk()
	mem.SetTotal(1 << 20)
	fault := vfs.NewFault(mem, nil)
	o.FS, o.ballastBytes = fault, 32<<10
	type cut struct {
		fs    *vfs.Mem
		acked [2]int64
		at    string
	}
	var mu sync.Mutex
	var cuts []cut
	var acked [2]int64
	rng := rand.New(rand.NewPCG(9, 9))
	every := 1
	if testing.Short() {
		every = 5
	}
	l := mustOpen(t, o)
	ps := []*Partition{mustCreatePriority(t, l, "raw", record.PriorityLow), mustCreatePriority(t, l, "means", record.PriorityNormal)}
	fault.SetRule(func(op vfs.Op) error {
		if !slices.Contains(vfs.Changes, op.Kind) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(every) == 0 {
			cuts = append(cuts, cut{mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng}), acked, op.String()})
		}
		return nil
	})
	values := rand.New(rand.NewPCG(3, 3))
	for i := range 900 {
		k := i % 3 / 2
		_, lsn, err := ps[k].Append(&record.Record{Value: noise(values, 900)})
		if err != nil {
			t.Fatal(err)
		}
		mustWait(t, l, lsn)
		mu.Lock()
		acked[k] = ps[k].Offsets().HighWatermark
		mu.Unlock()
		if i%10 == 9 {
			tick <- time.Time{}
		}
	}
	if s := l.Stats(); s.Evictions < 5 || s.Refused > 0 {
		t.Fatalf("%+v", s)
	}
	mustClose(t, l)
	t.Logf("%d power cuts", len(cuts))
	o.ticks = make(chan time.Time)
	for i, c := range cuts {
		o.FS = c.fs
		l, err := Open(o)
		if err != nil {
			t.Fatalf("cut %d before %s: %v", i, c.at, err)
		}
		// It may go on evicting at once.
		for k, name := range []string{"raw", "means"} {
			p := mustPartition(t, l, name, 0)
			tries := 0
			for moved := true; moved; {
				off := p.Offsets()
				err := checkLedger(ledgerOf(t, l), p)
				g, rerr := readAll(p, 4096)
				if moved = p.Offsets() != off; moved {
					continue
				}
				if err != nil && tries < 5 { // the log start shows before its entry does
					tries, moved = tries+1, true
					time.Sleep(time.Millisecond)
					continue
				}
				if err = errors.Join(err, rerr); err != nil {
					t.Fatalf("cut %d before %s: %v", i, c.at, err)
				}
				if off.HighWatermark < c.acked[k] || int64(len(g)) != off.HighWatermark-off.LogStart {
					t.Fatalf("cut %d before %s: %s: %d records in %+v, acknowledged %d", i, c.at, name, len(g), off, c.acked[k])
				}
			}
		}
		if q := l.Recovery().Quarantined; len(q) > 0 {
			t.Fatalf("cut %d before %s: %v", i, c.at, q)
		}
		mustClose(t, l)
	}
}
