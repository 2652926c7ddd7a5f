package expr

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// function is one that expressions may call. All are pure, cost no more than
// the length of their arguments, and give the same bits on every processor.
type function struct {
	name     string
	min, max int    // arguments
	wants    []kind // each argument is one of these
	gives    kind
	call     func(args []value) (value, bool) // false: the value does not fit
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

// apply calls f, with arguments of any kind.
func (f *function) apply(args []value) (v value, complaint string) {
	for _, a := range args {
		if !slices.Contains(f.wants, a.kind) {
			return value{}, fmt.Sprintf("%s wants %s, not %v", f.name, f.wants[0], a)
		}
	}
	v, ok := f.call(args)
	if !ok {
		return value{}, fmt.Sprintf("%s: %v does not fit", f.name, args[0])
	}
	return v, ""
}

var (
	number  = []kind{kindNumber}
	text    = []kind{kindText}
	anyKind = []kind{kindText, kindNumber, kindBool}
)

// table is read only.
var table = []function{
	{name: "abs", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Abs)},
	{name: "ceil", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Ceil)},
	{name: "floor", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Floor)},
	{name: "round", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Round)},
	{name: "trunc", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Trunc)},
	{name: "sqrt", min: 1, max: 1, wants: number, gives: kindNumber, call: ofNumber(math.Sqrt)},
	{name: "min", min: 1, max: 16, wants: number, gives: kindNumber, call: ofNumbers(math.Min)},
	{name: "max", min: 1, max: 16, wants: number, gives: kindNumber, call: ofNumbers(math.Max)},
	{name: "number", min: 1, max: 1, wants: anyKind, gives: kindNumber, call: toNumber},
	{name: "len", min: 1, max: 1, wants: text, gives: kindNumber, call: length},
	{name: "lower", min: 1, max: 1, wants: text, gives: kindText, call: ofText(strings.ToLower)},
	{name: "upper", min: 1, max: 1, wants: text, gives: kindText, call: ofText(strings.ToUpper)},
	{name: "trim", min: 1, max: 1, wants: text, gives: kindText, call: ofText(strings.TrimSpace)},
}

func lookupFunction(name string) (*function, bool) {
	for i := range table {
		if table[i].name == name {
			return &table[i], true
		}
	}
	return nil, false
}

func functionNames() string {
	var names []string
	for i := range table {
		names = append(names, table[i].name)
	}
	return strings.Join(names, ", ")
}

// isLoop says that name is a function over lists in other expression
// languages.
func isLoop(name string) bool {
	switch name {
	case "all", "none", "any", "one", "filter", "map", "count", "sum", "find", "findIndex", "findLast", "findLastIndex",
		"groupBy", "sortBy", "reduce":
		return true
	}
	return false
}

func ofNumber(f func(float64) float64) func([]value) (value, bool) {
	return func(args []value) (value, bool) { return numberValue(f(args[0].num)), true }
}

func ofNumbers(f func(a, b float64) float64) func([]value) (value, bool) {
	return func(args []value) (value, bool) {
		out := args[0].num
		for _, a := range args[1:] {
			out = f(out, a.num)
		}
		return numberValue(out), true
	}
}

// toNumber reads text as a decimal number; what is none is an error.
func toNumber(args []value) (value, bool) {
	switch v := args[0]; v.kind {
	case kindNumber:
		return v, true
	case kindBool:
		if v.yes {
			return numberValue(1), true
		}
		return numberValue(0), true
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(args[0].text), 64)
	return numberValue(f), err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func length(args []value) (value, bool) {
	return numberValue(float64(utf8.RuneCountInString(args[0].text))), true
}

func ofText(f func(string) string) func([]value) (value, bool) {
	return func(args []value) (value, bool) { return textValue(f(args[0].text)), true }
}
