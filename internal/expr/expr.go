// Package expr compiles the expressions of filters and computations
// ("temperature < 200 && line == 'a'") and evaluates them.
//
// The language, from what binds loosest to what binds tightest:
//
//		c ? a : b
//		or ||
//		and &&
//		== != < <= > >= in matches contains startsWith endsWith, also not in …
//		+ -
//		not !
//		* / %
//		- + as signs
//		??
//		a.b  a["b"]  a[0]  f(x)  (…)
//
//	  - Values are numbers (12, 1_000, 1.5e3, 0xff), texts ('a', "a", or `a`
//	    without escapes), true, false and nil. Comments are // and /* */.
//	  - Names are fields: a.b, a["b"] and a[0] name the flattened fields "a.b"
//	    and "a.0"; $env["odd name"] names any.
//	  - Every number is a float64, also 200 and len(x), so that 32-bit and
//	    64-bit hubs compute alike. Each operation is rounded for itself. % is the
//	    remainder of the truncated division. There is nothing whose last bits
//	    depend on the processor: no powers, no logarithms.
//	  - + joins texts, up to 64 KiB. < compares numbers, or texts by their bytes.
//	    1 < a < 5 is 1 < a && a < 5. == of different types is false.
//	  - x in [1, 'a'] compares with each; matches wants a regular expression (RE2)
//	    in quotes, which matches anywhere in the text.
//	  - Functions: abs ceil floor round trunc sqrt min max number len lower upper
//	    trim.
//	  - Evaluating a missing field ends the evaluation: a filter is false, a
//	    scalar has no value. "x ?? 0", "x == nil" and "x != nil" may look at it,
//	    as may each but the last of "x ?? y ?? 0". && and || stop early, as usual:
//	    in "a > 1 || b > 1" b may be missing if a is 2.
//	  - There are no loops, closures, ranges, maps, slices or variables, so the
//	    cost of an evaluation is bounded by the length of its source, times that
//	    of the texts it reads.
//
// A source is parsed to a tree (parse.go), checked (check.go) and flattened to
// a program for a small stack machine (emit.go, run.go). It is pure and keeps
// no state between evaluations; an evaluation without texts to make does not
// allocate.
package expr

import (
	"fmt"
	"math"
	"slices"
)

// Limits of an expression.
const (
	MaxSource = 4096 // bytes
	maxNodes  = 1000 // operators, names and values
	maxDepth  = 128  // parentheses, signs, branches in each other
)

// Error says what is wrong in an expression, and where.
type Error struct {
	Source  string
	Line    int // from 1
	Column  int // in characters, from 1
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("expression %q, line %d column %d: %s", e.Source, e.Line, e.Column, e.Message)
}

// Env gives the fields of what an expression looks at: float64, string or
// bool, or nil where there is no such field.
type Env interface {
	Lookup(name string) any
}

func compile(source string) (*program, error) {
	if len(source) > MaxSource {
		return nil, tooLong(source)
	}
	tree, f := parse(source)
	if f != nil {
		return nil, locate(source, f)
	}
	var c checker
	k := c.node(tree)
	if c.err != nil {
		return nil, locate(source, c.err)
	}
	p := emit(tree, c.names)
	p.source, p.kind = source, k
	return p, nil
}

func tooLong(source string) *Error {
	return &Error{Source: source[:40] + "…", Line: 1, Column: 1, Message: fmt.Sprintf("longer than %d bytes", MaxSource)}
}

func locate(source string, f *fault) *Error {
	line, column := position(source, f.at)
	return &Error{Source: source, Line: line, Column: column, Message: f.message}
}

// Filter is a compiled condition. It is not safe for concurrent use.
type Filter struct{ p *program }

// CompileFilter compiles a condition. Errors are *Error.
func CompileFilter(source string) (*Filter, error) {
	p, err := compile(source)
	if err != nil {
		return nil, err
	}
	if !p.kind.may(kindBool) {
		return nil, locate(source, faultf(0, "a filter must be true or false, this is %s", p.kind))
	}
	return &Filter{p}, nil
}

// Names are the fields that the filter looks at, in order of appearance.
func (f *Filter) Names() []string { return slices.Clone(f.p.names) }

// Match says whether env passes. A missing field is false. An error, always
// an *Error, means that the types do not fit ("21 C" < 200); then Match is
// false.
func (f *Filter) Match(env Env) (bool, error) {
	v, ok, fault := f.p.run(env)
	if ok && v.kind != kindBool {
		fault = faultf(0, "a filter must be true or false, this is %v", v)
	}
	if fault != nil {
		return false, locate(f.p.source, fault)
	}
	return ok && v.yes, nil
}

// Scalar is a compiled expression with a value. It is not safe for concurrent
// use.
type Scalar struct{ p *program }

// CompileScalar compiles an expression. Errors are *Error.
func CompileScalar(source string) (*Scalar, error) {
	p, err := compile(source)
	if err != nil {
		return nil, err
	}
	return &Scalar{p}, nil
}

// Names are the fields that the expression looks at, in order of appearance.
func (s *Scalar) Names() []string { return slices.Clone(s.p.names) }

// Eval gives the value for env: float64, string or bool, or nil where a field
// is missing. An error, always an *Error, means that the types do not fit.
func (s *Scalar) Eval(env Env) (any, error) {
	if s.p.plain {
		// As it came: what is in an interface already is not put there again.
		switch v := env.Lookup(s.p.names[0]).(type) {
		case nil, float64, string, bool:
			return v, nil
		}
	}
	v, ok, fault := s.p.run(env)
	if fault != nil {
		return nil, locate(s.p.source, fault)
	}
	if !ok {
		return nil, nil
	}
	switch v.kind {
	case kindBool:
		return v.yes, nil
	case kindText:
		return v.text, nil
	case kindNumber:
		if math.IsNaN(v.num) {
			return math.NaN(), nil // its bits differ between processors
		}
		return v.num, nil
	}
	return nil, nil
}
