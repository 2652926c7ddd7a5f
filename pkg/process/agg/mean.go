package agg

import "edgehub/pkg/payload"

// Mean is the compensated sum by the count. Nothing is null.
type Mean struct{ t total }

// Add implements Aggregate.
func (a *Mean) Add(s Sample) {
	a.t.n++
	a.t.add(s.Number)
}

// Merge implements Aggregate.
func (a *Mean) Merge(other Aggregate) { a.t.merge(&other.(*Mean).t) }

// AppendState implements Aggregate.
func (a *Mean) AppendState(dst []byte) []byte { return a.t.appendState(dst) }

// Load implements Aggregate.
func (a *Mean) Load(src []byte) ([]byte, error) { return a.t.load(src) }

// AppendResult implements Aggregate.
func (a *Mean) AppendResult(dst []byte) []byte {
	if a.t.n == 0 {
		return append(dst, "null"...)
	}
	return payload.AppendNumber(dst, a.t.value()/float64(a.t.n))
}
