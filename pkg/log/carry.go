package log

import (
	"encoding/binary"

	"edgehub/pkg/log/record"
)

// A head that is small and pins the oldest slot is not worth a segment write of
// its own, a sync and two or three 4 KiB pages: the committer writes it again
// in its next entry instead, whole, and it pins that one. So a thousand slow
// partitions cost the ring one entry, not a thousand syncs.
//
// An entry that carries has all that the partition's head holds, from its first
// offset on; so where replay meets offsets of which lower ones follow in a
// later entry, that entry has these too (J5).
const (
	// carryBelow is the size from which on a head is flushed.
	carryBelow = 16 << 10
	// carryShare of a slot is what one entry carries at most, twice as much
	// what all entries of a slot carry.
	carryShare = 8
)

// carried is a partition whose head the open generation carries.
type carried struct {
	p    *Partition
	next int64 // offset behind what was carried; set when encoded
}

// carryBudget is how much the current slot may still carry. The flusher owns
// it.
type carryBudget struct {
	slot int
	left int64
}

// carry asks the committer to carry p's head forward. It returns false if the
// head should be flushed. The flusher calls it.
func (f *flusher) carry(p *Partition, n int64) bool {
	l := f.l
	l.j.mu.Lock()
	cur := l.j.cur
	l.j.mu.Unlock()
	if b := &f.budget; b.slot != cur || b.left == 0 {
		if b.slot == cur {
			return false
		}
		b.slot, b.left = cur, 2*l.j.slotBytes/carryShare
	}
	if n > min(f.budget.left, l.j.slotBytes/carryShare) {
		f.budget.left = 0
		return false
	}
	l.gate.RLock()
	if l.closing || l.isFailed() {
		l.gate.RUnlock()
		return false
	}
	l.genMu.Lock()
	room := l.gen.carryBytes+n <= l.j.slotBytes/carryShare
	if room {
		l.gen.carryBytes += n
		l.gen.carry = append(l.gen.carry, carried{p: p})
	}
	l.genMu.Unlock()
	if room {
		p.mu.Lock()
		p.carrying = true
		p.mu.Unlock()
		f.budget.left -= n
	}
	l.leave() // without room: the next generation takes it
	return true
}

// mayCarry says that p's head is small and young enough. A head as old as a
// segment may get is flushed, so that retention sees it. p.mu is held.
func (p *Partition) mayCarry(now int64) bool {
	c := p.topic.cfg.Load()
	return p.headBytes < carryBelow &&
		(c.RetentionTime <= 0 || now-p.head[0].time <= (c.RetentionTime/8).Milliseconds()) &&
		(p.open == nil || p.open.pin == 0) // its segment must be synced anyway
}

// appendCarry puts the heads that g carries into its entry, before all that is
// new.
func (l *Log) appendCarry(raw []byte, g *generation) []byte {
	limit := len(raw) + int(l.j.slotBytes/carryShare)
	for i := range g.carry {
		c := &g.carry[i]
		c.p.mu.Lock()
		head := c.p.head
		if c.p.dropped {
			head = nil
		}
		c.p.mu.Unlock()
		size, data := len(record.TopicID{}), 0
		for k := range head {
			n := len(head[k].data)
			data += n
			size += uvarintLen(uint64(c.p.index)) + 1 + uvarintLen(uint64(n)) + n
		}
		if len(head) == 0 || len(raw)+size > limit {
			continue // flushed meanwhile, or grown: then it will be
		}
		raw = append(raw, sectionBatches)
		raw = binary.AppendUvarint(raw, uint64(size))
		raw = append(raw, c.p.topic.id[:]...)
		for k := range head {
			kind := byte(pieceProduced)
			if head[k].own {
				kind = pieceOwn
			}
			raw = binary.AppendUvarint(raw, uint64(c.p.index))
			raw = append(raw, kind)
			raw = binary.AppendUvarint(raw, uint64(len(head[k].data)))
			raw = append(raw, head[k].data...)
		}
		c.next = head[len(head)-1].next
		l.stat.carries.Add(1)
		l.stat.carriedBytes.Add(uint64(data))
	}
	return raw
}

// carriedTo says that what g carries is in the durable entry seq, too.
func (l *Log) carriedTo(g *generation, seq uint64) {
	for _, c := range g.carry {
		c.p.mu.Lock()
		c.p.carrying = false
		head := make([]chunk, len(c.p.head)) // readers may walk the old one
		copy(head, c.p.head)
		for k := range head {
			if head[k].next <= c.next {
				head[k].seq = seq
			}
		}
		c.p.head = head
		c.p.mu.Unlock()
	}
	if len(g.carry) > 0 {
		l.flush.wake() // the tail may move
	}
}
