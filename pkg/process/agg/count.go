package agg

import (
	"encoding/binary"
	"strconv"
)

// Count counts samples. Its result is a whole number, 0 for none.
type Count struct{ n uint64 }

// Add implements Aggregate.
func (c *Count) Add(Sample) { c.n++ }

// Merge implements Aggregate.
func (c *Count) Merge(other Aggregate) { c.n += other.(*Count).n }

// AppendState implements Aggregate.
func (c *Count) AppendState(dst []byte) []byte { return binary.AppendUvarint(dst, c.n) }

// Load implements Aggregate.
func (c *Count) Load(src []byte) (rest []byte, err error) {
	c.n, rest, err = loadUint(src)
	return rest, err
}

// AppendResult implements Aggregate.
func (c *Count) AppendResult(dst []byte) []byte { return strconv.AppendUint(dst, c.n, 10) }
