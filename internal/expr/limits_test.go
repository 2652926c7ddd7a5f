package expr

import (
	"strings"
	"testing"
)

// Sources as deep and long as they may be compile or are refused, and none
// runs out of stack.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      string // of the error
	}{
		{"parentheses", strings.Repeat("(", 127) + "1" + strings.Repeat(")", 127), ""},
		{"more parentheses", strings.Repeat("(", 128) + "1" + strings.Repeat(")", 128), "nested"},
		{"open parentheses", strings.Repeat("(", MaxSource), "nested"},
		{"nots", strings.Repeat("!", MaxSource-1) + "a", "nested"},
		{"signs", strings.Repeat("-", MaxSource-1) + "a", "nested"},
		{"lists", strings.Repeat("[", MaxSource), "nested"},
		{"members", "a" + strings.Repeat("[a", 2000), "nested"},
		{"calls", strings.Repeat("abs(", 1000), "nested"},
		{"branches", strings.Repeat("a?a:", 1000) + "a", "nested"},
		{"maps", strings.Repeat("{", MaxSource), "unexpected end"},
		{"sum", "1" + strings.Repeat("+1", 499), ""},
		{"longer sum", "1" + strings.Repeat("+1", 500), "too long"},
		{"chain", "1" + strings.Repeat("<1", 900), ""},
		{"longer chain", "1" + strings.Repeat("<1", 1000), "too long"},
		{"list", "a in [" + strings.Repeat("1,", 990) + "]", ""},
		{"longer list", "a in [" + strings.Repeat("1,", 1000) + "]", "too long"},
		{"long name", "a" + strings.Repeat(".a", 1000), "too long"},
		{"source", strings.Repeat(" ", MaxSource), "unexpected end"},
		{"longer source", strings.Repeat(" ", MaxSource+1), "longer than"},
	} {
		s, err := CompileScalar(c.src)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %.80v, want …%s…", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if _, err := s.Eval(fields{"a": 1.0}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	env := fields{"temperature": 21.5, "humidity": 40.0, "line": "a"}
	for _, src := range []string{
		"temperature > -40 && temperature < 200 && humidity <= 100",
		"abs(temperature * 1.8 + 32 - max(humidity, 1)) % 7 < 8 ? !(humidity > 50) : false",
		"(gone ?? temperature) < 200 || gone == nil",
		"0 < temperature < 200 && line in ['b', 'a'] && line not contains 'x' && len(line) == 1",
		"gone > 1",
	} {
		f, err := CompileFilter(src)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = f.Match(env) }); n != 0 {
			t.Errorf("%s: %v allocations", src, n)
		}
	}
}

// The stack holds nothing of a payload once it is evaluated.
func TestStackIsCleared(t *testing.T) {
	s, err := CompileScalar("a + 'x' == 'y' || gone > 1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Eval(fields{"a": "payload"}); err != nil {
		t.Fatal(err)
	}
	for i, v := range s.p.stack {
		if v != (value{}) {
			t.Errorf("stack[%d] is %v", i, v)
		}
	}
}
