package expr

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fields map[string]any

func (f fields) Lookup(name string) any { return f[name] }

func TestFilter(t *testing.T) {
	env := fields{"temperature": 21.5, "line": "a", "ok": true, "a.b": 3.0, "rx.0.rssi": -36.0, "odd name": 1.0, "n": 7.0, "txt": "21 C"}
	for _, c := range []struct {
		src  string
		want bool
	}{
		{"temperature < 200", true},
		{"temperature < 200 && line == 'a'", true},
		{`temperature < 20 or line == "a"`, true},
		{"temperature > 200", false},
		{"20 < temperature < 22", true},
		{"ok", true},
		{"!ok", false},
		{"not ok", false},
		{"a.b == 3", true},
		{`a["b"] == 3`, true},
		{"rx[0].rssi < -30", true},
		{`$env["odd name"] == 1`, true},
		{"n % 2 == 1", true},
		{"-7 % 4 == -3", true},
		{"n / 2 == 3.5", true},
		{"line in ['a', 'b']", true},
		{"line not in ['a', 'b']", false},
		{"n in [1, 7]", true},
		{"line matches '^[a-c]$'", true},
		{"txt contains 'C'", true},
		{"abs(-n) == 7 && max(1, n, 3) == 7 && sqrt(16) == 4", true},
		{"len(line) == 1 && upper(line) == 'A'", true},
		{"number('2.5') == 2.5", true},
		{"n > 5 ? ok : false", true},
		// A missing field.
		{"gone < 200", false},
		{"gone > 200", false},
		{"gone != 'a'", false},
		{"!gone", false},
		{"!(gone > 5)", false},
		{"gone > 1 || n > 1", false},
		{"n > 1 || gone > 1", true},
		{"gone == nil", true},
		{"gone != nil", false},
		{"nil != n", true},
		{"(gone ?? 5) == 5", true},
		{"(gone.x ?? n) == 7", true},
		{"a?.b == 3", true},
	} {
		f, err := CompileFilter(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		for range 2 { // twice: nothing is kept
			if got, err := f.Match(env); got != c.want || err != nil {
				t.Errorf("%s: %v, %v, want %v", c.src, got, err, c.want)
			}
		}
	}
}

func TestFilterTypeErrors(t *testing.T) {
	env := fields{"txt": "21 C", "n": 7.0}
	for _, src := range []string{"txt < 200", "txt + 1 > 3", "n", "n && true", "n contains 'x'", "abs(txt) > 1", "number(txt) > 3"} {
		f, err := CompileFilter(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		got, err := f.Match(env)
		if e := (*Error)(nil); got || !errors.As(err, &e) {
			t.Errorf("%s: %v, %v, want an *Error", src, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		src          string
		line, column int
		message      string // part of it
	}{
		{"temperature <", 1, 13, "unexpected end"},
		{"", 1, 1, "unexpected"},
		{"temperature = 5", 1, 13, "use =="},
		{"a &&\n  b <", 2, 5, "unexpected end"},
		{"a && (b", 1, 7, ""},
		{"foo(1)", 1, 1, "unknown function foo"},
		{"a || now() > 3", 1, 6, "unknown function now"},
		{"all(a, # > 1)", 1, 1, "not available"},
		{"sum([1]) > 1", 1, 1, "not available"},
		{"a in 1..1000000000", 1, 7, "operator .."},
		{"a ** 2 > 1", 1, 3, "x*x"},
		{"let x = 1; x > 0", 1, 5, ""},
		{"{'a': 1}.a == 1", 1, 10, ""},
		{"a.b() > 1", 1, 3, "only functions"},
		{"a[b] > 1", 1, 2, "only names"},
		{"a matches b", 1, 11, "in quotes"},
		{"1 + 2", 1, 1, "true or false"},
		{"'a'", 1, 1, "true or false"},
		{"abs() > 1", 1, 1, "one argument"},
		{"1 < 'a'", 1, 3, ""},
		{"$env == 1", 1, 1, "not a field"},
		{"a > 'ü' &&& b", 1, 11, ""},
		{"get field(1)", 1, 5, ""},
		{"repeat('x', 1000000000) == a", 1, 1, "unknown function"},
		{strings.Repeat("(", 4000), 1, 4001, ""},
		{strings.Repeat("a && ", 900) + "a", 1, 1, "longer"},
		{strings.Repeat("a+", 600) + "a > 1", 1, 1, ""},
	} {
		_, err := CompileFilter(c.src)
		e := (*Error)(nil)
		if !errors.As(err, &e) {
			t.Errorf("%.40s: error %v is not an *Error", c.src, err)
			continue
		}
		if len(c.src) < 100 && (e.Line != c.line || e.Column != c.column) || !strings.Contains(e.Message, c.message) {
			t.Errorf("%.40s: %d:%d %s; want %d:%d …%s…", c.src, e.Line, e.Column, e.Message, c.line, c.column, c.message)
		}
	}
}

func TestScalar(t *testing.T) {
	env := fields{"temperature": 21.5, "line": "a", "ok": true, "a.b": 3.0}
	for _, c := range []struct {
		src  string
		want any
	}{
		{"temperature", 21.5},
		{"temperature * 2", 43.0},
		{"temperature * 1.8 + 32", 70.7},
		{"line", "a"},
		{"ok", true},
		{"a.b", 3.0},
		{"gone", nil},
		{"gone * 2", nil},
		{"gone ?? 1", 1.0},
		{"1/0 > 5", true},
		{"7", 7.0},
	} {
		s, err := CompileScalar(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if got, err := s.Eval(env); got != c.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", c.src, got, err, c.want)
		}
	}
	if _, err := CompileScalar("[1,2]"); err == nil {
		t.Error("an array is accepted")
	}
}

func TestParseCall(t *testing.T) {
	for _, c := range []struct {
		src, want string
	}{
		{"count()", "count"},
		{" count ( ) ", "count"},
		{"mean(temperature)", "mean|temperature"},
		{"quantile(a.b * max(1, 2), 0.95)", "quantile|a.b * max(1, 2)| 0.95"},
		{`sum(a == ")," ? 1 : 0)`, `sum|a == ")," ? 1 : 0`},
		{"mean", "1:5 an aggregate"},
		{"mean(temperature", "1:17 missing )"},
		{"mean(t) * 2", "1:9 nothing may stand behind"},
		{"1 + mean(t)", "1:1 an aggregate"},
		{"mean(a,)", "1:8 empty argument"},
		{"mean(a)\n+1", "2:1 nothing may"},
	} {
		call, err := ParseCall(c.src)
		var got string
		if err != nil {
			e := err.(*Error)
			got = string(rune('0'+e.Line)) + ":" + itoa(e.Column) + " " + e.Message
		} else {
			got = call.Name
			for _, a := range call.Args {
				got += "|" + a.Source
			}
		}
		if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%q: %s, want %s", c.src, got, c.want)
		}
	}
	call, err := ParseCall("mean(a,\n b <)")
	if err != nil {
		t.Fatal(err)
	}
	_, err = call.Scalar(1)
	if e := err.(*Error); e.Line != 2 || e.Column != 4 {
		t.Errorf("position %d:%d of %v", e.Line, e.Column, err)
	}
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + itoa(n%10)
	}
	return string(rune('0' + n))
}
