package process

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// An event whose results are larger than a step is cut in several; a power cut
// at any change of the disk between them repeats and loses none.
func TestEventCutInTwo(t *testing.T) {
	defs := []Definition{perKey(10 * time.Millisecond)}
	defs[0].Grace = 20 * time.Second
	for i := range 40 {
		defs[0].Compute = append(defs[0].Compute, Compute{fmt.Sprintf("a_rather_long_name_%d", i), "mean(t)"})
	}
	in := feed{nil}
	for i := range 500 {
		in[0] = append(in[0], rec(time.Duration(i)*10*time.Millisecond, "a", `{"t":1}`))
	}
	// One record closes 500 windows.
	in[0] = append(in[0], rec(200*time.Second, "a", `{"t":1}`), rec(300*time.Second, "a", `{"t":1}`))
	for _, tick := range []bool{false, true} {
		t.Run(fmt.Sprintf("tick %v", tick), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tick { // or the wall clock does
					in = feed{in[0][:500]}
				}
				rng := rand.New(rand.NewPCG(1, 2))
				var want []string
				cuts := 0
				for n := 0; ; n++ {
					h := openHub(t, vfs.NewMem(), "")
					h.topic("in", 1)
					h.o.ClockTrusted = func() bool { return tick }
					synctest.Wait()
					h.start(defs...)
					h.put("in", in[0][:500]...)
					synctest.Wait()
					if len(h.read("out")) != 0 {
						t.Fatal("results too soon")
					}
					cut := h.crashAfter(max(n, 1), rng)
					if n == 0 {
						h.fault.SetRule(nil)
					}
					if h.put("in", in[0][500:]...); tick {
						time.Sleep(time.Minute)
					}
					synctest.Wait()
					if n == 0 {
						if want = h.read("out"); len(want) < 500 || h.task("p", 0).Steps < 10 {
							t.Fatalf("%d results in %d steps", len(want), h.task("p", 0).Steps)
						}
						h.close()
						continue
					}
					var clone *vfs.Mem
					select {
					case clone = <-cut:
					default:
					}
					if clone == nil {
						h.close()
						break
					}
					cuts++
					h2 := openHub(t, clone, h.dir)
					h.close()
					h2.o.ClockTrusted = func() bool { return tick }
					synctest.Wait()
					h2.start(defs...)
					synctest.Wait()
					for h2.feed(rng, in) {
						synctest.Wait()
					}
					if tick {
						time.Sleep(time.Minute)
						synctest.Wait()
					}
					equalLines(t, fmt.Sprintf("cut at change %d", n), h2.read("out"), want)
					h2.close()
				}
				if cuts < 4 {
					t.Errorf("only %d cuts", cuts)
				}
			})
		})
	}
}

// With a wall clock that closes windows, which results come first depends on
// when; but each revision comes once, in order, and the last one of a window
// holds all of its records.
func TestCrashesWithTicks(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				base := time.Duration(time.Now().UnixMilli()) * time.Millisecond
				in := make(feed, 2)
				counts := map[string]int{}
				for i := range 600 {
					at := base + time.Duration(i)*2*time.Second + time.Duration(rng.IntN(40_000))*time.Millisecond
					key := fmt.Sprintf("dev%d", rng.IntN(3))
					p := record.PartitionOf([]byte(key), 2)
					in[p] = append(in[p], rec(at, key, `{"t":1}`))
					counts[fmt.Sprintf("%s %s", key, time.UnixMilli(at.Milliseconds()).UTC().Truncate(10*time.Second).Format(time.RFC3339))]++
				}
				d := perKey(10 * time.Second)
				d.Idle = 15 * time.Second
				h := drive(t, rng, in, 6, func(h *hub) {
					h.o.ClockTrusted = func() bool { return true }
					h.o.SnapshotEvery = 20 * time.Second
				}, []Definition{d})
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				revs := map[string]int{}
				last := map[string]int{}
				for _, line := range h.read("out") {
					f := strings.SplitN(line, " ", 4)
					var r struct {
						WindowStart string `json:"window_start"`
						Rev, N      int
						Kind        string
					}
					if err := json.Unmarshal([]byte(f[3]), &r); err != nil {
						t.Fatal(err)
					}
					w := f[2] + " " + r.WindowStart
					if r.Rev != revs[w] || (r.Kind == "final") != (r.Rev == 0) {
						t.Fatalf("window %s: rev %d (%s), want %d", w, r.Rev, r.Kind, revs[w])
					}
					revs[w]++
					last[w] = r.N
				}
				if len(last) != len(counts) {
					t.Errorf("%d windows, want %d", len(last), len(counts))
				}
				for w, n := range counts {
					if last[w] != n {
						t.Errorf("window %s holds %d records, want %d", w, last[w], n)
					}
				}
				h.close()
			})
		})
	}
}

// damage overwrites the middle of a snapshot, newest first.
func damage(t *testing.T, mem *vfs.Mem, n int) {
	t.Helper()
	dir := "/hub/data/process/p/0/"
	names, err := mem.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	slices.Reverse(names)
	for _, e := range names[:n] {
		f, err := mem.OpenRW(dir + e.Name)
		if err == nil {
			_, err = f.WriteAt([]byte{0xff}, e.Size/2)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Damaged snapshots are passed over: the older one does, then the input does,
// and where the steps for that are gone too, the process begins anew behind
// what it has issued.
func TestDamagedSnapshots(t *testing.T) {
	for _, c := range []struct {
		damaged         int
		trim            bool
		replayed        int64
		amend, snapErrs int64
	}{
		{damaged: 0, replayed: 0, amend: 1},
		{damaged: 1, replayed: 2, amend: 1, snapErrs: 1},
		{damaged: 2, replayed: 6, amend: 1, snapErrs: 2},
		{damaged: 2, trim: true, replayed: 0, amend: 0, snapErrs: 2},
	} {
		t.Run(fmt.Sprintf("%d damaged, trimmed %v", c.damaged, c.trim), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				h := openHub(t, mem, "")
				h.o.SnapshotEvery = time.Second
				h.start(perKey(10 * time.Second))
				for i := range 3 { // a snapshot each
					at := time.Duration(i) * 20 * time.Second
					h.put("in", rec(at+1*time.Second, "a", `{"t":1}`), rec(at+10*time.Second, "a", `{"t":1}`))
					if i < 2 {
						time.Sleep(time.Hour)
					}
					synctest.Wait()
				}
				want := h.read("out")
				if len(want) != 5 {
					t.Fatal(want)
				}
				if c.trim {
					p, err := h.log.Partition(Topic, 0)
					if err == nil {
						err = p.DeleteBefore(2)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				clone := mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: 100}) // kill -9
				damage(t, clone, c.damaged)
				h2 := openHub(t, clone, h.dir)
				h.close()
				h2.start(perKey(10 * time.Second))
				synctest.Wait()
				equalLines(t, "after the start", h2.read("out"), want)
				h2.put("in", rec(2*time.Second, "a", `{"t":1}`)) // amends the first window, if it is known
				synctest.Wait()
				st := h2.task("p", 0)
				if st.Replayed != c.replayed || st.Amends != c.amend || st.SnapshotErrors != c.snapErrs {
					t.Errorf("stats %+v", st)
				}
				h2.close()
			})
		})
	}
}

// Steps that no task needs are trimmed; a quiet task's last step moves to the
// end of the topic so that it does not hold the others'.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		quiet, busy := perKey(10*time.Second), perKey(10*time.Second)
		quiet.Name, quiet.From, quiet.To = "quiet", "quiet", "quiet.out"
		h.o.SnapshotEvery, h.o.SnapshotBytes = time.Hour, 5000
		h.tune = func(e *Engine) { e.trimSlack, e.refreshSlack = 20, 100 }
		h.start(quiet, busy)
		h.put("quiet", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		for i := range 1000 {
			h.put("in", rec(time.Duration(i)*10*time.Second, "a", `{"t":1}`))
			synctest.Wait()
		}
		off := h.engine.steps.Offsets()
		if off.HighWatermark < 900 || off.LogStart < 700 {
			t.Errorf("steps from %d to %d are kept", off.LogStart, off.HighWatermark)
		}
		if st := h.task("quiet", 0); st.Snapshots < 2 {
			t.Errorf("quiet task: %+v", st)
		}
		want := h.read("out")
		if err := h.engine.Close(); err != nil {
			t.Fatal(err)
		}
		h.start(quiet, busy)
		h.put("quiet", rec(21*time.Second, "a", `{"t":1}`), rec(30*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		equalLines(t, "out", h.read("out"), want)
		if got := h.read("quiet.out"); len(got) != 2 || !strings.Contains(got[1], `"n":2`) {
			t.Errorf("quiet.out: %v", got)
		}
		h.close()
	})
}

// Retention that overtakes a task is counted, and the task goes on.
func TestLostInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		h.start(perKey(10 * time.Second))
		h.put("in", rec(time.Second, "a", `{"t":1}`))
		synctest.Wait()
		if err := h.engine.Close(); err != nil {
			t.Fatal(err)
		}
		h.put("in", rec(2*time.Second, "a", `{"t":1}`), rec(3*time.Second, "a", `{"t":1}`), rec(10*time.Second, "a", `{"t":1}`))
		p, err := h.log.Partition("in", 0)
		if err == nil {
			err = p.DeleteBefore(3)
		}
		if err != nil {
			t.Fatal(err)
		}
		h.start(perKey(10 * time.Second))
		synctest.Wait()
		equalLines(t, "out", h.read("out"), []string{"0 9999 a " + result0})
		if st := h.task("p", 0); st.Lost != 2 || st.State != "running" {
			t.Errorf("stats %+v", st)
		}
		h.close()
	})
}

func FuzzParse(f *testing.F) {
	s := step{lineage: lineage{start: 5, first: 1}, seq: 3, next: 77, done: 2, tick: &tick{wall: 5, idle: 7}}
	f.Add(s.append(nil))
	snap := snapshot{lineage: s.lineage, seq: 3, next: 7, open: 2, state: []byte("state")}
	b, err := snap.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStep(b); err == nil {
			again, err := parseStep(s.append(nil))
			if err != nil || again.seq != s.seq || again.next != s.next || again.done != s.done || (again.tick == nil) != (s.tick == nil) {
				t.Errorf("%+v reads back as %+v, %v", s, again, err)
			}
		}
		if s, err := parseSnapshot(b); err == nil {
			if _, err := s.encode(); err != nil {
				t.Error(err)
			}
		}
	})
}
