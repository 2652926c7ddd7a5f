package log

import (
	"fmt"

	"edgehub/pkg/log/record"
)

// replay puts the records of entries from the tail on into the heads, but for
// those that segments hold (J5).
func (l *Log) replay(fd *found) error {
	for i := range fd.js.entries {
		e := &fd.js.entries[i]
		if e.seq < fd.js.tail {
			continue
		}
		raw, err := fd.js.payload(e)
		if err != nil {
			return err
		}
		l.report.EntriesReplayed++
		err = sections(raw, func(typ byte, body []byte) error {
			if typ != sectionBatches {
				return nil
			}
			return batchPieces(body, func(pc piece) error { return l.replayPiece(fd, e, pc) })
		})
		if err != nil {
			return fmt.Errorf("replay journal entry %d: %w", e.seq, err)
		}
		if l.headBytes.Load() > l.opt.HeadBytes {
			if err := l.flush.largest(l.opt.HeadBytes / 2); err != nil && !isFull(err) {
				return err
			}
		}
	}
	return nil
}

func (l *Log) replayPiece(fd *found, e *foundEntry, pc piece) error {
	t := l.byID[pc.topic]
	if t == nil || int(pc.partition) >= len(t.parts) {
		return nil // deleted
	}
	p := t.parts[pc.partition]
	from := 0
	_, err := record.Batches(pc.data, func(h record.Header, raw []byte) error {
		from += len(raw)
		if end := p.headEnd(); h.BaseOffset > end && fd.st.holds(tpKey{pc.topic, pc.partition}, end) {
			return nil // a later entry carries those before, and these
		}
		if h.Idempotent() {
			if p.pids == nil {
				p.pids = producers{}
			}
			p.pids.add(&h, h.BaseOffset, e.time)
		}
		end := p.headEnd()
		if h.NextOffset() <= end {
			return nil
		}
		if h.BaseOffset < end {
			if raw = l.trimBatch(raw, &h, end); raw == nil {
				return nil
			}
		}
		if h.BaseOffset > end {
			l.lostRange(p, end, h.BaseOffset-1, "", "journal entry is lost")
		}
		c := chunk{
			base: h.BaseOffset, next: h.NextOffset(), seq: e.seq, own: !pc.produced,
			data: raw, maxTS: h.MaxTimestamp, time: e.time,
		}
		p.mu.Lock()
		p.head = append(p.head, c)
		p.headBytes += int64(len(raw))
		p.mu.Unlock()
		l.headBytes.Add(int64(len(raw)))
		l.report.RecordsReplayed += int64(h.Count)
		return nil
	})
	if err == nil && from != len(pc.data) {
		err = errSection
	}
	return err
}

// headEnd is the offset behind the last record that is there.
func (p *Partition) headEnd() int64 {
	if n := len(p.head); n > 0 {
		return p.head[n-1].next
	}
	return max(p.flushed, p.start)
}

// trimBatch keeps the records of a batch from an offset on. It happens only
// where damage has cut a segment inside a merged batch.
func (l *Log) trimBatch(raw []byte, h *record.Header, from int64) []byte {
	var b record.Builder
	err := record.Records(raw, func(r *record.Record) error {
		if r.Offset >= from {
			b.Append(r)
		}
		return nil
	})
	if err != nil || b.Count() == 0 {
		return nil
	}
	out := b.Build(nil, from, h.LeaderEpoch, record.None)
	*h, _ = record.PeekHeader(out)
	return out
}
