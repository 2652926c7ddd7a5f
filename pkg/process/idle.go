package process

import "time"

// idleness remembers when the task stood at which offset with nothing left to
// read, to know which keys have been silent for a while: those whose last
// record lies below where the task stood that long ago. It is empty after a
// start, which gives every key its full time again.
type idleness struct {
	marks []mark // ascending in both
}

type mark struct {
	at   time.Time
	next int64
}

// note says that at now all records below next had been taken in and no other
// was there. Marks are at least idle/32 apart.
func (i *idleness) note(now time.Time, next int64, idle time.Duration) {
	if n := len(i.marks); n > 0 && now.Sub(i.marks[n-1].at) < idle/32 {
		return
	}
	i.marks = append(i.marks, mark{now, next})
	i.before(now, idle)
}

// before is the offset below which keys last heard of are idle.
func (i *idleness) before(now time.Time, idle time.Duration) int64 {
	n := 0
	for n < len(i.marks) && now.Sub(i.marks[n].at) >= idle {
		n++
	}
	if n == 0 {
		return 0
	}
	// Only the newest of the old ones counts.
	i.marks = append(i.marks[:0], i.marks[n-1:]...)
	return i.marks[0].next
}
