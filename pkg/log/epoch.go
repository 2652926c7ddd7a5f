package log

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"edgehub/pkg/log/record"
)

// loadInternal reads the log's own topics: where each epoch began, and the
// offsets of groups.
func (l *Log) loadInternal() error {
	if err := l.loadLedger(); err != nil {
		return fmt.Errorf("read %s: %w", LedgerTopic, err)
	}
	if err := l.loadEpochs(); err != nil {
		return fmt.Errorf("read %s: %w", record.EpochsTopic, err)
	}
	p, err := l.Partition(OffsetsTopic, 0)
	if err == nil {
		err = l.offsets.load(p)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", OffsetsTopic, err)
	}
	return nil
}

func (l *Log) loadEpochs() error {
	p, err := l.Partition(record.EpochsTopic, 0)
	if err != nil {
		return err
	}
	for next := p.Offsets().LogStart; ; {
		f, err := p.Fetch(next, 1<<20, nil)
		if err != nil {
			return err
		}
		if len(f.Batches) == 0 {
			break
		}
		_, err = record.Batches(f.Batches, func(h record.Header, raw []byte) error {
			next = h.NextOffset()
			return record.Records(raw, func(r *record.Record) error {
				if e, err := record.ParseEpochStart(r.Value); err == nil && r.Offset >= f.LogStart {
					l.applyEpoch(&e)
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// applyEpoch notes in every partition where an epoch began.
func (l *Log) applyEpoch(e *record.EpochStart) {
	l.epoch = max(l.epoch, e.Number+1)
	starts := make(map[tpKey]int64, len(e.Starts))
	for _, s := range e.Starts {
		if id, err := record.ParseTopicID(s.Topic); err == nil {
			starts[tpKey{id, s.Partition}] = s.Offset
		}
	}
	for _, p := range l.parts {
		p.mu.Lock()
		p.addEpoch(e.Number, starts[tpKey{p.topic.id, p.index}])
		p.mu.Unlock()
	}
}

// beginEpoch puts the epoch's section and record into the first generation,
// before anything else can be appended and before the committer runs.
func (l *Log) beginEpoch() error {
	e := record.EpochStart{Number: l.epoch, ID: hex.EncodeToString(l.epochID[:]), Time: l.now()}
	for _, p := range l.parts {
		p.mu.Lock()
		if p.next != 0 {
			e.Starts = append(e.Starts, record.PartitionStart{Topic: p.topic.id.String(), Partition: p.index, Offset: p.next})
		}
		p.addEpoch(l.epoch, p.next)
		p.mu.Unlock()
	}
	slices.SortFunc(e.Starts, func(a, b record.PartitionStart) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	body := append(binary.BigEndian.AppendUint32(nil, uint32(l.epoch)), l.epochID[:]...)
	ctl := appendSection(nil, sectionEpoch, body)
	for _, m := range l.newTopics {
		ctl = appendSection(ctl, sectionTopic, m.encode())
	}
	l.newTopics = nil
	p, err := l.Partition(record.EpochsTopic, 0)
	if err != nil {
		return err
	}
	rec := record.Record{Timestamp: e.Time, Value: e.Encode()}
	n := recordBytes(&rec)
	if n > l.maxItem() {
		return fmt.Errorf("the epoch record of %d partitions takes %d bytes, one journal entry %d", len(e.Starts), n, l.maxItem())
	}
	if err := l.reserve(n, false); err != nil {
		return err
	}
	if err := l.enter(n); err != nil {
		return err
	}
	l.genMu.Lock()
	l.gen.control = append(l.gen.control, ctl...)
	l.genMu.Unlock()
	p.mu.Lock()
	p.appendRecord(&rec, n)
	p.mu.Unlock()
	l.leave()
	l.hurry()
	return nil
}
