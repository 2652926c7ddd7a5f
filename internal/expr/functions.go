package expr

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/builtin"
)

// function is one that expressions may call. All are pure, cost no more than
// the length of their arguments, and give the same bits on every processor.
type function struct {
	name     string
	min, max int // arguments
	call     func(args ...any) (any, error)
	typ      reflect.Type // of the result, as a func of any arguments
	hidden   bool
}

func (f *function) arity() string {
	switch {
	case f.min == f.max && f.min == 1:
		return "one argument"
	case f.min == f.max:
		return fmt.Sprintf("%d arguments", f.min)
	}
	return fmt.Sprintf("%d to %d arguments", f.min, f.max)
}

var (
	anyToNumber = reflect.TypeFor[func(...any) float64]()
	anyToText   = reflect.TypeFor[func(...any) string]()
)

// table is read only.
var table = []function{
	{name: "abs", min: 1, max: 1, typ: anyToNumber, call: number1("abs", math.Abs)},
	{name: "ceil", min: 1, max: 1, typ: anyToNumber, call: number1("ceil", math.Ceil)},
	{name: "floor", min: 1, max: 1, typ: anyToNumber, call: number1("floor", math.Floor)},
	{name: "round", min: 1, max: 1, typ: anyToNumber, call: number1("round", math.Round)},
	{name: "trunc", min: 1, max: 1, typ: anyToNumber, call: number1("trunc", math.Trunc)},
	{name: "sqrt", min: 1, max: 1, typ: anyToNumber, call: number1("sqrt", math.Sqrt)},
	{name: "min", min: 1, max: 16, typ: anyToNumber, call: fold("min", math.Min)},
	{name: "max", min: 1, max: 16, typ: anyToNumber, call: fold("max", math.Max)},
	{name: "number", min: 1, max: 1, typ: anyToNumber, call: toNumber},
	{name: "len", min: 1, max: 1, typ: anyToNumber, call: length},
	{name: "lower", min: 1, max: 1, typ: anyToText, call: text1("lower", strings.ToLower)},
	{name: "upper", min: 1, max: 1, typ: anyToText, call: text1("upper", strings.ToUpper)},
	{name: "trim", min: 1, max: 1, typ: anyToText, call: text1("trim", strings.TrimSpace)},
	{name: modName, min: 2, max: 2, typ: anyToNumber, call: modulo, hidden: true},
}

// functions are the same for the library; read only.
var functions = func() []*builtin.Function {
	var out []*builtin.Function
	for _, f := range table {
		out = append(out, &builtin.Function{Name: f.name, Func: f.call, Types: []reflect.Type{f.typ}})
	}
	return out
}()

func lookupFunction(name string) (*function, bool) {
	for i := range table {
		if table[i].name == name && !table[i].hidden {
			return &table[i], true
		}
	}
	return nil, false
}

func functionNames() string {
	var names []string
	for i := range table {
		if !table[i].hidden {
			names = append(names, table[i].name)
		}
	}
	return strings.Join(names, ", ")
}

func numberArg(fn string, v any) (float64, error) {
	f, ok := v.(float64)
	if !ok {
		return 0, fmt.Errorf("%s wants a number, not %v", fn, v)
	}
	return f, nil
}

func number1(name string, f func(float64) float64) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		x, err := numberArg(name, args[0])
		if err != nil {
			return nil, err
		}
		return f(x), nil
	}
}

func fold(name string, f func(a, b float64) float64) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		out, err := numberArg(name, args[0])
		for _, a := range args[1:] {
			x, e := numberArg(name, a)
			if err == nil {
				err = e
			}
			out = f(out, x)
		}
		if err != nil {
			return nil, err
		}
		return out, nil
	}
}

func modulo(args ...any) (any, error) {
	x, err := numberArg("%", args[0])
	if err != nil {
		return nil, err
	}
	y, err := numberArg("%", args[1])
	if err != nil {
		return nil, err
	}
	return math.Mod(x, y), nil
}

// toNumber reads text as a decimal number; what is none is an error.
func toNumber(args ...any) (any, error) {
	switch v := args[0].(type) {
	case float64:
		return v, nil
	case bool:
		if v {
			return 1.0, nil
		}
		return 0.0, nil
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%v is not a number", args[0])
}

func length(args ...any) (any, error) {
	s, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("len wants text, not %v", args[0])
	}
	return float64(utf8.RuneCountInString(s)), nil
}

func text1(name string, f func(string) string) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		s, ok := args[0].(string)
		if !ok {
			return nil, fmt.Errorf("%s wants text, not %v", name, args[0])
		}
		return f(s), nil
	}
}
