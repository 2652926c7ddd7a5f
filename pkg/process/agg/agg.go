// Package agg holds the aggregates of windows, each in its own file. They are
// pure values: no clock, no randomness, no goroutines, and the same bits on
// every processor (products are rounded with float64(a*b), so that no
// compiler fuses them with an addition).
package agg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Sample is one value that an aggregate takes in.
type Sample struct {
	Time   int64   // event time in ms since 1970
	Offset int64   // of the input record, which orders equal times
	Number float64 // finite; 0 for count() of what is no number
}

// Aggregate is the state of one computation over one window. It is not safe
// for concurrent use.
//
// A1: Load(Append(a)) is a: results and later Adds go on alike.
// A2: the state is a function of the samples in their order, and of Merges in
// their order; nothing else.
type Aggregate interface {
	Add(s Sample)
	// Merge takes in what other took in; other is of the same Spec and is
	// not changed.
	Merge(other Aggregate)
	// AppendState appends the state as bytes; Load reads them back into a new
	// aggregate and returns the bytes behind them.
	AppendState(dst []byte) []byte
	Load(src []byte) (rest []byte, err error)
	// AppendResult appends the result as JSON: null if nothing was taken in
	// and the aggregate needs something, or if it left float64's range.
	AppendResult(dst []byte) []byte
}

// Spec is one kind of aggregate as configurations name it.
type Spec struct {
	Name             string
	MinArgs, MaxArgs int
	// AnyValue says that the first argument may be of any type (count).
	AnyValue bool
	New      func() Aggregate
}

// specs is read only.
var specs = []Spec{
	{Name: "count", MinArgs: 0, MaxArgs: 1, AnyValue: true, New: func() Aggregate { return new(Count) }},
	{Name: "sum", MinArgs: 1, MaxArgs: 1, New: func() Aggregate { return new(Sum) }},
	{Name: "mean", MinArgs: 1, MaxArgs: 1, New: func() Aggregate { return new(Mean) }},
	{Name: "min", MinArgs: 1, MaxArgs: 1, New: func() Aggregate { return new(Min) }},
	{Name: "max", MinArgs: 1, MaxArgs: 1, New: func() Aggregate { return new(Max) }},
}

// Lookup finds a kind by its name.
func Lookup(name string) (Spec, bool) {
	for _, s := range specs {
		if s.Name == name {
			return s, true
		}
	}
	return Spec{}, false
}

// Names lists the kinds, for messages.
func Names() string {
	var n []string
	for _, s := range specs {
		n = append(n, s.Name)
	}
	return strings.Join(n, ", ")
}

// ErrState means that state bytes cannot be those of this aggregate.
var ErrState = errors.New("aggregate state is malformed")

func loadUint(src []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(src)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: bad count", ErrState)
	}
	return v, src[n:], nil
}

func appendFloat(dst []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f))
}

func loadFloat(src []byte) (float64, []byte, error) {
	if len(src) < 8 {
		return 0, nil, fmt.Errorf("%w: cut short", ErrState)
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(src)), src[8:], nil
}
