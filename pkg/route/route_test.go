package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehub/pkg/log/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, topic string
		want           string // "no", or the captures joined by "|"
	}{
		{"plant/{line}/{device}/telemetry", "plant/a/press-3/telemetry", "a|press-3"},
		{"plant/{line}/{device}/telemetry", "plant/a/press-3/telemetry/x", "no"},
		{"plant/{line}/{device}/telemetry", "plant/a/press-3", "no"},
		{"plant/{line}/{device}/telemetry", "plant/a/press-3/Telemetry", "no"},
		{"plant/{line}/x", "plant//x", ""}, // an empty level is a level [MQTT-4.7.1.1]
		{"plant/+/{device}", "plant/a/b", "b"},
		{"plant/+/{device}", "plant/a/b/", "no"},
		{"plant/#", "plant/a/b/c", ""},
		{"plant/#", "plant", ""}, // # includes the parent level [MQTT-4.7.1.2]
		{"plant/#", "plants", "no"},
		{"{a}/#", "x/y/z", "x"},
		{"{a}/#", "x", "x"},
		{"#", "anything/at all", ""},
		{"#", "", ""},
		{"#", "$SYS/broker", "no"}, // [MQTT-4.7.2-1]
		{"+/broker", "$SYS/broker", "no"},
		{"{x}/broker", "$SYS/broker", "no"},
		{"$SYS/#", "$SYS/broker", ""},
		{"a/{x}", "a/$b", "$b"},
		{"/{x}", "/y", "y"},
		{"{x}", "/y", "no"},
		{"{x}", "über", "über"},
		{"a", "a", ""},
		{"a", "a/", "no"},
		{"a/+", "a/", ""},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" on "+tt.topic, func(t *testing.T) {
			table, err := Compile([]Rule{{Match: tt.pattern, Topic: "t"}})
			if err != nil {
				t.Fatal(err)
			}
			got := "no"
			if m, ok := table.Match(tt.topic); ok {
				var values []string
				m.Captures(func(_, v string) { values = append(values, v) })
				got = strings.Join(values, "|")
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFirstMatchWins(t *testing.T) {
	table, err := Compile([]Rule{
		{Match: "plant/secret/#", Drop: true},
		{Match: "plant/{line}/alarm", Topic: "alarms", Payload: "json"},
		{Match: "plant/#", Topic: "telemetry", Payload: "cbor"},
		{Match: "alarms/#", Topic: "alarms", Payload: "text"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{
		"plant/secret/alarm": "drop",
		"plant/a/alarm":      "1 alarms",
		"plant/a/b":          "2 telemetry",
		"office/a":           "-1 mqtt",
		"$plant/a/b":         "-1 mqtt",
	} {
		m, ok := table.Match(topic)
		got := fmt.Sprint(m.Rule(), " ", m.Topic())
		if m.Drop() {
			got = "drop"
		}
		if got != want || ok != (want[0] != '-') {
			t.Errorf("%s: got %q, %v, want %q", topic, got, ok, want)
		}
	}
	if got, want := table.Topics(), []string{"alarms", "telemetry"}; !slices.Equal(got, want) {
		t.Errorf("topics %v, want %v", got, want)
	}
	for topic, want := range map[string]string{"alarms": "json", "telemetry": "cbor", "other": "auto"} {
		if got := table.PayloadOf(topic); got != want {
			t.Errorf("payload of %s: %q, want %q", topic, got, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	ts := TimeRule{Field: "ts"}
	tests := []struct {
		rule  Rule
		field string
		want  string // part of the message
	}{
		{Rule{Topic: "t"}, "match", "is empty"},
		{Rule{Match: "a/#/b", Topic: "t"}, "match", "# before its last level"},
		{Rule{Match: "a#", Topic: "t"}, "match", "whole levels"},
		{Rule{Match: "a+/b", Topic: "t"}, "match", "whole levels"},
		{Rule{Match: "{x}/{x}", Topic: "t"}, "match", "{x} twice"},
		{Rule{Match: "dev-{x}", Topic: "t"}, "match", "one whole level"},
		{Rule{Match: "{x", Topic: "t"}, "match", "one whole level"},
		{Rule{Match: "x}", Topic: "t"}, "match", "one whole level"},
		{Rule{Match: "{{x}}", Topic: "t"}, "match", "one whole level"},
		{Rule{Match: "{}", Topic: "t"}, "match", "without a name"},
		{Rule{Match: "{9x}", Topic: "t"}, "match", "begin with no digit"},
		{Rule{Match: "{a.b}", Topic: "t"}, "match", "letters, digits and _"},
		{Rule{Match: "{site}/a", Topic: "t"}, "match", "that the hub itself gives"},
		{Rule{Match: "a\x00", Topic: "t"}, "match", "NUL"},
		{Rule{Match: strings.Repeat("{x}/", 2) + "a", Topic: "t"}, "match", "twice"},
		{Rule{Match: "a/#"}, "topic", "is missing"},
		{Rule{Match: "a/#", Topic: "no space"}, "topic", "invalid topic name"},
		{Rule{Match: "a/#", Topic: "__mine"}, "topic", "hub's own"},
		{Rule{Match: "{a}/{b}", Topic: "t", Key: "{c}"}, "key", "there is {a}, {b}, {topic}"},
		{Rule{Match: "{a}", Topic: "t", Key: "{a"}, "key", "without its }"},
		{Rule{Match: "{a}", Topic: "t", Key: "a}"}, "key", "without its {"},
		{Rule{Match: "a", Topic: "t", Payload: "xml"}, "payload", `"xml" is unknown`},
		{Rule{Match: "a", Topic: "t", Payload: "sparkplug"}, "payload", "not yet supported"},
		{Rule{Match: "a", Topic: "t", Payload: "json", Time: TimeRule{Format: "unix"}}, "time.format", "needs time.field"},
		{Rule{Match: "a", Topic: "t", Payload: "json", Time: TimeRule{Field: "ts", Format: "nonsense"}}, "time.format", "nonsense"},
		{Rule{Match: "a", Topic: "t", Payload: "json", Time: TimeRule{Field: "ts", Format: "2006-01-02", Zone: "Mars/Base"}}, "time.zone", "Mars/Base"},
		{Rule{Match: "a", Topic: "t", Payload: "json", Time: TimeRule{Field: "ts", Format: "unix", Zone: "UTC"}}, "time.zone", "layouts"},
		{Rule{Match: "a", Topic: "t", Payload: "raw", Time: ts}, "time.field", "raw has none"},
		{Rule{Match: "a", Topic: "t", Payload: "json", Time: TimeRule{Field: "ts", MaxFuture: -1}}, "time.max_future", "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.field+" "+tt.want, func(t *testing.T) {
			_, err := Compile([]Rule{{Match: "fine", Topic: "fine"}, tt.rule})
			var e *RuleError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a RuleError", err)
			}
			if e.Index != 1 || e.Field != tt.field || !strings.Contains(e.Msg, tt.want) {
				t.Errorf("got %d, %s, %q; want 1, %s, …%q…", e.Index, e.Field, e.Msg, tt.field, tt.want)
			}
		})
	}
}

func TestCompileReportsEveryError(t *testing.T) {
	_, err := Compile([]Rule{{Match: "#/a", Topic: "a b"}, {}, {Match: "ok", Topic: "ok"}})
	for _, want := range []string{"route 1: match", "route 1: topic", "route 2: match", "route 2: topic"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestUnreached(t *testing.T) {
	table, err := Compile([]Rule{
		{Match: "a/{x}", Topic: "t"},
		{Match: "a/b", Topic: "t"},   // by the first
		{Match: "a/+/c", Topic: "t"}, // fine
		{Match: "#", Topic: "t"},
		{Match: "$x/#", Topic: "t"}, // fine: # leaves it
		{Match: "z", Topic: "t"},    // by #
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, e := range table.Unreached() {
		got = append(got, e.Index)
	}
	if want := []int{1, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

var ingest = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestRecord(t *testing.T) {
	const at = 1763640000000 // 2025-11-20T12:00:00Z
	json := Rule{Match: "p/{line}/{device}", Topic: "t", Key: "{device}", Payload: "json"}
	timed := json
	timed.Time = TimeRule{Field: "ts", Format: "unix_ms"}
	with := func(r Rule, f func(*Rule)) Rule { f(&r); return r }
	future := ingest.Add(5 * time.Minute).UnixMilli()
	tests := []struct {
		name    string
		rule    Rule
		topic   string
		payload string
		trusted bool
		key     string
		time    int64 // 0: ingest
		headers string
		out     Outcome
	}{
		{"event time", timed, "p/a/7", `{"ts":1763640000000}`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"nested field", with(timed, func(r *Rule) { r.Time.Field = "m.ts" }), "p/a/7", `{"m":{"ts":1763640000000}}`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"seconds", with(timed, func(r *Rule) { r.Time.Format = "unix" }), "p/a/7", `{"ts":1763640000}`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"rfc3339", with(timed, func(r *Rule) { r.Time.Format = "rfc3339" }), "p/a/7", `{"ts":"2025-11-20T13:00:00+01:00"}`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"layout in a zone", with(timed, func(r *Rule) { r.Time.Format, r.Time.Zone = "2006-01-02 15:04:05", "Europe/Berlin" }), "p/a/7", `{"ts":"2025-11-20 13:00:00"}`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"cbor", with(timed, func(r *Rule) { r.Payload = "cbor" }), "p/a/7", "\xa1\x62ts\x1b\x00\x00\x01\x9a\xa1\x47\xa6\x00", true, "7", 1763642418688, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"no time field", timed, "p/a/7", `{"x":1}`, true, "7", 0, "mqtt.topic=p/a/7 line=a device=7", Outcome{}},
		{"2010 is history", timed, "p/a/7", `{"ts":1262304000000}`, true, "7", 1262304000000, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"the earliest time", timed, "p/a/7", `{"ts":946771200000}`, true, "7", Earliest, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"a clock never set", timed, "p/a/7", `{"ts":946771199999}`, true, "7", 0, "mqtt.topic=p/a/7 line=a device=7 time.fixed=946771199999", Outcome{TimeFixed: true}},
		{"a clock never set, ours neither", timed, "p/a/7", `{"ts":12345}`, false, "7", 0, "mqtt.topic=p/a/7 line=a device=7 time.fixed=12345", Outcome{TimeFixed: true}},
		{"the latest time", timed, "p/a/7", fmt.Sprintf(`{"ts":%d}`, future), true, "7", future, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"the future", timed, "p/a/7", fmt.Sprintf(`{"ts":%d}`, future+1), true, "7", 0, fmt.Sprintf("mqtt.topic=p/a/7 line=a device=7 time.fixed=%d", future+1), Outcome{TimeFixed: true}},
		{"the future by an untrusted clock", timed, "p/a/7", fmt.Sprintf(`{"ts":%d}`, future+1), false, "7", future + 1, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"its own bound", with(timed, func(r *Rule) { r.Time.MaxFuture = time.Hour }), "p/a/7", fmt.Sprintf(`{"ts":%d}`, future+1), true, "7", future + 1, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
		{"beyond all years", timed, "p/a/7", `{"ts":253402300800000}`, false, "7", 0, "mqtt.topic=p/a/7 line=a device=7 time.fixed=253402300800000", Outcome{TimeFixed: true}},
		{"a time that is none", timed, "p/a/7", `{"ts":"soon"}`, true, "7", 0, "mqtt.topic=p/a/7 line=a device=7 time.fixed=unreadable", Outcome{TimeFixed: true}},
		{"malformed, timed", timed, "p/a/7", `{"ts":1763640000000`, true, "7", 0, "payload.error", Outcome{PayloadError: true}},
		{"malformed", json, "p/a/7", `{"x":`, true, "7", 0, "payload.error", Outcome{PayloadError: true}},
		{"empty", json, "p/a/7", ``, true, "7", 0, "payload.error", Outcome{PayloadError: true}},
		{"malformed cbor", with(json, func(r *Rule) { r.Payload = "cbor" }), "p/a/7", "\xa1\x62t", true, "7", 0, "payload.error", Outcome{PayloadError: true}},
		{"raw is never malformed", with(json, func(r *Rule) { r.Payload = "raw" }), "p/a/7", "\xff\x00", true, "7", 0, "mqtt.topic=p/a/7 line=a device=7", Outcome{}},
		{"auto is never malformed", with(json, func(r *Rule) { r.Payload = "" }), "p/a/7", `{"x":`, true, "7", 0, "mqtt.topic=p/a/7 line=a device=7", Outcome{}},
		{"key of the topic", with(json, func(r *Rule) { r.Key = "" }), "p/a/7", `{}`, true, "p/a/7", 0, "mqtt.topic=p/a/7 line=a device=7", Outcome{}},
		{"key template", with(json, func(r *Rule) { r.Key = "{line}.{device}@{topic}" }), "p/a/7", `{}`, true, "a.7@p/a/7", 0, "mqtt.topic=p/a/7 line=a device=7", Outcome{}},
		{"empty capture", json, "p/a/", `{}`, true, "", 0, "mqtt.topic=p/a/ line=a device=", Outcome{}},
		{"site", with(json, func(r *Rule) { r.Site = "north" }), "p/a/7", `{}`, true, "7", 0, "mqtt.topic=p/a/7 site=north line=a device=7", Outcome{}},
		{"no route", json, "other", `{`, true, "other", 0, "mqtt.topic=other", Outcome{}},
		{"senml has its own time", with(json, func(r *Rule) { r.Payload = "senml" }), "p/a/7", `[{"n":"t","u":"Cel","v":1,"t":1763640000}]`, true, "7", at, "mqtt.topic=p/a/7 line=a device=7", Outcome{EventTime: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := Compile([]Rule{tt.rule})
			if err != nil {
				t.Fatal(err)
			}
			var rec record.Record
			for range 2 { // the second time with used buffers
				m, _ := table.Match(tt.topic)
				out := table.Record(&m, tt.topic, []byte(tt.payload), ingest, tt.trusted, &rec)
				if out != tt.out {
					t.Errorf("outcome %+v, want %+v", out, tt.out)
				}
				want := tt.time
				if want == 0 {
					want = ingest.UnixMilli()
				}
				if rec.Timestamp != want {
					t.Errorf("timestamp %d, want %d", rec.Timestamp, want)
				}
				if string(rec.Key) != tt.key || rec.Key == nil {
					t.Errorf("key %q, want %q", rec.Key, tt.key)
				}
				if string(rec.Value) != tt.payload {
					t.Errorf("value %q, want %q", rec.Value, tt.payload)
				}
				got := headerText(rec.Headers)
				if tt.headers == "payload.error" {
					if v, ok := rec.Header(HeaderPayloadError); !ok || len(v) == 0 || len(v) > maxErrorHeader {
						t.Errorf("header payload.error is %q, %v", v, ok)
					}
				} else if got != tt.headers {
					t.Errorf("headers %q, want %q", got, tt.headers)
				}
			}
		})
	}
}

func headerText(fields []record.Field) string {
	var parts []string
	for _, f := range fields {
		parts = append(parts, f.Key+"="+string(f.Value))
	}
	return strings.Join(parts, " ")
}

func TestSite(t *testing.T) {
	table, err := Compile([]Rule{{Match: "a", Topic: "t"}, {Match: "b", Topic: "t", Site: "own"}})
	if err != nil {
		t.Fatal(err)
	}
	table = table.ForSite("press-line-7")
	for topic, want := range map[string]string{"a": "press-line-7", "b": "own", "c": "press-line-7"} {
		var rec record.Record
		m, _ := table.Match(topic)
		table.Record(&m, topic, nil, ingest, true, &rec)
		if v, _ := rec.Header(HeaderSite); string(v) != want {
			t.Errorf("site of %s is %q, want %q", topic, v, want)
		}
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	table, err := Compile([]Rule{
		{Match: "office/#", Drop: true},
		{Match: "plant/{line}/{device}/telemetry", Topic: "t", Key: "{device}", Payload: "raw"},
	})
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte("21.5")
	var rec record.Record
	once := func() {
		m, _ := table.Match("plant/a/press-3/telemetry")
		table.Record(&m, "plant/a/press-3/telemetry", payload, ingest, true, &rec)
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations for a record, want none", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	table, err := Compile([]Rule{
		{Match: "plant/{line}/{device}/telemetry", Topic: "t", Key: "{device}", Payload: "json", Time: TimeRule{Field: "ts", Format: "unix_ms"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte(`{"ts":1763640000000,"temperature":21.5,"state":"on"}`)
	var rec record.Record
	b.ReportAllocs()
	for b.Loop() {
		m, _ := table.Match("plant/a/press-3/telemetry")
		table.Record(&m, "plant/a/press-3/telemetry", payload, ingest, true, &rec)
	}
}
