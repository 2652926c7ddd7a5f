package log

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"edgehub/pkg/log/record"
)

// OffsetsTopic is the internal topic, of one partition, in which the offsets of
// consumer groups are kept.
//
// Key: version u8 (1), group and topic, each with a uvarint length, partition
// uvarint. Value: version u8 (1), offset i64, leader epoch i32, metadata with a
// uvarint length, hybrid time of the commit i64 ms (big endian); null deletes.
const OffsetsTopic = record.InternalPrefix + "consumer_offsets"

const (
	offsetKeyVersion   = 1
	offsetValueVersion = 1

	// compactAfter records, and four times as many as there are live keys, the
	// topic is compacted: live keys are written again and the log start moves
	// behind the old ones.
	compactAfter = 10_000
	// maxGroupName bounds a group's name, in bytes.
	maxGroupName = 1024
)

// offsetTable keeps the offsets of groups. A commit is visible when it is
// durable.
type offsetTable struct {
	l *Log
	p *Partition // of OffsetsTopic; set once by Open

	// appends is held while records are appended, so that queue is in their
	// order. It may be held long, while the log exerts back-pressure.
	appends sync.Mutex
	since   int // records since the last compaction; guarded by appends

	// mu is never held while anything waits.
	mu     sync.Mutex
	groups map[string]map[record.TopicPartition]record.GroupOffset
	live   int
	queue  []queuedOffset // appended, maybe not durable, oldest first
}

type queuedOffset struct {
	lsn    LSN
	group  string
	off    record.GroupOffset
	delete bool
}

func newOffsetTable(l *Log) *offsetTable {
	return &offsetTable{l: l, groups: map[string]map[record.TopicPartition]record.GroupOffset{}}
}

// CommitOffsets stores a group's offsets, all in one journal entry. They are
// visible and durable with the commit that it returns.
//
// Errors: ErrInvalidConfig (names or metadata too long), ErrStorage, ErrClosed.
func (l *Log) CommitOffsets(group string, offs []record.GroupOffset) (LSN, error) {
	if len(group) > maxGroupName {
		return 0, fmt.Errorf("%w: group name of %d bytes, at most %d", record.ErrInvalidConfig, len(group), maxGroupName)
	}
	q := make([]queuedOffset, len(offs))
	for i, o := range offs {
		if len(o.Metadata) > record.MaxOffsetMetadata || len(o.Topic) > record.MaxTopicName {
			return 0, fmt.Errorf("%w: offset metadata of %d bytes, at most %d", record.ErrInvalidConfig, len(o.Metadata), record.MaxOffsetMetadata)
		}
		q[i] = queuedOffset{group: group, off: o}
	}
	t := l.offsets
	t.appends.Lock()
	defer t.appends.Unlock()
	lsn, err := t.append(q)
	if err != nil {
		return 0, err
	}
	return lsn, t.compact()
}

// append appends offsets and queues them. appends is held.
func (t *offsetTable) append(q []queuedOffset) (LSN, error) {
	now := t.l.now()
	recs := make([]GroupRecord, len(q))
	for i := range q {
		recs[i] = GroupRecord{Partition: t.p, Record: record.Record{Timestamp: now, Key: q[i].key()}}
		if !q[i].delete {
			recs[i].Record.Value = q[i].value(now)
		}
	}
	_, lsn, err := t.l.AppendGroup(recs)
	if err != nil {
		return 0, err
	}
	t.since += len(q)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range q {
		q[i].lsn = lsn
	}
	t.queue = append(t.queue, q...)
	t.settle()
	return lsn, nil
}

// settle makes durable commits visible. mu is held.
func (t *offsetTable) settle() {
	d, n := t.l.Durable(), 0
	for ; n < len(t.queue) && t.queue[n].lsn <= d; n++ {
		t.set(&t.queue[n])
	}
	if n > 0 {
		t.queue = slices.Delete(t.queue, 0, n)
	}
}

// set applies one offset. mu is held.
func (t *offsetTable) set(q *queuedOffset) {
	g := t.groups[q.group]
	_, had := g[q.off.TopicPartition]
	switch {
	case q.delete && had:
		delete(g, q.off.TopicPartition)
		t.live--
		if len(g) == 0 {
			delete(t.groups, q.group)
		}
	case !q.delete:
		if g == nil {
			g = map[record.TopicPartition]record.GroupOffset{}
			t.groups[q.group] = g
		}
		g[q.off.TopicPartition] = q.off
		if !had {
			t.live++
		}
	}
}

// compact writes the live keys again and moves the log start behind the old
// records, once there are enough of those. appends is held.
func (t *offsetTable) compact() error {
	t.mu.Lock()
	t.settle()
	due := t.since > compactAfter && t.since > 4*t.live
	var all []queuedOffset
	if due {
		// What is queued overlays what is durable.
		latest := map[string]map[record.TopicPartition]queuedOffset{}
		put := func(q queuedOffset) {
			if latest[q.group] == nil {
				latest[q.group] = map[record.TopicPartition]queuedOffset{}
			}
			latest[q.group][q.off.TopicPartition] = q
		}
		for g, m := range t.groups {
			for _, o := range m {
				put(queuedOffset{group: g, off: o})
			}
		}
		for _, q := range t.queue {
			put(q)
		}
		for _, m := range latest {
			for _, q := range m {
				if !q.delete {
					all = append(all, q)
				}
			}
		}
	}
	t.mu.Unlock()
	if !due {
		return nil
	}
	slices.SortFunc(all, func(a, b queuedOffset) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.off.Topic, b.off.Topic), cmp.Compare(a.off.Partition, b.off.Partition))
	})
	t.p.mu.Lock()
	first := t.p.next
	t.p.mu.Unlock()
	for part := range slices.Chunk(all, 256) {
		if _, err := t.append(part); err != nil {
			return err
		}
	}
	t.since = 0
	// The move is in the same entry as the last of them or in a later one.
	_, err := t.p.moveStart(first)
	return err
}

// position is the group's durable offset in a partition, 0 if it has none.
func (t *offsetTable) position(group string, tp record.TopicPartition) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	return t.groups[group][tp].Offset
}

// forgetTopic deletes all groups' offsets in a topic that is deleted.
func (t *offsetTable) forgetTopic(topic string) error {
	t.appends.Lock()
	defer t.appends.Unlock()
	t.mu.Lock()
	t.settle()
	var q []queuedOffset
	add := func(group string, tp record.TopicPartition) {
		if tp.Topic == topic {
			q = append(q, queuedOffset{group: group, off: record.GroupOffset{TopicPartition: tp}, delete: true})
		}
	}
	for g, m := range t.groups {
		for tp := range m {
			add(g, tp)
		}
	}
	for _, p := range t.queue {
		add(p.group, p.off.TopicPartition)
	}
	t.mu.Unlock()
	for part := range slices.Chunk(q, 256) {
		if _, err := t.append(part); err != nil {
			return err
		}
	}
	return nil
}

// GroupOffsets is what a group has durably committed, sorted by topic and
// partition; nil for a group that is not known.
func (l *Log) GroupOffsets(group string) []record.GroupOffset {
	t := l.offsets
	t.mu.Lock()
	t.settle()
	var out []record.GroupOffset
	for _, o := range t.groups[group] {
		out = append(out, o)
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b record.GroupOffset) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out
}

// Groups are the names of all groups with offsets, sorted.
func (l *Log) Groups() []string {
	t := l.offsets
	t.mu.Lock()
	t.settle()
	out := make([]string, 0, len(t.groups))
	for g := range t.groups {
		out = append(out, g)
	}
	t.mu.Unlock()
	slices.Sort(out)
	return out
}

// load rebuilds the table from the topic.
func (t *offsetTable) load(p *Partition) error {
	t.p = p
	t.mu.Lock()
	defer t.mu.Unlock()
	for next := p.Offsets().LogStart; ; {
		f, err := p.Fetch(next, 1<<20, nil)
		if err != nil {
			return err
		}
		if len(f.Batches) == 0 {
			return nil
		}
		_, err = record.Batches(f.Batches, func(h record.Header, raw []byte) error {
			next = h.NextOffset()
			return record.Records(raw, func(r *record.Record) error {
				if q, err := parseOffset(r); err == nil && r.Offset >= f.LogStart {
					t.set(&q)
				}
				t.since++
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
}

func (q *queuedOffset) key() []byte {
	b := make([]byte, 0, 8+len(q.group)+len(q.off.Topic))
	b = append(b, offsetKeyVersion)
	b = binary.AppendUvarint(b, uint64(len(q.group)))
	b = append(b, q.group...)
	b = binary.AppendUvarint(b, uint64(len(q.off.Topic)))
	b = append(b, q.off.Topic...)
	return binary.AppendUvarint(b, uint64(q.off.Partition))
}

func (q *queuedOffset) value(now int64) []byte {
	b := make([]byte, 0, 24+len(q.off.Metadata))
	b = append(b, offsetValueVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(q.off.Offset))
	b = binary.BigEndian.AppendUint32(b, uint32(q.off.LeaderEpoch))
	b = binary.AppendUvarint(b, uint64(len(q.off.Metadata)))
	b = append(b, q.off.Metadata...)
	return binary.BigEndian.AppendUint64(b, uint64(now))
}

// parseOffset decodes a record of OffsetsTopic.
func parseOffset(r *record.Record) (queuedOffset, error) {
	var q queuedOffset
	c := cursor{b: r.Key}
	version := c.u8()
	q.group = string(c.bytes())
	q.off.Topic = string(c.bytes())
	part := c.uvarint()
	if c.bad || version != offsetKeyVersion || part > 1<<30 {
		return q, errSection
	}
	q.off.Partition = int32(part)
	if q.delete = r.Value == nil; q.delete {
		return q, nil
	}
	c = cursor{b: r.Value}
	version = c.u8()
	q.off.Offset = int64(c.u64())
	q.off.LeaderEpoch = int32(c.u32())
	q.off.Metadata = string(c.bytes())
	if c.bad || version != offsetValueVersion {
		return q, errSection
	}
	return q, nil
}
