package agg

import (
	"fmt"

	"edgehub/pkg/payload"
)

// Max is the largest number. Nothing is null.
type Max struct {
	any bool
	v   float64
}

// Add implements Aggregate.
func (a *Max) Add(s Sample) {
	if !a.any || s.Number > a.v {
		a.any, a.v = true, s.Number
	}
}

// Merge implements Aggregate.
func (a *Max) Merge(other Aggregate) {
	if o := other.(*Max); o.any {
		a.Add(Sample{Number: o.v})
	}
}

// AppendState implements Aggregate.
func (a *Max) AppendState(dst []byte) []byte {
	if !a.any {
		return append(dst, 0)
	}
	return appendFloat(append(dst, 1), a.v)
}

// Load implements Aggregate.
func (a *Max) Load(src []byte) (rest []byte, err error) {
	*a = Max{}
	if len(src) == 0 || src[0] > 1 {
		return nil, fmt.Errorf("%w: max", ErrState)
	}
	if src[0] == 0 {
		return src[1:], nil
	}
	a.any = true
	a.v, rest, err = loadFloat(src[1:])
	return rest, err
}

// AppendResult implements Aggregate.
func (a *Max) AppendResult(dst []byte) []byte {
	if !a.any {
		return append(dst, "null"...)
	}
	return payload.AppendNumber(dst, a.v)
}
