// Package expr compiles the expressions of filters and computations
// ("temperature < 200 && line == 'a'"), with expr-lang/expr behind types of
// our own.
//
// What the language is here, apart from expr-lang's syntax:
//
//   - Names are fields: a.b, a["b"] and a[0] name the flattened fields "a.b"
//     and "a.0"; $env["odd name"] names any.
//   - Every number is a float64, also 200 and len(x), so that 32-bit and
//     64-bit hubs compute alike. % is the remainder of the truncated division.
//   - Evaluating a missing field ends the evaluation: a filter is false, a
//     scalar has no value. "x ?? 0", "x == nil" and "x != nil" may look at it.
//     && and || stop early, as usual: in "a > 1 || b > 1" b may be missing if
//     a is 2.
//   - There are no loops, closures, ranges, maps, slices or variables, so the
//     cost of an evaluation is bounded by the length of its source.
//
// It is pure and keeps no state between evaluations.
package expr

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// Limits of an expression.
const (
	MaxSource = 4096 // bytes
	maxNodes  = 1000
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

// program is a compiled expression. It is not safe for concurrent use.
type program struct {
	source string
	code   *vm.Program
	vm     vm.VM
	names  []string
	strict bool // no name may be missing for a result that is not false
	env    Env
	plain  string // the expression is this name alone
	typ    reflect.Type
}

// errMissing ends an evaluation that meets a missing field.
var errMissing = errors.New("missing field")

func compile(source string) (*program, error) {
	if len(source) > MaxSource {
		return nil, &Error{Source: source[:40] + "…", Line: 1, Column: 1, Message: fmt.Sprintf("longer than %d bytes", MaxSource)}
	}
	p := &program{source: source}
	c := conf.CreateNew()
	c.MaxNodes = maxNodes
	c.Optimize = false
	for _, f := range builtin.Builtins {
		c.Disabled[f.Name] = true
		delete(c.Builtins, f.Name)
	}
	for _, f := range functions {
		c.Functions[f.Name] = f
	}
	c.Functions[getName] = &builtin.Function{Name: getName, Func: p.get, Types: []reflect.Type{reflect.TypeFor[func(int) any]()}}
	c.Functions[optName] = &builtin.Function{Name: optName, Func: p.opt, Types: []reflect.Type{reflect.TypeFor[func(int) any]()}}
	tree, err := parser.ParseWithConfig(source, c)
	if err != nil {
		return nil, p.wrap(err)
	}
	t := transformer{program: p}
	tree.Node = t.node(tree.Node)
	if t.err != nil {
		return nil, p.wrap(t.err.Bind(tree.Source))
	}
	p.strict = !t.lazy
	if p.typ, err = checker.Check(tree, c); err != nil {
		return nil, p.wrap(err)
	}
	if p.code, err = compiler.Compile(tree, c); err != nil {
		return nil, p.wrap(err)
	}
	if call, ok := tree.Node.(*ast.CallNode); ok {
		if id := call.Callee.(*ast.IdentifierNode); id.Value == getName {
			p.plain = p.names[0]
		}
	}
	return p, nil
}

// wrap makes an *Error of what the library says.
func (p *program) wrap(err error) error {
	e := &Error{Source: p.source, Line: 1, Column: 1, Message: err.Error()}
	if f, ok := errors.AsType[*file.Error](err); ok {
		e.Line, e.Column, e.Message = max(f.Line, 1), f.Column+1, advise(f.Message)
	}
	return e
}

func advise(message string) string {
	switch message {
	case `unexpected token Operator("=")`:
		return `unexpected "=": use == to compare`
	case "unexpected token EOF":
		return "unexpected end"
	}
	return message
}

// get and opt are what names become: calls with the name's index.
func (p *program) get(args ...any) (any, error) {
	v, _ := p.opt(args...)
	if v == nil {
		return nil, errMissing
	}
	return v, nil
}

func (p *program) opt(args ...any) (any, error) {
	return p.env.Lookup(p.names[args[0].(int)]), nil
}

// run evaluates; ok is false if a missing field ended it.
func (p *program) run(env Env) (v any, ok bool, err error) {
	if p.plain != "" {
		v = env.Lookup(p.plain)
		return v, v != nil, nil
	}
	if p.strict {
		for _, n := range p.names {
			if env.Lookup(n) == nil {
				return nil, false, nil
			}
		}
	}
	p.env = env
	v, err = p.vm.Run(p.code, nil)
	p.env = nil
	if err == nil {
		return v, true, nil
	}
	if errors.Is(err, errMissing) {
		return nil, false, nil
	}
	return nil, false, p.wrap(err)
}

// Filter is a compiled condition. It is not safe for concurrent use.
type Filter struct{ p *program }

// CompileFilter compiles a condition. Errors are *Error.
func CompileFilter(source string) (*Filter, error) {
	p, err := compile(source)
	if err != nil {
		return nil, err
	}
	if k := p.typ.Kind(); k != reflect.Bool && k != reflect.Interface {
		return nil, &Error{Source: source, Line: 1, Column: 1, Message: fmt.Sprintf("a filter must be true or false, this is a %s", typeName(p.typ))}
	}
	return &Filter{p}, nil
}

// Names are the fields that the filter looks at, in order of appearance.
func (f *Filter) Names() []string { return slices.Clone(f.p.names) }

// Match says whether env passes. A missing field is false. An error, always
// an *Error, means that the types do not fit ("21 C" < 200); then Match is
// false.
func (f *Filter) Match(env Env) (bool, error) {
	v, ok, err := f.p.run(env)
	if err != nil || !ok {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, &Error{Source: f.p.source, Line: 1, Column: 1, Message: fmt.Sprintf("a filter must be true or false, this is %v", v)}
	}
	return b, nil
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
	switch p.typ.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map, reflect.Func:
		return nil, &Error{Source: source, Line: 1, Column: 1, Message: "a computation must give a number, text, true or false"}
	}
	return &Scalar{p}, nil
}

// Names are the fields that the expression looks at, in order of appearance.
func (s *Scalar) Names() []string { return slices.Clone(s.p.names) }

// Eval gives the value for env: float64, string or bool, or nil where a field
// is missing. An error, always an *Error, means that the types do not fit.
func (s *Scalar) Eval(env Env) (any, error) {
	v, _, err := s.p.run(env)
	if err != nil {
		return nil, err
	}
	switch v.(type) {
	case nil, float64, string, bool:
		return v, nil
	}
	return nil, &Error{Source: s.p.source, Line: 1, Column: 1, Message: fmt.Sprintf("a computation must give a number, text, true or false, not %T", v)}
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Float64, reflect.Int:
		return "number"
	case reflect.String:
		return "text"
	}
	return t.String()
}
