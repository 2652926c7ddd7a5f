package log

import (
	"fmt"

	"edgehub/pkg/log/record"
)

const (
	// builderRecords and builderBytes bound one batch of single records: what
	// the flusher writes to segments is no larger.
	builderRecords = 512
	builderBytes   = 256 << 10

	// partitionOverhead bounds what a partition adds to an entry besides its
	// records: batch header, section header, slack of the last builder.
	partitionOverhead = 256
)

// pend is what the open generation holds of a partition. The partition's mutex
// guards it until the committer takes it; then it is the committer's.
type pend struct {
	base    int64 // first offset
	next    int64 // set when taken
	b       *record.Builder
	bBase   int64 // first offset in b
	buf     []byte
	pieces  []pendPiece // of buf, in offset order
	bytes   int64       // reserved for it
	records int64
}

// pendPiece ends at end in buf and holds offsets below next.
type pendPiece struct {
	own   bool
	end   int
	next  int64
	maxTS int64
}

// closeBuilder turns the open builder's records into a batch in buf.
func (pd *pend) closeBuilder(epoch int32) {
	if pd.b == nil || pd.b.Count() == 0 {
		return
	}
	if pd.buf == nil {
		pd.buf = make([]byte, 0, pd.b.Size())
	}
	at := len(pd.buf)
	pd.buf = pd.b.Build(pd.buf, pd.bBase, epoch, record.None)
	h, err := record.PeekHeader(pd.buf[at:])
	if err != nil {
		panic(fmt.Sprintf("log: built a bad batch: %v", err)) // broken invariant
	}
	pd.b.Reset()
	pd.addPiece(true, &h)
}

func (pd *pend) addPiece(own bool, h *record.Header) {
	if n := len(pd.pieces); n > 0 && pd.pieces[n-1].own == own {
		last := &pd.pieces[n-1]
		last.end, last.next, last.maxTS = len(pd.buf), h.NextOffset(), max(last.maxTS, h.MaxTimestamp)
		return
	}
	pd.pieces = append(pd.pieces, pendPiece{own, len(pd.buf), h.NextOffset(), h.MaxTimestamp})
}

// maxItem is the largest batch or group that one entry surely takes.
func (l *Log) maxItem() int64 { return l.j.slotBytes / 2 }

// reserve waits until n more bytes may be pending. A single item larger than
// the limit passes when nothing else is pending.
//
// A full disk refuses what would have to wait and, with user set, also what
// would not: bytes that are not of internal topics alone.
func (l *Log) reserve(n int64, user bool) error {
	if user {
		if err := l.refused(); err != nil {
			return err
		}
	}
	v := l.pending.Add(n)
	if v > l.pendLimit/2 && l.interval > 0 {
		l.hurry()
	}
	if v <= l.pendLimit || v == n {
		return nil
	}
	l.pending.Add(-n)
	l.pendMu.Lock()
	defer l.pendMu.Unlock()
	for {
		select {
		case <-l.failed:
			return l.Err()
		case <-l.closeCh:
			return record.ErrClosed
		default:
		}
		if err := l.refused(); err != nil {
			return err
		}
		if v := l.pending.Load(); v != 0 && v+n > l.pendLimit {
			l.pendFree.Wait()
		} else if l.pending.CompareAndSwap(v, v+n) {
			return nil
		}
	}
}

// release gives n pending bytes back.
func (l *Log) release(n int64) {
	l.pending.Add(-n)
	l.wakePending()
}

func (l *Log) wakePending() {
	l.pendMu.Lock()
	l.pendFree.Broadcast()
	l.pendMu.Unlock()
}

// enter takes the gate for an append that has reserved n bytes. On nil the
// caller must leave.
func (l *Log) enter(n int64) error {
	l.gate.RLock()
	if !l.closing && !l.isFailed() {
		return nil
	}
	closing := l.closing
	l.gate.RUnlock()
	l.release(n)
	if closing {
		return record.ErrClosed
	}
	return l.Err()
}

// leave gives the gate back and makes the committer come. It returns the
// generation's LSN.
func (l *Log) leave() LSN {
	lsn := l.gen.lsn
	l.gate.RUnlock()
	l.kick()
	return lsn
}

func (l *Log) isFailed() bool {
	select {
	case <-l.failed:
		return true
	default:
		return false
	}
}

// kick makes the committer look. It costs a load when it is already coming.
func (l *Log) kick() {
	if l.kicked.Load() || !l.kicked.CompareAndSwap(false, true) {
		return
	}
	select {
	case l.commitCh <- struct{}{}:
	default:
	}
}

// recordBytes bounds what rec takes in a batch.
func recordBytes(rec *record.Record) int64 {
	n := len(rec.Key) + len(rec.Value) + 48
	for i := range rec.Headers {
		n += len(rec.Headers[i].Key) + len(rec.Headers[i].Value) + 10
	}
	return int64(n)
}

// pending begins or returns what the open generation holds of p. p.mu is held,
// the gate is shared.
func (p *Partition) pending() *pend {
	if p.pend == nil {
		p.pend = &pend{base: p.next}
		l := p.log
		l.genMu.Lock()
		l.gen.dirty = append(l.gen.dirty, p)
		l.genMu.Unlock()
	}
	return p.pend
}

// appendRecord gives rec its offset. p.mu is held, the gate is shared.
func (p *Partition) appendRecord(rec *record.Record, reserved int64) int64 {
	pd := p.pending()
	if pd.b == nil {
		pd.b = p.log.builders.Get().(*record.Builder)
	}
	if pd.b.Count() == 0 {
		pd.bBase = p.next
	}
	pd.b.Append(rec)
	pd.bytes += reserved
	pd.records++
	off := p.next
	p.next++
	if pd.b.Count() >= builderRecords || pd.b.Size() >= builderBytes {
		pd.closeBuilder(p.log.epoch)
	}
	return off
}

// Append gives rec the next offset and leaves; readers see it once the commit
// lsn is durable. It waits only while more than Options.PendingBytes are not
// yet committed. rec's bytes are copied; its Offset is ignored.
//
// Errors: ErrTooLarge, ErrUnknownTopic (deleted), ErrStorage, ErrClosed.
// In a topic of durability interval or none lsn is durable already: the record
// is written with the next commit, and a power cut before that loses it.
//
// ErrStorage while Log.Err is nil means that the disk is full: records are taken
// again when there is room.
func (p *Partition) Append(rec *record.Record) (offset int64, lsn LSN, err error) {
	l := p.log
	n := recordBytes(rec)
	if n > int64(p.maxBytes.Load()) {
		return 0, 0, fmt.Errorf("%w: a record of %d bytes, %s takes %d", record.ErrTooLarge, n, p.topic.name, p.maxBytes.Load())
	}
	n += partitionOverhead / 8 // batches hold more than one record on the whole
	if err := l.reserve(n, !p.topic.internal); err != nil {
		return 0, 0, err
	}
	if err := l.enter(n); err != nil {
		return 0, 0, err
	}
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		l.leave()
		l.release(n)
		return 0, 0, p.errGone()
	}
	offset = p.appendRecord(rec, n)
	p.mu.Unlock()
	return offset, p.ackAt(l.leave()), nil
}

// ackAt is the commit with which an append of commit lsn counts as done: the
// last durable one where the topic's durability is interval or none, so that
// nobody waits.
func (p *Partition) ackAt(lsn LSN) LSN {
	if p.loose.Load() {
		return min(lsn, p.log.Durable())
	}
	return lsn
}

func (p *Partition) errGone() error {
	return fmt.Errorf("%w: %s is deleted", record.ErrUnknownTopic, p.topic.name)
}

// GroupRecord is a record for a partition.
type GroupRecord struct {
	Partition *Partition
	Record    record.Record
}

// AppendGroup appends all records, of several partitions, atomically: one
// journal entry holds them all or, after a crash, none is there. Offsets are in
// the order of recs. lsn is that of the entry, whatever the topics' durability.
// It is else like Append.
func (l *Log) AppendGroup(recs []GroupRecord) (offsets []int64, lsn LSN, err error) {
	n, user := int64(0), false
	for i := range recs {
		p, k := recs[i].Partition, recordBytes(&recs[i].Record)
		user = user || !p.topic.internal
		if k > int64(p.maxBytes.Load()) {
			return nil, 0, fmt.Errorf("%w: a record of %d bytes, %s takes %d", record.ErrTooLarge, k, p.topic.name, p.maxBytes.Load())
		}
		n += k + partitionOverhead/8
	}
	if n > l.maxItem() {
		return nil, 0, fmt.Errorf("%w: a group of %d bytes, one journal entry takes %d", record.ErrTooLarge, n, l.maxItem())
	}
	if len(recs) == 0 {
		return nil, l.Durable(), nil
	}
	if err := l.reserve(n, user); err != nil {
		return nil, 0, err
	}
	if err := l.enter(n); err != nil {
		return nil, 0, err
	}
	// Deleting takes the gate exclusively, so what is there now stays.
	for i := range recs {
		p := recs[i].Partition
		p.mu.Lock()
		gone := p.gone
		p.mu.Unlock()
		if gone {
			l.leave()
			l.release(n)
			return nil, 0, p.errGone()
		}
	}
	offsets = make([]int64, len(recs))
	for i := range recs {
		p := recs[i].Partition
		p.mu.Lock()
		k := recordBytes(&recs[i].Record) + partitionOverhead/8
		offsets[i] = p.appendRecord(&recs[i].Record, k)
		p.mu.Unlock()
	}
	return offsets, l.leave(), nil
}

// AppendBatches appends produced batches as they are; the caller has checked
// them (record.CheckProduced). Offset and epoch are stamped into them. The
// batches are copied before it returns. There is an answer for each, in order;
// what it says is true once lsn is durable, of duplicates too. Batches with a
// producer id follow Kafka's rule of idempotence.
//
// Errors in answers: ErrUnknownTopic, ErrTooLarge, ErrOutOfOrderSeq,
// ErrProducerFenced, ErrStorage, ErrClosed, and those of record.PeekHeader.
func (l *Log) AppendBatches(in []record.Append) (out []record.Appended, lsn LSN) {
	out = make([]record.Appended, len(in))
	lsn = l.Durable()
	for i := range in {
		n, err := l.appendBatch(&in[i], &out[i])
		out[i].Err = err
		lsn = max(lsn, n)
	}
	return out, lsn
}

func (l *Log) appendBatch(in *record.Append, out *record.Appended) (LSN, error) {
	p, err := l.Partition(in.Topic, in.Partition)
	if err != nil {
		return 0, err
	}
	h, err := record.PeekHeader(in.Batch)
	if err != nil {
		return 0, err
	}
	if len(in.Batch) != h.Size() || h.Count < 1 || h.LastOffsetDelta != h.Count-1 {
		return 0, fmt.Errorf("%w: not one produced batch", record.ErrCorrupt)
	}
	if len(in.Batch) > int(p.maxBytes.Load()) {
		return 0, fmt.Errorf("%w: %d bytes, %s takes %d", record.ErrTooLarge, len(in.Batch), in.Topic, p.maxBytes.Load())
	}
	n := int64(len(in.Batch)) + partitionOverhead
	if err := l.reserve(n, !p.topic.internal); err != nil {
		return 0, err
	}
	if err := l.enter(n); err != nil {
		return 0, err
	}
	p.mu.Lock()
	keep, err := p.appendProduced(in.Batch, &h, n, out)
	out.LogStart = p.start
	p.mu.Unlock()
	lsn := l.leave()
	if !keep {
		l.release(n)
	}
	if err != nil {
		return 0, err
	}
	return p.ackAt(lsn), nil
}

// appendProduced appends one produced batch, or finds that it is there
// already (keep is false). p.mu is held, the gate is shared.
func (p *Partition) appendProduced(b []byte, h *record.Header, n int64, out *record.Appended) (keep bool, err error) {
	if p.gone {
		return false, p.errGone()
	}
	now := p.log.time.Load()
	if h.Idempotent() {
		base, dup, err := p.pids.check(h, now)
		if err != nil {
			return false, err
		}
		if dup {
			out.BaseOffset, out.Duplicate = base, true
			p.log.stat.duplicates.Add(1)
			return false, nil
		}
	}
	pd := p.pending()
	pd.closeBuilder(p.log.epoch)
	record.Stamp(b, p.next, p.log.epoch)
	pd.buf = append(pd.buf, b...)
	h.BaseOffset, h.LeaderEpoch = p.next, p.log.epoch
	if h.Idempotent() {
		if p.pids == nil {
			p.pids = producers{}
		}
		p.pids.add(h, p.next, now)
	}
	out.BaseOffset = p.next
	p.next += int64(h.Count)
	pd.bytes += n
	pd.records += int64(h.Count)
	pd.addPiece(false, h)
	return true, nil
}
