package process

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehub/pkg/log/record"
	"edgehub/pkg/payload"
)

var update = flag.Bool("update", false, "rewrite the expectations of testdata/windows")

func TestMain(m *testing.M) {
	// The codec's state is shared by all; it must not be made inside a bubble
	// of synctest.
	text := bytes.Repeat([]byte("window "), 20)
	b, err := record.Compress(record.Zstd, nil, text)
	for _, limit := range []int{len(text), 1 << 20} { // each has a decoder
		if err == nil {
			_, err = record.Decompress(record.Zstd, nil, b, limit)
		}
	}
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// TestWindows runs testdata/windows/*.txt. A file is blocks of commands, each
// followed by "----" and what they gave, up to an empty line:
//
//	define window=10s grace=2s by=device where="t<200" n=count() m=mean(t)
//	at 12s key=a t=3 @device=a    a record: time, key, JSON fields, @headers
//	raw 12s key=a [{"t":1}]       a record with that payload
//	tick 30s [before=5]           the wall clock closes idle keys
//	reload                        the state goes through its bytes
//	stats                         counters that are not 0
//
// A result shows as key, time and JSON; what is late as "late".
func TestWindows(t *testing.T) {
	files, err := filepath.Glob("testdata/windows/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, reload := range []bool{false, true} {
				got := runScript(t, string(b), reload)
				if *update && !reload {
					if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					b = []byte(got)
				}
				if got != string(b) {
					t.Errorf("reload after each command: %v\n%s", reload, diffLines(string(b), got))
				}
			}
		})
	}
}

func diffLines(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for i := 0; i < len(w) || i < len(g); i++ {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			fmt.Fprintf(&out, "line %d\nwant %s\n got %s\n", i+1, a, b)
		}
	}
	return out.String()
}

// script is the interpreter's state.
type script struct {
	t      *testing.T
	spec   *spec
	in     *input
	w      *windows
	offset int64
	out    []string
}

func runScript(t *testing.T, text string, reload bool) string {
	t.Helper()
	s := &script{t: t}
	var out strings.Builder
	expecting := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "----":
			out.WriteString("----\n")
			for _, l := range s.out {
				out.WriteString(l + "\n")
			}
			s.out, expecting = nil, true
		case expecting && line != "":
		case line == "" || strings.HasPrefix(line, "#"):
			expecting = false
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			s.command(line)
			if reload && s.w != nil {
				s.reload()
			}
		}
	}
	return out.String()
}

// words splits at spaces outside double quotes and brackets.
func words(s string) []string {
	var out []string
	var cur strings.Builder
	quote, depth := false, 0
	for _, c := range s {
		switch {
		case c == '"' && depth == 0:
			quote = !quote
			continue
		case (c == '(' || c == '[' || c == '{') && !quote:
			depth++
		case (c == ')' || c == ']' || c == '}') && !quote:
			depth--
		case c == ' ' && !quote && depth == 0:
			if cur.Len() > 0 {
				out = append(out, cur.String())
				cur.Reset()
			}
			continue
		}
		cur.WriteRune(c)
	}
	if cur.Len() > 0 {
		out = append(out, cur.String())
	}
	return out
}

func (s *script) command(line string) {
	t := s.t
	f := words(line)
	switch f[0] {
	case "define":
		s.define(f[1:])
	case "at", "raw":
		rec := record.Record{Offset: s.offset, Timestamp: s.duration(f[1])}
		s.offset++
		var fields []string
		for _, w := range f[2:] {
			k, v, ok := strings.Cut(w, "=")
			switch {
			case !ok || strings.HasPrefix(w, "[") || strings.HasPrefix(w, "{"):
				rec.Value = []byte(w)
			case k == "key":
				rec.Key = []byte(v)
			case k[0] == '@':
				rec.Headers = append(rec.Headers, record.Field{Key: k[1:], Value: []byte(v)})
			default:
				if _, err := strconv.ParseFloat(v, 64); err != nil && v != "true" && v != "false" && v != "null" {
					v = strconv.Quote(v)
				}
				fields = append(fields, strconv.Quote(k)+":"+v)
			}
		}
		if f[0] == "at" {
			rec.Value = []byte("{" + strings.Join(fields, ",") + "}")
		}
		for _, sm := range s.in.take(&rec) {
			if !s.w.add(&sm) {
				s.out = append(s.out, "late")
			}
		}
	case "tick":
		before := s.offset
		for _, w := range f[2:] {
			k, v, _ := strings.Cut(w, "=")
			n, err := strconv.Atoi(v)
			if err != nil {
				t.Fatal(line)
			}
			if k != "before" {
				t.Fatal(line)
			}
			before = int64(n)
		}
		wall := s.duration(f[1])
		would := s.w.idle(wall, before)
		n := len(s.out)
		s.w.tick(wall, before)
		if would != (len(s.out) > n) {
			t.Errorf("%s: idle said %v, %d results", line, would, len(s.out)-n)
		}
	case "reload":
		s.reload()
	case "stats":
		for _, c := range []struct {
			name string
			n    int64
		}{
			{"records", s.in.counts.Records}, {"malformed", s.in.counts.Malformed}, {"untimed", s.in.counts.Untimed},
			{"ungrouped", s.in.counts.Ungrouped}, {"filtered", s.in.counts.Filtered}, {"errors", s.in.counts.Errors},
			{"late", s.w.counts.Late}, {"finals", s.w.counts.Finals}, {"amends", s.w.counts.Amends},
			{"forced", s.w.counts.Forced}, {"forgotten", s.w.counts.Forgotten}, {"dropped", s.w.counts.Dropped},
			{"open", int64(s.w.open)}, {"closed", int64(s.w.kept)}, {"keys", int64(len(s.w.keys))},
		} {
			if c.n != 0 {
				s.out = append(s.out, fmt.Sprintf("%s %d", c.name, c.n))
			}
		}
	default:
		t.Fatalf("unknown command %q", line)
	}
}

func (s *script) duration(v string) int64 {
	if at, err := time.Parse(time.RFC3339, v); err == nil {
		return at.UnixMilli()
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Milliseconds()
}

func (s *script) define(args []string) {
	d := Definition{Name: "p", From: "in", To: "out"}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		dur, _ := time.ParseDuration(v)
		switch k {
		case "window":
			d.Window.Size = dur
		case "grace":
			d.Grace = dur
		case "amend":
			if d.Amend = dur; v == "off" {
				d.Amend = AmendOff
			}
		case "history":
			d.History = dur
		case "by":
			d.By = strings.Split(v, ",")
		case "where":
			d.Where = v
		case "maxkeys":
			d.MaxKeys = n
		case "maxopen":
			d.MaxOpen = n
		case "maxclosed":
			d.MaxClosed = n
		default:
			d.Compute = append(d.Compute, Compute{Name: k, Expr: v})
		}
	}
	sp, err := compile(d)
	if err != nil {
		s.out = append(s.out, err.Error())
		return
	}
	dec, err := payload.New(payload.JSON, payload.Options{Time: payload.TimeField{Field: "ts", Format: "unix"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.spec, s.in, s.offset = sp, &input{spec: sp, decoder: dec}, 0
	s.w = newWindows(sp)
	s.w.emit = s.emit
}

func (s *script) emit(r result) {
	key := string(r.key)
	if r.key == nil {
		key = "nil"
	}
	s.out = append(s.out, fmt.Sprintf("%s %d %s", strings.ReplaceAll(key, "\x1f", "|"), r.time, r.json))
}

func (s *script) reload() {
	b := s.w.appendState(nil)
	w := newWindows(s.spec)
	if err := w.load(b); err != nil {
		s.t.Fatal(err)
	}
	w.counts, w.emit = s.w.counts, s.emit
	if again := w.appendState(nil); string(again) != string(b) {
		s.t.Fatal("state reads back as something else")
	}
	s.w = w
}

func FuzzLoadState(f *testing.F) {
	sp, err := compile(Definition{
		Name: "p", From: "in", To: "out", By: []string{"a", "b"}, Window: Window{Size: time.Second},
		Compute: []Compute{{"n", "count()"}, {"m", "mean(x)"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	w := newWindows(sp)
	for i := range 30 {
		w.add(&sample{
			id: string(rune('a' + i%3)), text: []byte("k"), by: []payload.Value{payload.IntValue(1), payload.StringValue("x")},
			time: int64(i * 200), offset: int64(i), values: []value{{present: true}, {present: true, number: 3}},
		})
	}
	f.Add(w.appendState(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWindows(sp)
		if w.load(b) != nil {
			return
		}
		if err := newWindows(sp).load(w.appendState(nil)); err != nil {
			t.Fatal(err)
		}
		for _, k := range w.keys {
			for _, win := range k.closed {
				w.thaw(win)
			}
		}
	})
}
