package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// show writes readings on a line each: "@time+shift name=value …", values as
// JSON.
func show(t testing.TB, d Decoder, b []byte) string {
	t.Helper()
	var out strings.Builder
	err := d.Decode(b, func(r *Reading) error {
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "@%d", r.Time)
		if r.Shift != 0 {
			fmt.Fprintf(&out, "%+d", r.Shift)
		}
		if r.TimeBad {
			out.WriteString(" bad-time")
		}
		for _, f := range r.Fields {
			fmt.Fprintf(&out, " %s=%s", f.Name, f.Value.AppendJSON(nil))
		}
		return nil
	})
	if err != nil {
		if e := (*Error)(nil); !errors.As(err, &e) {
			t.Fatalf("error %v is not an *Error", err)
		}
		if out.Len() > 0 {
			t.Fatalf("emitted %q before error %v", out.String(), err)
		}
		if errors.Is(err, ErrLimit) {
			return "limit"
		}
		return "malformed"
	}
	return out.String()
}

func mustNew(t testing.TB, k Kind, o Options) Decoder {
	t.Helper()
	d, err := New(k, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestJSON(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17)
	many := `{"a":[` + strings.Repeat("1,", 4096) + `1]}`
	for _, c := range []struct{ name, in, want string }{
		{"flat", `{"temperature":21.5,"unit":"C","ok":true}`, `@0 temperature=21.5 unit="C" ok=true`},
		{"nested", `{"a":{"b":{"c":1}},"d":2}`, `@0 a.b.c=1 d=2`},
		{"nested array", `{"rx":[{"rssi":-36},{"rssi":-40}]}`, `@0 rx.0.rssi=-36 rx.1.rssi=-40`},
		{"null is missing", `{"a":null,"b":1}`, `@0 b=1`},
		{"readings", ` [ {"a":1} , {"a":2} ] `, "@0 a=1\n@0 a=2"},
		{"no readings", `[]`, ``},
		{"mixed array", `[{"a":1},2]`, `malformed`},
		{"array of numbers", `[1,2]`, `@0 0=1 1=2`},
		{"number", `23.5`, `@0 value=23.5`},
		{"string", `"23.5"`, `@0 value="23.5"`},
		{"unit is text", `{"t":"23.5 C"}`, `@0 t="23.5 C"`},
		{"duplicate", `{"a":1,"b":2,"a":3}`, `@0 b=2 a=3`},
		{"duplicate object", `{"a":{"b":1},"a":{"c":2}}`, `@0 a.c=2`},
		{"duplicate null", `{"a":1,"a":null}`, `@0`},
		{"dotted and nested", `{"a.b":1,"a":{"b":2}}`, `@0 a.b=2`},
		{"big integer", `{"id":9223372036854775807}`, `@0 id=9223372036854775807`},
		{"too big for int64", `{"id":9223372036854775808}`, `@0 id=9223372036854776000`},
		{"one is one", `{"a":1.0,"b":1e0}`, `@0 a=1 b=1`},
		{"minus zero", `{"a":-0,"b":-0.0}`, `@0 a=0 b=0`},
		{"escapes", `{"a":"\u00b0C\n\ud83d\ude00\"\\\/"}`, `@0 a="°C\n😀\"\\/"`},
		{"lone surrogate", `{"a":"\ud83dx"}`, `@0 a="` + "\ufffd" + `x"`},
		{"overflow", `{"a":1e999}`, `malformed`},
		{"NaN", `{"a":NaN}`, `malformed`},
		{"nan", `{"a":nan}`, `malformed`},
		{"Infinity", `{"a":-Infinity}`, `malformed`},
		{"single quotes", `{'a':1}`, `malformed`},
		{"trailing comma", `{"a":1,}`, `malformed`},
		{"leading zero", `{"a":01}`, `malformed`},
		{"bare point", `{"a":1.}`, `malformed`},
		{"plus", `{"a":+1}`, `malformed`},
		{"hex", `{"a":0x10}`, `malformed`},
		{"cut", `{"a":1`, `malformed`},
		{"cut string", `{"a":"x`, `malformed`},
		{"two values", `{"a":1}{"a":2}`, `malformed`},
		{"empty", ``, `malformed`},
		{"not UTF-8", "{\"a\":\"\xb0C\"}", `malformed`},
		{"control character", "{\"a\":\"x\x01\\n\"}", `malformed`},
		{"BOM", "\ufeff{}", `malformed`},
		{"comment", `{/*x*/"a":1}`, `malformed`},
		{"too deep", deep, `limit`},
		{"too many", many, `limit`},
		{"long name", `{"` + strings.Repeat("x", 513) + `":1}`, `limit`},
		{"brackets", strings.Repeat("[", 1<<20), `limit`},
		{"too long", `"` + strings.Repeat("x", 1<<20) + `"`, `limit`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(t, mustNew(t, JSON, Options{}), []byte(c.in)); got != c.want {
				t.Errorf("%.80s\n got %s\nwant %s", c.in, got, c.want)
			}
		})
	}
}

func TestTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		field  TimeField
		in     string
		time   int64
		broken bool
	}{
		{"unix", TimeField{Field: "ts", Format: "unix"}, `{"ts":1700000000}`, 1700000000000, false},
		{"unix fraction", TimeField{Field: "ts", Format: "unix"}, `{"ts":1276020076.001}`, 1276020076001, false},
		{"unix text", TimeField{Field: "ts", Format: "unix"}, `{"ts":"1700000000"}`, 1700000000000, false},
		{"unix_ms", TimeField{Field: "ts", Format: "unix_ms"}, `{"ts":1700000000123}`, 1700000000123, false},
		{"nested", TimeField{Field: "meta.ts", Format: "unix_ms"}, `{"meta":{"ts":5}}`, 5, false},
		{"rfc3339", TimeField{Field: "ts", Format: "rfc3339"}, `{"ts":"2022-07-18T09:34:15.775023242+02:00"}`, 1658129655775, false},
		{"default text", TimeField{Field: "ts"}, `{"ts":"1970-01-01T00:00:01Z"}`, 1000, false},
		{"default number", TimeField{Field: "ts"}, `{"ts":1000}`, 1000, false},
		{"layout", TimeField{Field: "ts", Format: "2006-01-02 15:04:05"}, `{"ts":"2013-12-02 21:15:00"}`, 1386018900000, false},
		{"layout zone", TimeField{Field: "ts", Format: "2006-01-02 15:04:05", Zone: "Europe/Berlin"}, `{"ts":"2013-12-02 21:15:00"}`, 1386015300000, false},
		{"missing", TimeField{Field: "ts", Format: "unix"}, `{"a":1}`, 0, false},
		{"null", TimeField{Field: "ts", Format: "unix"}, `{"ts":null}`, 0, false},
		{"not a time", TimeField{Field: "ts", Format: "rfc3339"}, `{"ts":"yesterday"}`, 0, true},
		{"number for text", TimeField{Field: "ts", Format: "rfc3339"}, `{"ts":5}`, 0, true},
		{"far", TimeField{Field: "ts", Format: "unix"}, `{"ts":9e18}`, 0, true},
		{"far int", TimeField{Field: "ts", Format: "unix"}, `{"ts":9223372036854775807}`, 0, true},
		{"boolean", TimeField{Field: "ts", Format: "unix"}, `{"ts":true}`, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := mustNew(t, JSON, Options{Time: c.field})
			if err := d.Decode([]byte(c.in), func(r *Reading) error {
				if r.Time != c.time || r.TimeBad != c.broken {
					t.Errorf("time %d bad %v, want %d %v", r.Time, r.TimeBad, c.time, c.broken)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, f := range []TimeField{{Field: "t", Format: "ms"}, {Field: "t", Zone: "Mars/Olympus"}, {Format: "unix"}} {
		if _, err := New(JSON, Options{Time: f}); err == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
}

func TestEmitErrorAndReuse(t *testing.T) {
	d := mustNew(t, JSON, Options{})
	stop := errors.New("stop")
	n := 0
	err := d.Decode([]byte(`[{"a":1},{"a":2}]`), func(*Reading) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("err %v after %d readings", err, n)
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":1}`, `[{"a":1},{"b":[1,2,{"c":null}]}]`, `{"a":{"b":1},"a":{"c":2}}`, `{"a":"\ud83d\ude00\u00b0"}`,
		`{"a.b":1,"a":{"b":2}}`, `-0.0`, `1e999`, `"x`, `{"a":"\ud83d\ud83d\ude00"}`, `[[],{}]`, "[\"\\\x01\"]",
	} {
		f.Add([]byte(s))
	}
	d := mustNew(f, JSON, Options{MaxDepth: 64, MaxFields: 1 << 20, MaxReadings: 1 << 20, MaxName: 1 << 20})
	auto := mustNew(f, Auto, Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := auto.Decode(b, func(*Reading) error { return nil }); err != nil {
			t.Errorf("auto refuses %q: %v", b, err)
		}
		var got []map[string]any
		err := d.Decode(b, func(r *Reading) error {
			m := map[string]any{}
			for _, f := range r.Fields {
				if _, ok := m[f.Name]; ok {
					t.Errorf("%q twice", f.Name)
				}
				m[f.Name] = f.Value.Any()
			}
			got = append(got, m)
			return nil
		})
		if errors.Is(err, ErrLimit) {
			return
		}
		var v any
		werr := json.Unmarshal(b, &v)
		want, ok := oracle(v)
		if invalidUTF8(b) >= 0 || !ok {
			werr = errors.New("refused by us alone")
		}
		if (err != nil) != (werr != nil) {
			t.Fatalf("%q: err %v, encoding/json %v", b, err, werr)
		}
		if err != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d readings, want %d", b, len(got), len(want))
		}
		for i := range got {
			for k, v := range want[i] {
				// Where names of different objects meet, either is right here.
				if len(v) == 1 && got[i][k] != v[0] {
					t.Errorf("%q: %q is %v, want %v", b, k, got[i][k], v[0])
				}
			}
			if len(got[i]) != len(want[i]) {
				t.Errorf("%q: fields %v, want %v", b, got[i], want[i])
			}
		}
	})
}

// oracle flattens what encoding/json decoded; false for a mixed array.
func oracle(v any) ([]map[string][]any, bool) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		if ok {
			return nil, true
		}
		list = []any{v}
	} else if _, ok := list[0].(map[string]any); !ok {
		list = []any{v}
	} else {
		for _, v := range list {
			if _, ok := v.(map[string]any); !ok {
				return nil, false
			}
		}
	}
	var out []map[string][]any
	for _, v := range list {
		m := map[string][]any{}
		flatten(m, "", v)
		out = append(out, m)
	}
	return out, true
}

func flatten(m map[string][]any, name string, v any) {
	sub := func(k string) string {
		if name == "" {
			return k
		}
		return name + "." + k
	}
	switch v := v.(type) {
	case map[string]any:
		for k, v := range v {
			flatten(m, sub(k), v)
		}
	case []any:
		for i, v := range v {
			flatten(m, sub(fmt.Sprint(i)), v)
		}
	case nil:
	default:
		if name == "" {
			name = ValueField
		}
		m[name] = append(m[name], v)
	}
}
