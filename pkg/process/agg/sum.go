package agg

import (
	"encoding/binary"
	"math"

	"edgehub/pkg/payload"
)

// total is a compensated sum (Neumaier's variant of Kahan's): the error of
// each addition is kept in low, so the result is about as good as a sum in
// twice the precision. Only additions are in it, so nothing can be fused.
type total struct {
	n         uint64
	high, low float64
}

func (t *total) add(x float64) {
	s := t.high + x
	if math.Abs(t.high) >= math.Abs(x) {
		t.low += (t.high - s) + x
	} else {
		t.low += (x - s) + t.high
	}
	t.high = s
}

func (t *total) merge(o *total) {
	t.n += o.n
	t.add(o.high)
	t.low += o.low
}

// value is the sum; not finite if it left float64's range.
func (t *total) value() float64 { return t.high + t.low }

func (t *total) appendState(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, t.n)
	if t.n == 0 {
		return dst
	}
	return appendFloat(appendFloat(dst, t.high), t.low)
}

func (t *total) load(src []byte) (rest []byte, err error) {
	*t = total{}
	if t.n, rest, err = loadUint(src); err != nil || t.n == 0 {
		return rest, err
	}
	if t.high, rest, err = loadFloat(rest); err != nil {
		return nil, err
	}
	t.low, rest, err = loadFloat(rest)
	return rest, err
}

// Sum adds numbers, with compensation. Nothing is null.
type Sum struct{ t total }

// Add implements Aggregate.
func (a *Sum) Add(s Sample) {
	a.t.n++
	a.t.add(s.Number)
}

// Merge implements Aggregate.
func (a *Sum) Merge(other Aggregate) { a.t.merge(&other.(*Sum).t) }

// AppendState implements Aggregate.
func (a *Sum) AppendState(dst []byte) []byte { return a.t.appendState(dst) }

// Load implements Aggregate.
func (a *Sum) Load(src []byte) ([]byte, error) { return a.t.load(src) }

// AppendResult implements Aggregate.
func (a *Sum) AppendResult(dst []byte) []byte {
	if a.t.n == 0 {
		return append(dst, "null"...)
	}
	return payload.AppendNumber(dst, a.t.value())
}
