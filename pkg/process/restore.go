package process

import (
	"crypto/rand"
	"fmt"

	"edgehub/pkg/log/record"
)

// restore brings the task's state to where its last step left it, or begins
// anew.
func (t *task) restore() error {
	snaps, bad, err := t.store.open()
	if err != nil {
		return err
	}
	for _, err := range bad {
		t.work.SnapshotErrors++
		t.logger.Warn("snapshot passed over", "err", err)
	}
	past := t.past
	t.past = nil
	t.newer, t.older = -1, -1
	if last := past.last(); last != nil {
		t.seq, t.last = last.seq, *last
		// What the older snapshot may lack: all that is there.
		t.older = past[0].offset
		t.setNeed()
	}
	for _, s := range snaps {
		if s.spec != t.spec.id || s.topic != t.lineage.topic {
			continue
		}
		steps, ok := past.since(s.seq, &s.lineage)
		if !ok {
			continue
		}
		w := newWindows(t.spec)
		if err := w.load(s.state); err != nil {
			t.work.SnapshotErrors++
			t.logger.Warn("snapshot passed over", "number", s.number, "err", err)
			continue
		}
		t.w, t.lineage, t.next = w, s.lineage, s.next
		if n := len(steps); n > 0 {
			t.newer, t.lineage = steps[0].offset, steps[n-1].lineage
		}
		return t.replay(steps)
	}
	t.w = newWindows(t.spec)
	if last := past.last(); last != nil && last.spec == t.spec.id && last.topic == t.lineage.topic {
		if steps, ok := past.since(last.first-1, &last.lineage); ok {
			t.lineage, t.next = last.lineage, last.start
			return t.replay(steps)
		}
	}
	return t.begin(snaps, past.last())
}

// begin starts a lineage: where the last one stopped, if it was of the same
// topic, else at the oldest record.
func (t *task) begin(snaps []*snapshot, last *stepAt) error {
	if _, err := rand.Read(t.lineage.id[:]); err != nil {
		return err
	}
	off := t.src.Offsets()
	t.next = off.LogStart
	why, from := "", int64(-1)
	if last != nil && last.topic == t.lineage.topic {
		from = last.next
		if last.done > 0 && last.tick == nil {
			from++ // some of its results are out
		}
		if why = "state lost"; last.spec != t.spec.id {
			why = "definition changed"
		}
	}
	for i, s := range snaps {
		if i == 0 {
			t.work.Discarded = int64(s.open)
		}
		if s.topic == t.lineage.topic {
			from = max(from, s.next)
			if s.spec != t.spec.id {
				why = "definition changed"
			} else if why == "" {
				why = "state lost"
			}
		} else if why == "" {
			why = "topic created anew"
		}
	}
	if from >= 0 {
		t.next = min(max(from, off.LogStart), off.HighWatermark)
	}
	t.lineage.start, t.lineage.first = t.next, 0
	if why != "" {
		t.logger.Warn("process begins anew: open windows are discarded", "reason", why, "windows", t.work.Discarded, "offset", t.next)
	} else {
		t.logger.Info("process begins", "topic", t.spec.From, "offset", t.next)
	}
	t.work.Offset = t.next
	return nil
}

// replay reads the input behind the loaded state again, with the ticks of
// steps at their places, up to the last step. Nothing is issued, apart from
// what is left of a tick that was cut in two.
func (t *task) replay(steps history) error {
	t.work.Error = ""
	for i := range steps {
		s := &steps[i]
		if err := t.replayTo(s.next); err != nil {
			return err
		}
		t.skip = 0
		if s.tick == nil {
			t.skip = s.done
			continue
		}
		if s.tick.again {
			continue
		}
		// The last part of this tick says how much of it is out.
		out := s
		for j := i + 1; j < len(steps) && steps[j].tick != nil && steps[j].tick.again; j++ {
			out = &steps[j]
		}
		if out.done == 0 {
			t.w.tick(s.tick.wall, s.tick.idle)
			continue
		}
		if out != &steps[len(steps)-1] {
			return fmt.Errorf("%w: a tick stays cut in two at step %d", errState, out.seq)
		}
		rest := *s.tick
		rest.again = true
		t.skip, t.w.emit = out.done, t.issue
		if err := t.tick(&rest); err != nil {
			return err
		}
		t.w.emit = nil
		break
	}
	t.since = max(t.since, 1)
	t.work.Replayed = t.in.counts.Records
	t.work.Offset = t.next
	t.logger.Info("process resumed", "offset", t.next, "replayed", t.work.Replayed)
	return nil
}

// replayTo takes in the records below offset. Where the log has lost them the
// windows lack them, and it is said.
func (t *task) replayTo(offset int64) error {
	if hw := t.src.Offsets().HighWatermark; offset > hw {
		t.logger.Warn("input ends before the last step", "topic", t.spec.From, "offset", offset, "end", hw)
		offset = hw
	}
	for t.next < offset {
		if t.stopping() {
			return errStopped
		}
		before := t.next
		n, err := t.read(t.next, offset, func(r *record.Record) error {
			t.take(r)
			return nil
		})
		if err != nil {
			return err
		}
		t.since += int64(n)
		if t.next == before {
			t.next = offset // a hole up to it
		}
		t.publish()
	}
	return nil
}
