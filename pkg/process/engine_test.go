package process

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

func perKey(size time.Duration) Definition {
	return Definition{
		Name: "p", From: "in", To: "out", Window: Window{Size: size},
		Compute: []Compute{{"n", "count()"}, {"sum", "sum(t)"}},
	}
}

const result0 = `{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:10Z","rev":0,"kind":"final","n":1,"sum":1}`

func TestEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		h.topic("in", 3)
		h.put("in", rec(time.Second, "a", `{"t":1}`))
		h.start(perKey(10 * time.Second))
		synctest.Wait()
		if got := h.read("out"); got != nil {
			t.Fatalf("results before the window closed: %v", got)
		}
		h.put("in", rec(2*time.Second, "b", `{"t":"x"}`), rec(20*time.Second, "a", `{"t":2}`), rec(3*time.Second, "c", `not JSON`))
		synctest.Wait()
		info, err := h.log.Topic("out")
		if err != nil || info.Config.Partitions != 3 {
			t.Fatalf("output topic %+v, %v", info, err)
		}
		want := fmt.Sprintf("%d 9999 a %s", record.PartitionOf([]byte("a"), 3), result0)
		equalLines(t, "out", h.read("out"), []string{want})
		st := h.task("p", record.PartitionOf([]byte("a"), 3))
		if st.State != "running" || st.Finals != 1 || st.Results != 1 || st.Lag != 0 || st.WindowsOpen < 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestEngineChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		first, second := perKey(10*time.Second), perKey(time.Minute)
		second.Name, second.From, second.To = "q", "out", "out.1m"
		second.Compute = []Compute{{"n", "sum(n)"}, {"windows", "count()"}}
		h.start(second, first) // in any order
		for i := range 80 {
			h.put("in", rec(time.Duration(i)*time.Second, "a", `{"t":1}`))
		}
		synctest.Wait()
		equalLines(t, "out.1m", h.read("out.1m"), []string{
			`0 59999 a {"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","rev":0,"kind":"final","n":60,"windows":6}`,
		})
	})
}

func TestLateTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		d := perKey(10 * time.Second)
		d.Amend, d.History = AmendOff, time.Minute
		h.start(d)
		h.put("in", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		if _, err := h.log.Topic("out.late"); err == nil {
			t.Error("the late topic is there before it is needed")
		}
		big := `{"t":"` + strings.Repeat("x", 200<<10) + `"}`
		h.put("in", rec(2*time.Second, "a", `{"t":1}`, "line", "7"), rec(3*time.Second, "a", big))
		synctest.Wait()
		equalLines(t, "out.late", h.read("out.late"), []string{`0 2000 a {"t":1}`, `0 3000 a `})
		if st := h.task("p", 0); st.Late != 2 || st.LateCopies != 2 || st.TooLarge != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// The wall clock closes windows of silent keys if it is trusted, and a replay
// repeats its decisions at their places.
func TestTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		h := openHub(t, mem, "")
		now := time.Now().Truncate(10 * time.Second)
		at := func(s int) time.Duration { return time.Duration(now.Unix()+int64(s)) * time.Second }
		var trusted atomic.Bool
		h.o.ClockTrusted = func() bool { return trusted.Load() }
		d := perKey(10 * time.Second)
		h.start(d)
		h.put("in", rec(at(1), "a", `{"t":1}`), rec(at(2), "b", `{"t":2}`))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		equalLines(t, "untrusted", h.read("out"), nil)
		trusted.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := h.read("out"); len(got) != 2 || !strings.Contains(got[0], ` a {`) || !strings.Contains(got[1], ` b {`) {
			t.Fatalf("trusted: %v", got)
		}
		// Silence counts from the last record of the key.
		h.put("in", rec(at(600), "a", `{"t":1}`))
		time.Sleep(29 * time.Second)
		h.put("in", rec(at(3), "a", `{"t":5}`)) // amends, and is heard
		synctest.Wait()
		if got := h.read("out"); len(got) != 3 || !strings.Contains(got[2], `"rev":1,"kind":"amend","n":2,"sum":6`) {
			t.Fatalf("amend: %v", got)
		}
		// Events in the future of the wall clock stay open.
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := h.read("out"); len(got) != 3 {
			t.Fatalf("future: %v", got)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want := h.read("out")
		if len(want) != 4 {
			t.Fatalf("in the end: %v", want)
		}
		if st := h.task("p", 0); st.Ticks != 2 {
			t.Errorf("ticks %d", st.Ticks)
		}
		// Without its snapshots, everything comes back from input and steps.
		clone := mem.CrashClone(vfs.CrashConfig{})
		for _, n := range []string{"/hub/data/process/p/0"} {
			names, err := clone.ReadDir(n)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range names {
				if err := clone.Remove(n + "/" + e.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
		h2 := openHub(t, clone, h.dir)
		h.close()
		h2.start(d)
		synctest.Wait()
		equalLines(t, "after replay", h2.read("out"), want)
		if st := h2.task("p", 0); st.Replayed != 4 || st.Finals != 3 || st.Amends != 1 || st.WindowsOpen != 0 || st.Discarded != 0 {
			t.Errorf("after replay: %+v", st)
		}
		h2.put("in", rec(at(4), "a", `{"t":7}`))
		synctest.Wait()
		if got := h2.read("out"); len(got) != 5 || !strings.Contains(got[4], `"rev":2,"kind":"amend","n":3,"sum":13`) {
			t.Errorf("amend after replay: %v", got[4:])
		}
	})
}

func TestDefinitionChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		h.start(perKey(10 * time.Second))
		h.put("in", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`), rec(21*time.Second, "b", `{"t":1}`))
		synctest.Wait()
		want := []string{"0 9999 a " + result0}
		equalLines(t, "before", h.read("out"), want)
		if err := h.engine.Close(); err != nil {
			t.Fatal(err)
		}
		d := perKey(20 * time.Second)
		h.start(d)
		synctest.Wait()
		if st := h.task("p", 0); st.Discarded != 2 || st.Offset != 3 {
			t.Errorf("stats %+v", st)
		}
		h.put("in", rec(22*time.Second, "a", `{"t":5}`), rec(40*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		want = append(want, `0 39999 a {"window_start":"1970-01-01T00:00:20Z","window_end":"1970-01-01T00:00:40Z","rev":0,"kind":"final","n":1,"sum":5}`)
		equalLines(t, "after", h.read("out"), want)
		// And again the same definition: it goes on.
		if err := h.engine.Close(); err != nil {
			t.Fatal(err)
		}
		h.start(d)
		h.put("in", rec(60*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		want = append(want, `0 59999 a {"window_start":"1970-01-01T00:00:40Z","window_end":"1970-01-01T00:01:00Z","rev":0,"kind":"final","n":1,"sum":1}`)
		equalLines(t, "again", h.read("out"), want)
		if st := h.task("p", 0); st.Discarded != 0 || st.Replayed != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A topic of the same name, made anew, is another input.
func TestTopicMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		d := perKey(10 * time.Second)
		h.start(d)
		h.put("in", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		if err := h.engine.Close(); err != nil {
			t.Fatal(err)
		}
		if err := h.log.DeleteTopic("in"); err != nil {
			t.Fatal(err)
		}
		h.topic("in", 1)
		h.put("in", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`))
		h.start(d)
		synctest.Wait()
		equalLines(t, "out", h.read("out"), []string{"0 9999 a " + result0, "0 9999 a " + result0})
	})
}

// An output topic that is deleted comes back; one that does not take a result
// does not stop the task.
func TestOutputTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHub(t, vfs.NewMem(), "")
		h.start(perKey(10 * time.Second))
		h.put("in", rec(time.Second, "a", `{"t":1}`), rec(20*time.Second, "a", `{"t":1}`))
		synctest.Wait()
		if err := h.log.DeleteTopic("out"); err != nil {
			t.Fatal(err)
		}
		h.put("in", rec(30*time.Second, "a", `{"t":1}`))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := h.read("out"); len(got) != 1 || !strings.HasPrefix(got[0], "0 29999 a") {
			t.Errorf("out %v", got)
		}
		if st := h.task("p", 0); st.Retries != 1 || st.Error != "" {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestNewErrors(t *testing.T) {
	h := openHub(t, vfs.NewMem(), "")
	good := perKey(time.Second)
	with := func(f func(*Definition)) []Definition {
		d := good
		f(&d)
		return []Definition{d}
	}
	for _, c := range []struct {
		defs []Definition
		want string
	}{
		{with(func(d *Definition) { d.Name = "../x" }), "name"},
		{with(func(d *Definition) { d.From = "a b" }), "from"},
		{with(func(d *Definition) { d.To = "" }), "to"},
		{with(func(d *Definition) { d.To = "in" }), "topic of their own"},
		{with(func(d *Definition) { d.From = "__process" }), "internal"},
		{with(func(d *Definition) { d.Emit = "update 10s" }), "not yet supported"},
		{with(func(d *Definition) { d.Window.Kind = "session" }), "not yet supported"},
		{with(func(d *Definition) { d.Grace = -1 }), "grace"},
		{with(func(d *Definition) { d.Where = "t <" }), "line 1 column 3"},
		{with(func(d *Definition) { d.Compute = []Compute{{"m", "median(t)"}} }), "line 1 column 1"},
		{[]Definition{good, good}, "defined twice"},
		{[]Definition{
			{Name: "a", From: "x", To: "y", Window: good.Window, Compute: []Compute{{"n", "count()"}}},
			{Name: "b", From: "y", To: "x", Window: good.Window, Compute: []Compute{{"n", "count()"}}},
		}, "circle"},
	} {
		_, err := New(Options{Log: h.log, Dir: "x", Definitions: c.defs})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no log is accepted")
	}
	for s, want := range map[string]string{
		"tumbling 1m": "", "hopping 5m every 1m": "not yet", "session 30s": "not yet", "": "empty",
		"tumbling": "one duration", "tumbling 1x": "no duration", "tumbling 1us": "whole milliseconds", "sliding 1m": "unknown",
	} {
		w, err := ParseWindow(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", s, w, err)
		}
	}
}
