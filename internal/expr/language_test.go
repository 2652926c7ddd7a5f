package expr

import (
	"math"
	"strings"
	"testing"
)

// What binds how, by trees printed with all parentheses.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"1 + 2 * 3 - 4", "(1 + (2 * 3)) - 4"},
		{"1 - 2 - 3", "(1 - 2) - 3"},
		{"true || false && true", "true || (false && true)"},
		{"!true == false", "(!true) == false"},
		{"!1 * 2", "!(1 * 2)"},
		{"-1 ?? 2", "-(1 ?? 2)"},
		{"-1 * 2", "(-1) * 2"},
		{"1 < 2 == true", "(1 < 2) == true"},
		{"1 < 2 <= 3 < 4 && true", "(1 < 2 <= 3 < 4) && true"},
		{"1 + 2 not in [3, 4,]", "!((1 + 2) in [3, 4])"},
		{"true ? 1 : false ? 2 : 3", "true ? 1 : (false ? 2 : 3)"},
		{"not 'a' not matches 'b' or true", "(!((!\"a\") matches \"b\")) || true"},
		{"nil ?? nil ?? 1", "(nil ?? nil) ?? 1"},
		{".5 + 0x1F + 0o17 + 0b11 + 1_000.5e-1", "(((0.5 + 31) + 15) + 3) + 100.05"},
		{"true // or\n/* and */ and false", "true && false"},
	} {
		tree, f := parse(c.src)
		if f != nil {
			t.Errorf("%s: %s", c.src, f.message)
		} else if got := canonical(tree); got != c.want {
			t.Errorf("%s: %s, want %s", c.src, got, c.want)
		}
	}
}

func TestLiterals(t *testing.T) {
	for _, c := range []struct {
		src  string
		want any
	}{
		{`'it\'s'`, "it's"},
		{`"a\n\t\\\x41\101\u00e4\u{1F600}\U0001F600"`, "a\n\t\\AAä😀😀"},
		{"`a\\n``b`", "a\\n`b"},
		{"'\xff'", "\uFFFD"},
		{"18446744073709551615", 18446744073709551615.0},
		{"100000000000000000000", 1e20},
		{"0xffffffffffffffff", 18446744073709551615.0},
		{"1.", 1.0},
		{"'a' + 'b' < 'b'", true},
		{"1 == 1.0", true},
		{"(nil ?? 'x') == 1", nil}, // refused
		{"n == 'x'", false},
		{"2 in [1, 'a', true]", false},
		{"n in []", false},
		{"n in [nil, 2]", true},
		{"a.not.in == 1 ? 'member' : ''", "member"},
		{"a?.not?.['in']", 1.0},
		{"(a).not[\"in\"]", 1.0},
		{"n > 1 ? nil : n", nil},
		{"gone ?? away ?? n", 2.0},
		{"(gone ?? away) == nil", true},
		{"gone ?? away", nil},
		{"!(n > 5 && gone)", true}, // && stops early
		{"n > 5 && gone", false},
		{"5 < n < gone", false},
		{"number(true) + number(' 1e1 ')", 11.0},
		{"len('ä') + len(trim(' x '))", 2.0},
		{"7 % -4", 3.0},
		{"-7.5 % 2", -1.5},
		{"min(3, 1, 2) - max(3, 1, 2)", -2.0},
		{"round(2.5) + round(-2.5) + trunc(-1.5) + ceil(1.2) + floor(1.8)", 2.0},
		{"lower('Ä') + upper('ä')", "äÄ"},
		{"'abc' startsWith 'ab' && 'abc' endsWith 'bc' && 'abc' not contains 'x'", true},
	} {
		s, err := CompileScalar(c.src)
		if err != nil {
			if c.want != nil {
				t.Errorf("%s: %v", c.src, err)
			}
			continue
		}
		got, err := s.Eval(fields{"n": 2.0, "a.not.in": 1.0})
		if got != c.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", c.src, got, err, c.want)
		}
	}
}

// Where more errors stand, and what they say.
func TestErrorPlaces(t *testing.T) {
	for _, c := range []struct {
		src    string
		column int
		want   string // part of the message
	}{
		{"a > 'x", 5, "closing '"},
		{"a > `x", 5, "closing `"},
		{`a == '\q'`, 7, "escape"},
		{`a == '\u{110000}'`, 7, "escape"},
		{"a /* b", 3, "*/ is missing"},
		{"a > 1x", 5, "not a number"},
		{"a > 0x", 5, "not a number"},
		{"a > 1e400", 5, "too large"},
		{"a ~ 1", 3, "unexpected character"},
		{"a b", 3, `unexpected "b"`},
		{"a.5 > 1", 2, `unexpected ".5"`},
		{"a. > 1", 4, "a name is wanted"},
		{"a.", 2, "unexpected end"},
		{"a[1.5] > 1", 2, "only names"},
		{"a[1:2] == ''", 2, "parts of text"},
		{"'x'.a", 5, "only names"},
		{"a & b", 3, "use &&"},
		{"a | b", 3, "use ||"},
		{"a; b", 2, "one expression"},
		{"if a { 1 } else { 2 }", 1, "condition ? a : b"},
		{"{'a': 1}", 1, "maps"},
		{"a in b", 6, "in wants a list"},
		{"a not b", 7, `unexpected "b"`},
		{"a ?? 1 > 5", 8, "do not mix"},
		{"a ? b", 5, "unexpected end"},
		{"[1] == a", 1, "list"},
		{"a matches '('", 11, "pattern"},
		{"a matches '(x{1000}){1000}'", 11, "pattern"},
		{"a matches '" + strings.Repeat("x{1000}", 11) + "'", 11, "repetitions"},
		{"upper(1) == a", 7, "wants text"},
		{"1 in ['a']", 3, "never in"},
		{"!1", 1, "true or false"},
		{"1 ? a : b", 1, "condition"},
		{"1 && a", 3, "conditions"},
		{"nil < 1", 5, "nil"},
		{"'a' * 2 > 1", 5, "two numbers"},
		{"min(" + strings.Repeat("1, ", 16) + "1) > 1", 1, "1 to 16"},
		{"ä == 'ö' && foo(1)", 13, "unknown function"},
	} {
		_, err := CompileFilter(c.src)
		e, ok := err.(*Error)
		if !ok || e.Line != 1 || e.Column != c.column || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v, want column %d …%s…", c.src, err, c.column, c.want)
		}
	}
}

// Errors of an evaluation stand where the operator stands.
func TestFaultPlaces(t *testing.T) {
	env := fields{"n": 7.0, "txt": "21 C", "ok": true, "odd": 7, "long": strings.Repeat("x", maxText)}
	for _, c := range []struct {
		src    string
		column int
		want   string
	}{
		{"n > 1 && txt < 200", 14, `not the text "21 C" and the number 200`},
		{"n && ok", 3, "&& wants true or false, not the number 7"},
		{"ok && n", 4, "&& wants true or false, not the number 7"},
		{"(txt ? 1 : 2) > 1", 2, "before ?"},
		{"1 < n < txt", 7, "< wants"},
		{"-txt > 1", 1, "- wants a number"},
		{"n matches 'x'", 3, "matches wants a text"},
		{"ok || true ? abs(txt) > 1 : false", 14, "abs wants a number"},
		{"number(txt) > 1", 1, "number:"},
		{"odd > 1", 1, "field odd"},
		{"long + txt == ''", 6, "more than 65536"},
		{"n", 1, "this is the number 7"},
		{"ok ? nil : ok", 1, "this is nil"},
	} {
		f, err := CompileFilter(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		_, err = f.Match(env)
		e, ok := err.(*Error)
		if !ok || e.Column != c.column || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v, want column %d …%s…", c.src, err, c.column, c.want)
		}
	}
}

// A product is rounded before it is added: with a fused multiply-add, which
// arm64 has, the difference would be 2^-54.
func TestProductsAreRounded(t *testing.T) {
	x := 1 + math.Ldexp(1, -27)
	s, err := CompileScalar("x * x - y")
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Eval(fields{"x": x, "y": 1 + math.Ldexp(1, -26)})
	if got != 0.0 || err != nil {
		t.Errorf("%v, %v, want 0", got, err)
	}
	s, err = CompileScalar("x / x")
	if err != nil {
		t.Fatal(err)
	}
	nan, _ := s.Eval(fields{"x": 0.0})
	if bits := math.Float64bits(nan.(float64)); bits != math.Float64bits(math.NaN()) {
		t.Errorf("0/0 is %x", bits)
	}
}
