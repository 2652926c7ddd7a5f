package expr

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
)

var seeds = []string{
	"a < 1", "a.b[0] ?? 'x'", "1 < a < 5", "count(a)", "(((", "a ? b : c", "\xff", "a matches '('", "a ?? b ?? nil == nil",
	"!c && not (a > 1 or b in ['x', `y`, 2])", "max(-a, 0x1f, 1_000.5e-3) % 3", `$env["odd name"] != "\u{e4}\n"`,
	"b + 'x' not contains 'xx' // end", "/* */ {a: [1]}.b", "nil ?? - +a", "a ?. b?.[\"c\"]", "b matches '(a{1000}){1000}'",
}

// FuzzCompile: no source panics; what compiles is a program whose jumps lead
// forward, thus runs no instruction twice, and evaluates to a value or an
// *Error with a place.
func FuzzCompile(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	env := fields{"a": 1.0, "b": "x", "c": true}
	f.Fuzz(func(t *testing.T, src string) {
		flt, err := CompileFilter(src)
		checkPlace(t, src, err)
		if err == nil {
			_, err = flt.Match(env)
			checkPlace(t, src, err)
		}
		sc, err := CompileScalar(src)
		checkPlace(t, src, err)
		if err != nil {
			return
		}
		_, err = sc.Eval(env)
		checkPlace(t, src, err)
		for i, in := range sc.p.code {
			switch in.do {
			case doAnd, doOr, doElse, doUnless, doJump, doChain:
				if int(in.n) <= i || int(in.n) > len(sc.p.code) {
					t.Errorf("%q: the jump at %d leads to %d", src, i, in.n)
				}
			}
		}
		if n := len(sc.p.code); n > 2*maxNodes {
			t.Errorf("%q: %d instructions", src, n)
		}
	})
}

func checkPlace(t *testing.T, src string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if e := (*Error)(nil); !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Message == "" {
		t.Errorf("%q: %#v", src, err)
	}
}

// FuzzCanonical: a tree, printed with all its parentheses and parsed again,
// prints the same and gives the same.
func FuzzCanonical(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	envs := []fields{
		{"a": 1.0, "b": "x", "c": true},
		{"a": "x", "b": 0.1, "a.b.0": -7.5, "odd name": "ä\n"},
		{"a": false, "b": false, "c": math.Inf(1), "a.b": 3.0},
		{},
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := compile(src)
		if err != nil {
			return
		}
		tree, _ := parse(src)
		text := canonical(tree)
		again, fault := parse(text)
		if fault != nil && (strings.HasPrefix(fault.message, "nested") || strings.HasPrefix(fault.message, "too long")) {
			return
		}
		if fault != nil {
			t.Fatalf("%q is %q: %s", src, text, fault.message)
		}
		if got := canonical(again); got != text {
			t.Fatalf("%q is %q, then %q", src, text, got)
		}
		var c checker
		c.node(again)
		q := emit(again, c.names)
		for _, env := range envs {
			v, ok, fault := p.run(env)
			w, ok2, fault2 := q.run(env)
			if v.num != v.num && w.num != w.num {
				v.num, w.num = 0, 0
			}
			if v != w || ok != ok2 || (fault == nil) != (fault2 == nil) {
				t.Errorf("%q for %v: %v %v %v; as %q: %v %v %v", src, env, v, ok, fault, text, w, ok2, fault2)
			}
		}
	})
}

func canonical(n *node) string {
	part := func(i int) string { return operand(n.kids[i]) }
	switch n.op {
	case opNil, opTrue, opFalse:
		return n.text
	case opNumber:
		return strconv.FormatFloat(n.num, 'g', -1, 64)
	case opText:
		return strconv.Quote(n.text)
	case opName:
		return "$env[" + strconv.Quote(n.text) + "]"
	case opNot, opNegate, opPlus:
		return n.op.String() + part(0)
	case opCond:
		return part(0) + " ? " + part(1) + " : " + part(2)
	case opList:
		return "[" + list(n.kids) + "]"
	case opCall:
		return n.function.name + "(" + list(n.kids) + ")"
	case opChain:
		out := part(0)
		for i, step := range n.steps {
			out += " " + step.String() + " " + part(i+1)
		}
		return out
	}
	return part(0) + " " + n.op.String() + " " + part(1)
}

func operand(n *node) string {
	if n.op < opNot || n.op == opCall {
		return canonical(n)
	}
	return "(" + canonical(n) + ")"
}

func list(kids []*node) string {
	var out []string
	for _, k := range kids {
		out = append(out, canonical(k))
	}
	return strings.Join(out, ", ")
}
