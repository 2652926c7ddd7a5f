package log

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"edgehub/pkg/log/record"
)

// generation is what one commit will hold. Appenders fill it under the shared
// gate; the committer takes it under the exclusive one.
type generation struct {
	lsn     LSN
	dirty   []*Partition // each once; its records are in Partition.pend
	control []byte       // whole sections
	applies []func(seq uint64)

	carry      []carried // heads to be written again, before all else
	carryBytes int64
}

func (g *generation) empty() bool {
	return len(g.dirty) == 0 && len(g.control) == 0 && len(g.carry) == 0
}

// recapped is a partition that the last entry wrote.
type recapped struct {
	p    *Partition
	next int64
}

// control puts whole sections into the open generation. apply, if not nil,
// runs in the committer once they are durable, with the entry's sequence,
// before the commit's LSN is.
func (l *Log) control(sections []byte, apply func(seq uint64)) (LSN, error) {
	l.gate.RLock()
	if l.closing {
		l.gate.RUnlock()
		return 0, record.ErrClosed
	}
	if l.isFailed() {
		l.gate.RUnlock()
		return 0, l.Err()
	}
	l.genMu.Lock()
	l.gen.control = append(l.gen.control, sections...)
	if apply != nil {
		l.gen.applies = append(l.gen.applies, apply)
	}
	l.genMu.Unlock()
	return l.leave(), nil
}

// controlWait is control, and waits until it is durable.
func (l *Log) controlWait(sections []byte, apply func(seq uint64)) error {
	lsn, err := l.control(sections, apply)
	if err != nil {
		return err
	}
	l.hurry()
	return l.Wait(noCtx, lsn)
}

// commitLoop is the committer. One commit is in flight at a time (J1).
//
// A record is pending from Append until its generation is taken; what comes
// while a commit is on its way gathers for the next one. So the slower the
// device, the larger the commits.
func (l *Log) commitLoop() {
	defer close(l.stopped)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		closing := false
		select {
		case <-l.commitCh:
		case <-l.closeCh:
			closing = true
		case <-l.failed:
			return
		}
		if l.interval > 0 && !closing {
			l.gather(timer)
		}
		l.kicked.Store(false)
		if err := l.commitOnce(); errors.Is(err, errFullClosing) {
			return // nothing of it is acknowledged
		} else if err != nil {
			l.fail(err)
			return
		}
		if closing {
			return // Close has shut the gate: nothing comes any more
		}
	}
}

// gather waits for CommitInterval, or until someone hurries: half of what may
// be pending is there, or a change of topics waits.
func (l *Log) gather(timer *time.Timer) {
	timer.Reset(l.interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.hurryCh:
	case <-l.closeCh:
	}
}

// hurry ends the gathering of the open generation.
func (l *Log) hurry() {
	select {
	case l.hurryCh <- struct{}{}:
	default:
	}
}

// take closes the open generation and begins the next.
func (l *Log) take() *generation {
	next := &generation{}
	select { // who hurried is in g, or nearly
	case <-l.hurryCh:
	default:
	}
	l.gate.Lock()
	g := l.gen
	next.lsn = g.lsn + 1
	l.gen = next
	// No appender is between giving offsets and having put its records in.
	for _, p := range g.dirty {
		p.pend.next = p.next
		p.taken, p.pend = p.pend, nil
	}
	l.gate.Unlock()
	return g
}

// commitOnce writes what is pending as one entry, syncs it and makes it
// visible.
func (l *Log) commitOnce() error {
	g := l.take()
	if g.empty() {
		l.setDurable(g.lsn)
		return nil
	}
	if err := l.flush.waitHeads(); err != nil {
		return err
	}
	began := time.Now()
	l.encode(g)
	size := len(l.raw) - entryHeader
	seq, err := l.writeEntry(l.raw)
	if err != nil {
		return err
	}
	l.stat.commit(time.Since(began))
	l.publish(g, seq)
	l.stat.committedBytes.Add(uint64(size))
	if cap(l.raw) > 1<<20 && size < cap(l.raw)/8 {
		l.raw = nil // a burst is over
	}
	return nil
}

// encode builds the raw payload of g's entry in l.raw, with room for the
// header in front.
func (l *Log) encode(g *generation) {
	slices.SortFunc(g.dirty, func(a, b *Partition) int {
		if a.topic != b.topic {
			return cmp.Compare(a.topic.name, b.topic.name)
		}
		return cmp.Compare(a.index, b.index)
	})
	raw := append(l.raw[:0], zeros[:entryHeader]...)
	raw = append(raw, g.control...)
	raw = l.appendCarry(raw, g)
	for i := 0; i < len(g.dirty); {
		j, size := i, len(record.TopicID{})
		for ; j < len(g.dirty) && g.dirty[j].topic == g.dirty[i].topic; j++ {
			p := g.dirty[j]
			pd := p.taken
			pd.closeBuilder(l.epoch)
			if pd.b != nil {
				l.builders.Put(pd.b)
				pd.b = nil
			}
			from := 0
			for _, pc := range pd.pieces {
				n := pc.end - from
				from = pc.end
				size += uvarintLen(uint64(p.index)) + 1 + uvarintLen(uint64(n)) + n
			}
		}
		raw = append(raw, sectionBatches)
		raw = binary.AppendUvarint(raw, uint64(size))
		raw = append(raw, g.dirty[i].topic.id[:]...)
		for ; i < j; i++ {
			p, from := g.dirty[i], 0
			for _, pc := range p.taken.pieces {
				raw = binary.AppendUvarint(raw, uint64(p.index))
				kind := byte(pieceProduced)
				if pc.own {
					kind = pieceOwn
				}
				raw = append(raw, kind)
				raw = binary.AppendUvarint(raw, uint64(pc.end-from))
				raw = append(raw, p.taken.buf[from:pc.end]...)
				from = pc.end
			}
		}
	}
	l.raw = l.appendRecap(raw)
}

// appendRecap tells the next offsets of the partitions that the last entry
// wrote and this one does not (J6).
func (l *Log) appendRecap(raw []byte) []byte {
	var t *topic
	var body []byte
	n := 0
	end := func() {
		if n > 0 {
			b := append(make([]byte, 0, 32+len(body)), t.id[:]...)
			b = binary.AppendUvarint(b, uint64(n))
			raw = appendSection(raw, sectionRecap, append(b, body...))
		}
		body, n = body[:0], 0
	}
	for _, r := range l.recap { // sorted by topic, as g.dirty was
		if r.p.taken != nil {
			continue
		}
		if r.p.topic != t {
			end()
			t = r.p.topic
		}
		body = binary.AppendUvarint(body, uint64(r.p.index))
		body = binary.AppendUvarint(body, uint64(r.next))
		n++
	}
	end()
	return raw
}

// publish makes a durable generation visible and answers those who wait.
func (l *Log) publish(g *generation, seq uint64) {
	for _, apply := range g.applies {
		apply(seq)
	}
	l.carriedTo(g, seq)
	now := l.time.Load()
	l.recap = l.recap[:0]
	freed, added, records := int64(0), int64(0), int64(0)
	for _, p := range g.dirty {
		pd := p.taken
		from, base := 0, pd.base
		freed += pd.bytes
		p.mu.Lock()
		if p.dropped {
			p.taken = nil
			p.mu.Unlock()
			continue
		}
		for _, pc := range pd.pieces {
			p.head = append(p.head, chunk{
				base: base, next: pc.next, seq: seq, own: pc.own,
				data: pd.buf[from:pc.end:pc.end], maxTS: pc.maxTS, time: now,
			})
			from, base = pc.end, pc.next
		}
		p.headBytes += int64(len(pd.buf))
		p.hw = pd.next
		p.taken = nil
		big := p.headBytes >= flushBytes && !p.queued
		p.queued = p.queued || big
		p.wake()
		p.mu.Unlock()
		if big {
			l.flush.enqueue(p)
		}
		l.recap = append(l.recap, recapped{p, pd.next})
		added += int64(len(pd.buf))
		records += pd.records
	}
	l.headBytes.Add(added)
	l.stat.committedRecords.Add(uint64(records))
	l.flush.committed.Store(seq)
	l.setDurable(g.lsn)
	l.release(freed)
	l.flush.checkHeads()
}

// wake tells the partition's watchers. p.mu is held.
func (p *Partition) wake() {
	for _, ch := range p.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// writeEntry compresses, writes and syncs one entry. raw has room for the
// header in front. Only the committer, or what runs instead of it, calls it.
func (l *Log) writeEntry(raw []byte) (seq uint64, err error) {
	j := l.j
	e := entry{time: l.now(), epoch: l.epoch, shift: j.shift, raw: len(raw) - entryHeader}
	b := raw
	if j.pad(len(raw)) > j.pad(1) {
		packed, err := record.Compress(record.Zstd, append(j.out[:0], zeros[:entryHeader]...), raw[entryHeader:])
		if err != nil {
			return 0, err
		}
		if j.out = packed[:0]; j.pad(len(packed)) < j.pad(len(raw)) {
			b, e.codec = packed, record.Zstd
		}
	}
	begin, err := l.makeRoom(j.pad(len(b)))
	if err != nil {
		return 0, err
	}
	e.seq = j.seq + 1
	e.tail = min(l.flush.tail.Load(), e.seq)
	b = e.seal(b, &j.secret)
	if e.codec == record.None {
		l.raw = b[:0]
	} else {
		j.out = b[:0]
	}
	if err := j.write(begin, b, e.seq, e.tail); err != nil {
		return 0, err
	}
	l.flush.lookAhead()
	return e.seq, nil
}

// makeRoom finds n bytes for the next entry. It returns the slot to begin, or
// nil where the current one has room. A slot whose records are not yet in
// segments is waited for; the block that every slot keeps back takes the entry
// that makes the new tail durable (J3).
func (l *Log) makeRoom(n int64) (*begunSlot, error) {
	j := l.j
	for {
		if j.pos+n+j.block() <= j.slotBytes {
			return nil, nil
		}
		next, err := j.next(l)
		if err != nil {
			return nil, err
		}
		last := j.last(next)
		if last == 0 || last < j.tail() {
			t := l.table(next)
			head := t.encode(nil)
			if int64(len(head))+n+j.block() > j.slotBytes {
				return nil, fmt.Errorf("journal entry of %d bytes does not fit a slot of %d", n, j.slotBytes)
			}
			return &begunSlot{next, head}, nil
		}
		if tail := l.flush.tail.Load(); tail > last {
			e := entry{seq: j.seq + 1, time: l.now(), epoch: l.epoch, shift: j.shift}
			e.tail = min(tail, e.seq)
			if err := j.write(nil, e.seal(make([]byte, entryHeader), &j.secret), e.seq, e.tail); err != nil {
				return nil, err
			}
			l.flush.committed.Store(e.seq)
			continue
		}
		if err := l.flush.through(last); err != nil {
			return nil, err
		}
	}
}

// table is the state of all partitions, for a slot that begins now.
func (l *Log) table(index int) *slotTable {
	j := l.j
	t := &slotTable{
		id: j.id, secret: j.secret, first: j.seq + 1, index: index, slotBytes: j.slotBytes,
		epoch: l.epoch, time: l.time.Load(), shift: j.shift,
	}
	l.topicsMu.RLock()
	for _, tp := range l.topics {
		t.topics = append(t.topics, tableTopic{meta: tp.meta(), id: tp.id, partitions: make([]tablePartition, len(tp.parts))})
	}
	l.topicsMu.RUnlock()
	slices.SortFunc(t.topics, func(a, b tableTopic) int { return cmp.Compare(a.meta.Name, b.meta.Name) })
	for i := range t.topics {
		tt := &t.topics[i]
		l.topicsMu.RLock()
		tp := l.byID[tt.id]
		l.topicsMu.RUnlock()
		if tp == nil {
			continue // deleted just now; its section says so
		}
		for k, p := range tp.parts {
			p.mu.Lock()
			tt.partitions[k] = tablePartition{start: p.start, synced: p.synced, next: p.hw}
			p.mu.Unlock()
		}
	}
	return t
}
