package payload

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

func TestCBOR(t *testing.T) {
	enc := func(v any) []byte {
		t.Helper()
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	raw := func(s string) []byte {
		t.Helper()
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"map", enc(map[string]any{"temperature": 21.5, "unit": "C", "ok": true}), `@0 ok=true temperature=21.5 unit="C"`},
		{"nested", enc(map[string]any{"b": map[string]any{"c": 1}, "a": []any{1, "x"}}), `@0 a.0=1 a.1="x" b.c=1`},
		{"integer keys", enc(map[int]any{1: 20, -2: "x"}), `@0 -2="x" 1=20`},
		{"readings", enc([]map[string]any{{"a": 1}, {"a": 2}}), "@0 a=1\n@0 a=2"},
		{"number", enc(23.5), "@0 value=23.5"},
		{"array of numbers", enc([]any{1, 2}), "@0 0=1 1=2"},
		{"null and undefined", raw("a3 6161 f6 6162 f7 6163 01"), "@0 c=1"},
		{"bytes", enc(map[string]any{"id": []byte{0xde, 0xad}}), `@0 id="3q0"`},
		{"half float", raw("a1 6161 f93e00"), "@0 a=1.5"},
		{"single float", raw("a1 6161 fa3fc00000"), "@0 a=1.5"},
		{"large unsigned", raw("a1 6161 1bffffffffffffffff"), "@0 a=18446744073709552000"},
		{"negative", raw("a1 6161 3903e7"), "@0 a=-1000"},
		{"bignum", raw("a1 6161 c249010000000000000000"), "@0 a=18446744073709552000"},
		{"tagged time", enc(map[string]any{"t": cbor.Tag{Number: 1, Content: int64(5)}}), `@0 t="1970-01-01T00:00:05Z"`},
		{"unknown tag", enc(map[string]any{"t": cbor.Tag{Number: 4242, Content: int64(5)}}), `@0 t=5`},
		{"indefinite lengths", raw("bf 6161 9f 01 02 ff 6162 7f 6178 6179 ff ff"), `@0 a.0=1 a.1=2 b="xy"`},
		{"duplicate keys, last wins", raw("a2 6161 01 6161 02"), "@0 a=2"},
		{"text key before integer key", raw("a2 01 01 6131 02"), "@0 1=2"},
		{"empty array", raw("80"), ""},

		{"NaN", raw("a1 6161 f97e00"), "malformed"},
		{"infinity", raw("a1 6161 f97c00"), "malformed"},
		{"bytes behind", raw("a1 6161 01 00"), "malformed"},
		{"cut", raw("a1 6161"), "malformed"},
		{"empty", nil, "malformed"},
		{"not UTF-8", raw("a1 6161 61ff"), "malformed"},
		{"map as key", raw("a1 a0 01"), "malformed"},
		{"float as key", raw("a1 f93e00 01"), "malformed"},
		{"array of a map and a number", raw("82 a0 01"), "malformed"},
		{"break alone", raw("ff"), "malformed"},
		{"huge array head", raw("9b7fffffffffffffff"), "malformed"},
		{"huge text head", raw("7b7fffffffffffffff"), "malformed"},
		{"deep", append(bytes.Repeat([]byte{0x81}, 100), 1), "malformed"},
		{"a million small items", append([]byte{0x9a, 0, 0x0f, 0x42, 0x40}, bytes.Repeat([]byte{0x80}, 1_000_000)...), "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(t, mustNew(t, CBOR, Options{}), c.in); got != c.want {
				t.Errorf("%.60x\n got %s\nwant %s", c.in, got, c.want)
			}
		})
	}
	t.Run("time", func(t *testing.T) {
		d := mustNew(t, CBOR, Options{Time: TimeField{Field: "ts", Format: "unix"}})
		if got, want := show(t, d, enc(map[string]any{"ts": 1700000000, "v": 1})), "@1700000000000 ts=1700000000 v=1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		d = mustNew(t, CBOR, Options{Time: TimeField{Field: "ts", Format: "rfc3339"}})
		if got := show(t, d, enc(map[string]any{"ts": cbor.Tag{Number: 0, Content: "2023-11-14T22:13:20Z"}})); !strings.HasPrefix(got, "@1700000000000 ") {
			t.Errorf("tagged time: %s", got)
		}
	})
}

func FuzzCBOR(f *testing.F) {
	for _, s := range []string{"a16161f93e00", "bf61619f0102ff61627f61786179ffff", "82a161610182", "a1c24100f6", "9bffffffffffffffff"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	d := mustNew(f, CBOR, Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second string
		for _, out := range []*string{&first, &second} {
			_ = d.Decode(b, func(r *Reading) error {
				checkReading(t, r)
				for _, f := range r.Fields {
					*out += f.Name + "=" + string(f.Value.AppendJSON(nil)) + " "
				}
				return nil
			})
		}
		if first != second {
			t.Errorf("%x decodes to %s and to %s", b, first, second)
		}
	})
}
