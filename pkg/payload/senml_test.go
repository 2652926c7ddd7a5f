package payload

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// Packs written from the fields that RFC 8428 defines, section by section.
func TestSenML(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"one value", `[{"n":"urn:dev:ow:1","u":"Cel","v":23.1}]`, `@0 urn:dev:ow:1=23.1 urn:dev:ow:1.unit="Cel"`},
		{"names of one base and time are one reading (§4.1)",
			`[{"bn":"urn:dev:1:","bt":1700000000,"n":"t","u":"Cel","v":20},{"n":"h","u":"%RH","v":60}]`,
			`@1700000000000 bn="urn:dev:1:" t=20 t.unit="Cel" h=60 h.unit="%RH"`},
		{"base time and time are added (§4.5.3)",
			`[{"bn":"urn:dev:1:","bt":1700000000.5,"n":"t","v":1,"t":-5},{"n":"t","v":2},{"n":"h","v":3}]`,
			"@1699999995500 bn=\"urn:dev:1:\" t=1\n@1700000000500 bn=\"urn:dev:1:\" t=2 h=3"},
		{"times below 2^28 are relative to now", `[{"n":"t","v":1,"t":-5},{"n":"t","v":2,"t":0}]`, "@0-5000 t=1\n@0 t=2"},
		{"base unit, overridden (§4.2)", `[{"bn":"a","bu":"A","n":"x","v":1},{"n":"y","u":"V","v":2}]`,
			`@0 bn="a" x=1 x.unit="A" y=2 y.unit="V"`},
		{"base value is added", `[{"bn":"a:","bv":20,"n":"x","v":1.5},{"n":"y","v":-1},{"n":"z"}]`, `@0 bn="a:" x=21.5 y=19 z=20`},
		{"sum and base sum", `[{"bn":"a:","bs":100,"n":"e","s":5},{"n":"f","v":1,"s":7}]`, `@0 bn="a:" e.sum=105 f=1 f.sum=107`},
		{"string, boolean, data", `[{"bn":"a:","n":"s","vs":"on"},{"n":"b","vb":true},{"n":"d","vd":"aGk"}]`, `@0 bn="a:" s="on" b=true d="aGk"`},
		{"no name: value", `[{"bn":"urn:dev:1","bt":1700000000,"v":1},{"v":2,"t":10}]`,
			"@1700000000000 bn=\"urn:dev:1\" value=1\n@1700000010000 bn=\"urn:dev:1\" value=2"},
		{"a name again begins a reading", `[{"bn":"a:","n":"x","v":1},{"n":"x","v":2}]`, "@0 bn=\"a:\" x=1\n@0 bn=\"a:\" x=2"},
		{"base fields alone", `[{"bn":"a:","bt":1700000000},{"n":"x","v":1}]`, `@1700000000000 bn="a:" x=1`},
		{"base name changes, base time stays", `[{"bn":"a/","bt":1700000000,"n":"x","v":1},{"bn":"b/","n":"x","v":2}]`,
			"@1700000000000 bn=\"a/\" x=1\n@1700000000000 bn=\"b/\" x=2"},
		{"version 10 (§4.4)", `[{"bver":10,"n":"x","v":1}]`, `@0 x=1`},
		{"unknown fields are passed over", `[{"n":"x","v":1,"foo":3}]`, `@0 x=1`},
		{"empty pack", `[]`, ``},

		{"newer version", `[{"bver":11,"n":"x","v":1}]`, `malformed`},
		{"must understand (§4.4)", `[{"n":"x","v":1,"foo_":3}]`, `malformed`},
		{"two values", `[{"n":"x","v":1,"vs":"a"}]`, `malformed`},
		{"no value", `[{"n":"x","u":"V"}]`, `malformed`},
		{"no name at all", `[{"v":1}]`, `malformed`},
		{"bad characters in a name (§4.5.1)", `[{"n":"x y","v":1}]`, `malformed`},
		{"bad first character", `[{"n":"-x","v":1}]`, `malformed`},
		{"value of the wrong type", `[{"n":"x","v":"1"}]`, `malformed`},
		{"string of the wrong type", `[{"n":"x","vs":1}]`, `malformed`},
		{"not an array", `{"n":"x","v":1}`, `malformed`},
		{"array of numbers", `[1,2]`, `malformed`},
		{"overflow", `[{"bn":"a:","bv":1e308,"n":"x","v":1e308}]`, `malformed`},
		{"impossible time", `[{"n":"x","v":1,"t":1e300}]`, `malformed`},
		{"not JSON", `[{"n":"x","v":1}`, `malformed`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(t, mustNew(t, SenML, Options{}), []byte(c.in)); got != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
			}
			if c.want == "malformed" {
				return
			}
			// The same pack in CBOR, with the labels of §6.
			var pack []map[string]any
			if err := json.Unmarshal([]byte(c.in), &pack); err != nil {
				t.Fatal(err)
			}
			b, err := cbor.Marshal(labelled(pack))
			if err != nil {
				t.Fatal(err)
			}
			if got := show(t, mustNew(t, SenML, Options{}), b); got != c.want {
				t.Errorf("CBOR %x\n got %s\nwant %s", b, got, c.want)
			}
			if got := show(t, mustNew(t, Auto, Options{}), b); len(pack) > 0 && !strings.Contains(c.in, "foo") && got != c.want {
				t.Errorf("auto, CBOR %x\n got %s\nwant %s", b, got, c.want)
			}
		})
	}
}

func labelled(pack []map[string]any) []map[any]any {
	out := []map[any]any{}
	for _, rec := range pack {
		m := map[any]any{}
		for k, v := range rec {
			var key any = k
			for label, name := range senmlLabels {
				if name == k {
					key = label
				}
			}
			m[key] = v
		}
		out = append(out, m)
	}
	return out
}

// TestSenMLExamples checks against resolved packs that are kept beside the
// repository, not in it.
func TestSenMLExamples(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "data", "payload-shapes", "senml")
	names, err := filepath.Glob(filepath.Join(dir, "ex?.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Logf("%s is absent: its examples are not checked", dir)
		return
	}
	for _, name := range names {
		in, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var want []struct {
			N, U string
			T, V float64
		}
		resolved, err := os.ReadFile(strings.TrimSuffix(name, ".json") + ".resolved.json")
		if err == nil {
			err = json.Unmarshal(resolved, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := mustNew(t, SenML, Options{}).Decode(in, func(r *Reading) error {
			bn, _ := r.Fields.Get("bn").Text()
			for _, f := range r.Fields {
				v, ok := f.Value.Number()
				if !ok {
					continue
				}
				u, _ := r.Fields.Get(f.Name + ".unit").Text()
				full := bn
				if f.Name != ValueField {
					full += f.Name
				}
				got = append(got, fmt.Sprintf("%s %s %d %v", full, u, r.Time, v))
			}
			return nil
		}); err != nil {
			t.Fatal(name, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", name, len(got), len(want))
		}
		for i, w := range want {
			ms := int64(math.Round(w.T * 1000))
			if strings.HasPrefix(got[i], w.N+" ") && strings.Contains(got[i], fmt.Sprintf(" %d ", int64(0))) {
				ms = 0 // relative to now, which the example puts somewhere
			}
			if s := fmt.Sprintf("%s %s %d %v", w.N, w.U, ms, w.V); got[i] != s {
				t.Errorf("%s: record %d is %s, want %s", name, i, got[i], s)
			}
		}
	}
}

func FuzzSenML(f *testing.F) {
	f.Add([]byte(`[{"bn":"a:","bt":1700000000,"n":"t","v":1,"t":-5},{"n":"h","vs":"x","s":3}]`))
	f.Add([]byte{0x81, 0xa2, 0x00, 0x61, 'x', 0x02, 0x01})
	d := mustNew(f, SenML, Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = d.Decode(b, func(r *Reading) error {
			if r.Time != 0 && r.Shift != 0 {
				t.Errorf("%q: time %d and shift %d", b, r.Time, r.Shift)
			}
			checkReading(t, r)
			return nil
		})
	})
}

// checkReading holds a reading to what every decoder promises.
func checkReading(t *testing.T, r *Reading) {
	t.Helper()
	seen := map[string]bool{}
	for _, f := range r.Fields {
		if seen[f.Name] || f.Value.Kind() == Missing {
			t.Errorf("field %q twice or missing", f.Name)
		}
		seen[f.Name] = true
		if v, ok := f.Value.Number(); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("field %q is %v", f.Name, v)
		}
		if !json.Valid(f.Value.AppendJSON(nil)) {
			t.Errorf("field %q: bad JSON %s", f.Name, f.Value.AppendJSON(nil))
		}
	}
}
