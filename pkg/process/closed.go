package process

import (
	"sort"
)

// closedRef names a closed window. The window may be gone, or another of the
// same index may be there: turn tells.
type closedRef struct {
	key   *key
	index int64
	turn  uint64
}

// find is the window's place among its key's closed ones.
func (r closedRef) find() (int, bool) {
	c := r.key.closed
	i := sort.Search(len(c), func(i int) bool { return c[i].index >= r.index })
	return i, i < len(c) && c[i].index == r.index && c[i].turn == r.turn
}

// closedQueue has the closed windows in the order in which they closed, and
// some that are gone.
type closedQueue struct {
	refs []closedRef
	from int
}

func (q *closedQueue) push(r closedRef) { q.refs = append(q.refs, r) }

func (q *closedQueue) pop() closedRef {
	r := q.refs[q.from]
	q.refs[q.from] = closedRef{}
	q.from++
	return r
}

// trim bounds the queue by twice the windows that are there.
func (q *closedQueue) trim(there int) {
	if len(q.refs) <= 2*there+1024 {
		return
	}
	kept := q.refs[:0]
	for _, r := range q.refs[q.from:] {
		if _, ok := r.find(); ok {
			kept = append(kept, r)
		}
	}
	clear(q.refs[len(kept):])
	q.refs, q.from = kept, 0
}
