package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// A nats-server that is shut down while it creates a stream may leave that
// stream's store open, with these two goroutines.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// The shortest demo loses nothing, shows the cut, and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	r, err := Run(t.Context(), Options{Duration: 10 * time.Second, Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if r.Lost != 0 || r.Duplicates != 0 || r.Published < 1000 || r.Edge < r.Published || r.Core != r.Edge || r.Windows < 100 {
		t.Errorf("%+v\n%s", r, out.String())
	}
	for _, want := range []string{"the link to the core is cut", "the link is back", "nothing lost, nothing doubled"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q was not shown:\n%s", want, out.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Interrupted, it ends soon and leaves nothing behind.
func TestInterrupt(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := Run(ctx, Options{}); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func rec(key, value string, ts int64) record {
	return record{key: []byte(key), value: []byte(value), ts: ts, headers: []kgo.RecordHeader{{Key: "site", Value: []byte("demo")}}}
}

// Every kind of difference is seen: the demo's zeros mean something.
func TestCompare(t *testing.T) {
	a, b, c := rec("k", "a", 1), rec("k", "b", 2), rec("k", "c", 3)
	other := rec("k", "a", 1)
	other.headers = nil
	for _, x := range []struct {
		name       string
		edge, core [][]record
		want       difference
	}{
		{"same", [][]record{{a, b}, {c}}, [][]record{{a, b}, {c}}, difference{}},
		{"lost", [][]record{{a, b, c}}, [][]record{{a, c}}, difference{lost: 1}},
		{"doubled", [][]record{{a, b}}, [][]record{{a, b, b}}, difference{extra: 1}},
		{"order", [][]record{{a, b}}, [][]record{{b, a}}, difference{first: "partition 0 differs at its record 0"}},
		{"partition", [][]record{{a}, {b}}, [][]record{{b}, {a}}, difference{lost: 2, extra: 2, first: "partition 0 differs at its record 0"}},
		{"header", [][]record{{a}}, [][]record{{other}}, difference{lost: 1, extra: 1, first: "partition 0 differs at its record 0"}},
		{"time", [][]record{{a}}, [][]record{{rec("k", "a", 9)}}, difference{lost: 1, extra: 1, first: "partition 0 differs at its record 0"}},
		{"fewer partitions", [][]record{{a}, {b}}, [][]record{{a}}, difference{lost: 1, first: "2 partitions at the edge, 1 at the core"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := compare(x.edge, x.core); got != x.want {
				t.Errorf("got %+v, want %+v", got, x.want)
			}
		})
	}
}

func published(s *series, seqs ...int) []record {
	var out []record
	for _, i := range seqs {
		b, _ := json.Marshal(message{TS: s.points[i].ts, Seq: i, Temperature: s.points[i].temperature})
		out = append(out, rec(s.device, string(b), s.points[i].ts))
	}
	return out
}

func TestMissing(t *testing.T) {
	s := &series{device: "d", points: []point{{1, 1}, {2, 2}, {3, 3}}}
	all := []*series{s}
	for _, x := range []struct {
		name string
		core []record
		lost int64
		bad  string
	}{
		{"all", published(s, 0, 1, 2), 0, ""},
		{"sent again", published(s, 0, 1, 0, 1, 2), 0, ""},
		{"one lost", published(s, 0, 2), 1, ""},
		{"order", published(s, 1, 0, 2), 0, "number 0 stands behind number 1"},
		{"never published", []record{rec("x", `{"ts":1,"seq":0}`, 1)}, 0, "never published"},
		{"wrong time", []record{rec("d", `{"ts":1,"seq":0}`, 2)}, 0, "never published"},
		{"not JSON", []record{rec("d", `{`, 2)}, 0, "not as published"},
	} {
		t.Run(x.name, func(t *testing.T) {
			lost, err := missing(all, [][]record{x.core})
			if x.bad == "" && (err != nil || lost != x.lost) || x.bad != "" && (err == nil || !strings.Contains(err.Error(), x.bad)) {
				t.Errorf("%d lost, %v", lost, err)
			}
		})
	}
}

func TestCheckWindows(t *testing.T) {
	h := windowSize.Milliseconds()
	s := &series{device: "d", points: []point{{0, 1}, {1, 4}, {h, 2}, {3 * h, 1}}}
	window := func(start int64, mean, high float64, n int) record {
		return rec("d", fmt.Sprintf(`{"device":"d","window_start":%q,"window_end":%q,"rev":0,"kind":"final","mean":%v,"max":%v,"n":%d}`,
			time.UnixMilli(start).UTC().Format(time.RFC3339), time.UnixMilli(start+h).UTC().Format(time.RFC3339), mean, high, n), start+h-1)
	}
	first, second, last := window(0, 2.5, 4, 2), window(h, 2, 2, 1), window(3*h, 1, 1, 1)
	for _, x := range []struct {
		name string
		core []record
		lost int64
		bad  string
	}{
		{"all that are due", []record{first, second}, 0, ""},
		{"the open one too", []record{first, second, last}, 0, ""},
		{"one lost", []record{first}, 1, ""},
		{"twice", []record{first, first, second}, 0, "window twice"},
		{"wrong mean", []record{window(0, 2.6, 4, 2)}, 0, "computed anew"},
		{"wrong count", []record{window(0, 2.5, 4, 3)}, 0, "computed anew"},
		{"no input", []record{window(2*h, 1, 1, 1)}, 0, "without input"},
	} {
		t.Run(x.name, func(t *testing.T) {
			lost, err := checkWindows([]*series{s}, [][]record{x.core})
			if x.bad == "" && (err != nil || lost != x.lost) || x.bad != "" && (err == nil || !strings.Contains(err.Error(), x.bad)) {
				t.Errorf("%d lost, %v", lost, err)
			}
		})
	}
}

// What is lost is counted once, wherever it was lost.
func TestTally(t *testing.T) {
	s := &series{device: "d", points: []point{{1, 1}, {2, 2}, {3, 3}}}
	for _, x := range []struct {
		name        string
		edge, core  []record
		lost, extra int64
	}{
		{"nothing", published(s, 0, 1, 2), published(s, 0, 1, 2), 0, 0},
		{"on the way to the edge", published(s, 0, 2), published(s, 0, 2), 1, 0},
		{"on the way to the core", published(s, 0, 1, 2), published(s, 0, 2), 1, 0},
		{"on both", published(s, 0, 2), published(s, 0), 2, 0},
		{"doubled on the way to the core", published(s, 0, 1, 2), published(s, 0, 1, 1, 2), 0, 1},
		{"sent again by its device", published(s, 0, 1, 1, 2), published(s, 0, 1, 1, 2), 0, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, wrong := tally([]*series{s}, [2][][]record{{x.edge}, {x.core}}, [2][][]record{})
			if r.Lost != x.lost || r.Duplicates != x.extra || len(wrong) > 0 {
				t.Errorf("%d lost, %d doubled, %v", r.Lost, r.Duplicates, wrong)
			}
		})
	}
}

func TestLink(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	l, err := newLink(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	echo := func() (net.Conn, error) {
		c, err := net.Dial("tcp", l.addr())
		if err != nil {
			return nil, err
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 2)
		if _, err = c.Write([]byte("hi")); err == nil {
			_, err = io.ReadFull(c, b)
		}
		return c, err
	}
	c, err := echo()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.set(false)
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the cut did not end the connection: %d %v", n, err)
	}
	if d, err := echo(); err == nil {
		d.Close()
		t.Error("a connection while cut")
	}
	l.set(true)
	d, err := echo()
	if err != nil {
		t.Error(err)
	} else {
		d.Close()
	}
}

func TestLoad(t *testing.T) {
	all := load(6000)
	total := 0
	for _, s := range all {
		total += len(s.points)
		for i := 1; i < len(s.points); i++ {
			if s.points[i].ts < s.points[i-1].ts {
				t.Fatalf("%s goes backwards at %d", s.device, i)
			}
		}
	}
	if len(all) != 4 || total != 6000 {
		t.Errorf("%d series, %d messages", len(all), total)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}
