package payload

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"23.5", "@0 value=23.5"},
		{" 23.5\r\n", "@0 value=23.5"},
		{"-1e3", "@0 value=-1000"},
		{"+.5", "@0 value=0.5"},
		{"5.", "@0 value=5"},
		{"007", "@0 value=7"},
		{"23.5 C", `@0 value="23.5 C"`},
		{"23,5", `@0 value="23,5"`},
		{"0x10", `@0 value="0x10"`},
		{"1_000", `@0 value="1_000"`},
		{"1e", `@0 value="1e"`},
		{".", `@0 value="."`},
		{"on", `@0 value="on"`},
		{"true", `@0 value="true"`},
		{"", `@0 value=""`},
		{"nano", `@0 value="nano"`},
		{"nan", "malformed"},
		{"-Inf", "malformed"},
		{"+infinity", "malformed"},
		{"1e999", "malformed"},
		{"\xb0C", "malformed"},
		{strings.Repeat("x", 1<<20+1), "limit"},
	} {
		if got := show(t, mustNew(t, Text, Options{}), []byte(c.in)); got != c.want {
			t.Errorf("%.40q: %s, want %s", c.in, got, c.want)
		}
	}
}

func TestRawAndAuto(t *testing.T) {
	if got := show(t, mustNew(t, Raw, Options{}), []byte{0xff, 0}); got != "@0" {
		t.Errorf("raw: %s", got)
	}
	for _, c := range []struct{ name, in, want string }{
		{"object", `{"a":1}`, "@0 a=1"},
		{"readings", `[{"a":1},{"a":2}]`, "@0 a=1\n@0 a=2"},
		{"senml", `[{"bn":"d:","n":"t","v":1}]`, `@0 bn="d:" t=1`},
		{"like senml, with another field", `[{"n":"t","v":1,"ts":5}]`, `@0 n="t" v=1 ts=5`},
		{"cbor", "\xa1\x61a\x01", "@0 a=1"},
		{"number", "23.5", "@0 value=23.5"},
		{"text", "on", `@0 value="on"`},
		{"broken object", `{"a":1`, `@0 value="{\"a\":1"`},
		{"NMEA", "$GPRMC,1*2A", `@0 value="$GPRMC,1*2A"`},
		{"nan", "nan", "@0"},
		{"binary", "\xff\xfe\x00", "@0"},
		{"empty", "", `@0 value=""`},
		{"cbor with bytes behind", "\xa1\x61a\x01\x00", "@0"},
		{"too deep", strings.Repeat("[", 100), `@0 value="` + strings.Repeat("[", 100) + `"`},
	} {
		if got := show(t, mustNew(t, Auto, Options{}), []byte(c.in)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	for _, o := range []Options{{MaxBytes: -1}, {MaxDepth: 65}, {MaxFields: -1}} {
		if _, err := New(JSON, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := New("xml", Options{}); err == nil || !strings.Contains(err.Error(), "use one of") {
		t.Errorf("kind xml: %v", err)
	}
}

// Steady decoding of JSON does not allocate.
func TestJSONAllocations(t *testing.T) {
	d := mustNew(t, JSON, Options{Time: TimeField{Field: "ts", Format: "unix_ms"}})
	b := []byte(`{"ts":1700000000123,"temperature":21.53,"humidity":45,"state":"running","gps":{"lat":52.5,"lon":13.4}}`)
	sum := 0.0
	emit := func(r *Reading) error {
		v, _ := r.Fields.Get("temperature").Number()
		sum += v
		return nil
	}
	run := func() {
		if err := d.Decode(b, emit); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(200, run); n > 0 && !raceEnabled {
		t.Errorf("%v allocations per payload", n)
	}
}

func BenchmarkJSON(b *testing.B) {
	d := mustNew(b, JSON, Options{Time: TimeField{Field: "ts", Format: "unix_ms"}})
	in := []byte(`{"ts":1700000000123,"temperature":21.53,"humidity":45,"state":"running","gps":{"lat":52.5,"lon":13.4}}`)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(in, func(*Reading) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCBOR(b *testing.B) {
	d := mustNew(b, CBOR, Options{})
	in := []byte("\xa3\x62ts\x1b\x00\x00\x01\x8b\xcf\xe5h\x00\x6btemperature\xfb@5\x87\xae\x14z\xe1H\x68humidity\x18-")
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(in, func(*Reading) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
