package route

import (
	"strings"
	"testing"

	"edgehub/pkg/log/record"
)

// FuzzMatch holds the matcher to a plain one that splits everything.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{
		{"plant/{line}/{device}/telemetry", "plant/a/b/telemetry"}, {"a/#", "a"}, {"#", "$SYS"}, {"+/+", "/"},
		{"{a}/{b}/#", "x//y/z"}, {"/", "//"}, {"$x/{y}", "$x/$y"}, {"a/{x", "a/b"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pat, topic string) {
		p, err := parsePattern(pat)
		if err != nil {
			return
		}
		var values [MaxCaptures]string
		got := p.match(topic, &values)
		want, captured := plainMatch(pat, topic)
		if got != want {
			t.Fatalf("%q on %q: %v, want %v", pat, topic, got, want)
		}
		if !got {
			return
		}
		if len(captured) != len(p.names) {
			t.Fatalf("%q: %d captures, want %d", pat, len(p.names), len(captured))
		}
		for i := range captured {
			if values[i] != captured[i] {
				t.Fatalf("%q on %q: capture %d is %q, want %q", pat, topic, i, values[i], captured[i])
			}
			if strings.Contains(values[i], "/") {
				t.Fatalf("capture %q spans levels", values[i])
			}
		}
	})
}

func plainMatch(pat, topic string) (bool, []string) {
	ps, ts := strings.Split(pat, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (ps[0] == "#" || ps[0] == "+" || strings.HasPrefix(ps[0], "{")) {
		return false, nil
	}
	var captured []string
	for i, p := range ps {
		if p == "#" {
			return len(ts) >= i, captured
		}
		if i >= len(ts) {
			return false, nil
		}
		switch {
		case strings.HasPrefix(p, "{"):
			captured = append(captured, ts[i])
		case p != "+" && p != ts[i]:
			return false, nil
		}
	}
	return len(ps) == len(ts), captured
}

// FuzzCovers: what a covered pattern matches, the covering one matches.
func FuzzCovers(f *testing.F) {
	f.Add("a/#", "a/{x}", "a/b")
	f.Add("#", "$x", "$x")
	f.Add("{a}/+", "b/c", "b/c")
	f.Fuzz(func(t *testing.T, a, b, topic string) {
		p, err := parsePattern(a)
		if err != nil {
			return
		}
		q, err := parsePattern(b)
		if err != nil {
			return
		}
		var v [MaxCaptures]string
		if p.covers(&q) && q.match(topic, &v) && !p.match(topic, &v) {
			t.Fatalf("%q covers %q, which alone matches %q", a, b, topic)
		}
	})
}

// FuzzRecord: whatever the payload, there is a record with the value as it
// came, which survives being put into a batch.
func FuzzRecord(f *testing.F) {
	f.Add("p/a/7", []byte(`{"ts":1763640000000}`))
	f.Add("p/a/7", []byte(`{"ts":`))
	f.Add("p//\xff", []byte("\xa1\x62ts\x00"))
	var tables []*Table
	for _, kind := range []string{"json", "cbor", "senml", "text", "auto"} {
		table, err := Compile([]Rule{{Match: "p/{line}/{device}", Topic: "t", Key: "{device}", Payload: kind, Time: TimeRule{Field: "ts"}}})
		if err != nil {
			f.Fatal(err)
		}
		tables = append(tables, table)
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		for _, table := range tables {
			var rec record.Record
			m, _ := table.Match(topic)
			out := table.Record(&m, topic, payload, ingest, true, &rec)
			if string(rec.Value) != string(payload) {
				t.Fatal("the payload was touched")
			}
			if rec.Timestamp < Earliest || rec.Timestamp > ingest.UnixMilli()+DefaultMaxFuture.Milliseconds() {
				t.Fatalf("timestamp %d is implausible", rec.Timestamp)
			}
			if _, has := rec.Header(HeaderPayloadError); has != out.PayloadError {
				t.Fatal("outcome and header disagree")
			}
			var b record.Builder
			b.Append(&rec)
			if err := record.Records(b.Build(nil, 0, 0, record.None), func(r *record.Record) error {
				if string(r.Key) != string(rec.Key) || len(r.Headers) != len(rec.Headers) {
					t.Fatal("the record changed in its batch")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
