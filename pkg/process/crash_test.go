package process

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// feed is the input of a run: the records of each partition of topic "in", in
// their order, which is all that a run may depend on.
type feed [][]record.Record

// makeFeed makes n records of a few devices: mostly in order, some late, some
// far behind or ahead, some unusable, some with several readings.
func makeFeed(rng *rand.Rand, partitions, n int) feed {
	f := make(feed, partitions)
	clock := 1000 * time.Second
	for range n {
		clock += time.Duration(rng.IntN(1500)) * time.Millisecond
		at := clock
		switch rng.IntN(20) {
		case 0, 1:
			at -= time.Duration(rng.IntN(30)) * time.Second
		case 2:
			at -= time.Duration(rng.IntN(600)) * time.Second
		case 3:
			at += time.Duration(rng.IntN(20)) * time.Second
		}
		value := fmt.Sprintf(`{"t":%d.%d,"d":"x%d"}`, rng.IntN(100)-50, rng.IntN(1000), rng.IntN(3))
		switch rng.IntN(20) {
		case 0:
			value = `{"t":`
		case 1:
			value = `{"t":null,"d":7}`
		case 2:
			value = fmt.Sprintf(`[{"t":1.1,"d":"x1","ts":%d},{"t":1e16,"d":"x2"},{"t":-1e16,"d":"x2"}]`, at.Milliseconds()-15_000)
		}
		r := rec(at, fmt.Sprintf("dev%d", rng.IntN(5)), value, "line", string(rune('a'+rng.IntN(2))))
		p := record.PartitionOf(r.Key, int32(partitions))
		f[p] = append(f[p], r)
	}
	return f
}

// crashDefs are processes with every feature that a crash could break.
func crashDefs() []Definition {
	return []Definition{
		{
			Name: "keys", From: "in", To: "out", Window: Window{Size: 10 * time.Second}, Grace: 3 * time.Second,
			Amend: 2 * time.Minute, History: 5 * time.Minute, Where: "(t ?? 0) > -40",
			Compute: []Compute{{"n", "count()"}, {"sum", "sum(t)"}, {"mean", "mean(t * 1.8 + 32)"}, {"min", "min(t)"}, {"max", "max(t)"}},
		},
		{
			Name: "lines", From: "in", To: "lines", By: []string{"line", "d"}, Window: Window{Size: 20 * time.Second},
			Amend: 5 * time.Minute, History: 10 * time.Minute, MaxOpen: 6, MaxClosed: 20, MaxKeys: 6,
			Compute: []Compute{{"sum", "sum(t)"}},
		},
		{
			Name: "chain", From: "out", To: "minutes", Window: Window{Size: time.Minute}, Grace: 10 * time.Second,
			Compute: []Compute{{"n", "sum(n)"}, {"revs", "max(rev)"}},
		},
	}
}

// drive feeds a hub in random pieces until all is in, with restarts in
// between: crashes power cuts, at random places, and some closes. It returns
// the last hub, at rest.
func drive(t *testing.T, rng *rand.Rand, in feed, crashes int, setup func(*hub), defs []Definition) *hub {
	t.Helper()
	h := openHub(t, vfs.NewMem(), "")
	h.topic("in", int32(len(in)))
	for {
		setup(h)
		var cut <-chan *vfs.Mem
		if crashes > 0 {
			cut = h.crashAfter(5+rng.IntN(120), rng)
		}
		h.start(defs...)
		var clone *vfs.Mem
		for clone == nil && h.feed(rng, in) {
			switch rng.IntN(8) {
			case 0:
				synctest.Wait()
			case 1:
				time.Sleep(time.Duration(rng.IntN(100_000)) * time.Millisecond)
			case 2:
				if rng.IntN(4) == 0 {
					if err := h.engine.Close(); err != nil {
						t.Fatal(err)
					}
					h.start(defs...)
				}
			}
			select {
			case clone = <-cut:
			default:
			}
		}
		synctest.Wait()
		select {
		case clone = <-cut:
		default:
		}
		if clone == nil {
			return h
		}
		crashes--
		next := openHub(t, clone, h.dir)
		h.close()
		h = next
	}
}

// feed appends the next few records of some partitions; false if there is
// nothing left.
func (h *hub) feed(rng *rand.Rand, in feed) bool {
	h.t.Helper()
	left := false
	var lsn log.LSN
	for i := range in {
		p, err := h.log.Partition("in", int32(i))
		if err != nil {
			h.t.Fatal(err)
		}
		from := p.Offsets().HighWatermark
		to := min(from+int64(rng.IntN(40)), int64(len(in[i])))
		for _, r := range in[i][from:to] {
			if _, lsn, err = p.Append(&r); err != nil {
				h.t.Fatal(err)
			}
		}
		left = left || from < int64(len(in[i]))
	}
	if err := h.log.Wait(h.t.Context(), lsn); err != nil {
		h.t.Fatal(err)
	}
	return left
}

// byKey brings the lines of a topic into the order of partition and key,
// leaving those of one key in theirs: tasks interleave. A group that has
// devices in several input partitions has a window in each, so what several
// tasks issue for it is sorted.
func byKey(topic string, partitions int, lines []string) []string {
	if topic == "lines" && partitions > 1 {
		return slices.Sorted(slices.Values(lines))
	}
	key := func(s string) string {
		f := strings.SplitN(s, " ", 4)
		return f[0] + " " + f[2]
	}
	out := slices.Clone(lines)
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	return out
}

// P5, E1: the same input gives the same results, byte for byte and each once,
// whatever the pieces in which it comes and wherever power is cut.
func TestCrashes(t *testing.T) {
	all := map[string]int{}
	crashes := 0
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				partitions := 1 + int(seed%3)
				in := makeFeed(rng, partitions, 1000)
				h := drive(t, rng, in, 0, func(*hub) {}, crashDefs())
				topics := []string{"out", "lines", "minutes", "out.late", "lines.late"}
				want := map[string][]string{}
				for _, topic := range topics {
					want[topic] = byKey(topic, partitions, h.read(topic))
					all[topic] += len(want[topic])
				}
				h.close()
				h = drive(t, rng, in, 8, func(h *hub) {
					crashes++
					h.o.SnapshotBytes = int64(1 + rng.IntN(100_000))
					h.o.SnapshotEvery = time.Duration(1+rng.IntN(60)) * time.Second
				}, crashDefs())
				for _, topic := range topics {
					equalLines(t, topic, byKey(topic, partitions, h.read(topic)), want[topic])
				}
				h.close()
				crashes--
			})
		})
	}
	// What would make the test too weak.
	for _, topic := range []string{"out", "lines", "minutes", "out.late", "lines.late"} {
		if all[topic] == 0 {
			t.Errorf("nothing in topic %s", topic)
		}
	}
	if crashes < 12 {
		t.Errorf("only %d crashes", crashes)
	}
	t.Log(crashes, all)
}
