package log

import (
	"encoding/json"
	"fmt"

	"edgehub/pkg/log/record"
)

// LedgerTopic is the internal topic, of one partition, in which the log
// records every range of offsets that it has lost or let go before its time.
// The values of its records are LedgerEntry in JSON, oldest first. Retention
// and deletion are what the user asked for: they are counted, not entered.
const LedgerTopic = record.InternalPrefix + "ledger"

// Reasons of ledger entries.
const (
	// LedgerDiskFull: the oldest segments made room on a full disk. The entry is
	// durable with the new log start, before any file is unlinked.
	LedgerDiskFull = "disk_full"
	// LedgerDamage: records fail their check or are missing; found at Open or
	// by a reader. The entry follows as soon as it is found.
	LedgerDamage = "damage"
)

// ledgerBytes bounds LedgerTopic.
const ledgerBytes = 64 << 20

// LedgerEntry says that the offsets [From, To) of a partition are not readable
// any more.
type LedgerEntry struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"` // 32 hex digits
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Count     int64  `json:"count"` // records
	Bytes     int64  `json:"bytes"` // of files that were given up; 0 for damage
	Reason    string `json:"reason"`
	Detail    string `json:"detail,omitempty"` // for people
	Time      int64  `json:"time"`             // hybrid time, ms since 1970
}

// Encode is the record value of e.
func (e *LedgerEntry) Encode() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // no type in LedgerEntry can fail
	}
	return b
}

// ParseLedgerEntry is the inverse of Encode.
func ParseLedgerEntry(b []byte) (LedgerEntry, error) {
	var e LedgerEntry
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("ledger entry: %w", err)
	}
	if e.From < 0 || e.To < e.From || e.Partition < 0 {
		return e, fmt.Errorf("ledger entry of %s/%d: offsets %d to %d", e.Topic, e.Partition, e.From, e.To)
	}
	return e, nil
}

// ledger is the log's side of LedgerTopic.
type ledger struct {
	p     *Partition // set by Open
	on    bool       // Open is done: entries go straight into the log
	late  []LedgerEntry
	known map[tpKey][]hole // damages entered in earlier runs
}

// entry is a ledger entry of p.
func (p *Partition) ledgerEntry(from, to, count, bytes int64, reason, detail string) LedgerEntry {
	return LedgerEntry{
		Topic: p.topic.name, TopicID: p.topic.id.String(), Partition: p.index,
		From: from, To: to, Count: count, Bytes: bytes, Reason: reason, Detail: detail, Time: p.log.now(),
	}
}

// enterLedger puts an entry into the open generation, together with control
// sections, so that both are durable or none. apply, if not nil, runs in the
// committer then. It never waits for room: entries are few and small.
func (l *Log) enterLedger(e *LedgerEntry, control []byte, apply func(seq uint64)) (LSN, error) {
	rec := record.Record{Timestamp: e.Time, Key: []byte(e.Topic), Value: e.Encode()}
	n := recordBytes(&rec)
	l.pending.Add(n)
	if err := l.enter(n); err != nil {
		return 0, err
	}
	l.genMu.Lock()
	l.gen.control = append(l.gen.control, control...)
	if apply != nil {
		l.gen.applies = append(l.gen.applies, apply)
	}
	l.genMu.Unlock()
	p := l.ledger.p
	p.mu.Lock()
	p.appendRecord(&rec, n)
	p.mu.Unlock()
	l.stat.ledgerEntries.Add(1)
	return l.leave(), nil
}

// enterLost enters a damage; what Open finds waits until the log runs.
func (p *Partition) enterLost(h hole, file, reason string) {
	l := p.log
	if file != "" {
		reason = file + ": " + reason
	}
	e := p.ledgerEntry(h.first, h.last+1, h.last+1-h.first, 0, LedgerDamage, reason)
	if !l.ledger.on {
		l.ledger.late = append(l.ledger.late, e)
		return
	}
	if _, err := l.enterLedger(&e, nil, nil); err != nil {
		l.log.Warn("a loss is not in the ledger; the next start enters it", "topic", e.Topic, "partition", e.Partition,
			"from", e.From, "to", e.To, "err", err)
	}
}

// loadLedger reads which damages have been entered before: every Open finds
// them again.
func (l *Log) loadLedger() error {
	p, err := l.Partition(LedgerTopic, 0)
	if err != nil {
		return err
	}
	l.ledger.p, l.ledger.known = p, map[tpKey][]hole{}
	return p.eachRecord(func(r *record.Record) {
		e, err := ParseLedgerEntry(r.Value)
		if err != nil || e.Reason != LedgerDamage {
			return
		}
		if id, err := record.ParseTopicID(e.TopicID); err == nil {
			key := tpKey{id, e.Partition}
			l.ledger.known[key] = append(l.ledger.known[key], hole{e.From, e.To - 1})
		}
	})
}

// eachRecord calls f with every record that can be read; it is for Open.
func (p *Partition) eachRecord(f func(r *record.Record)) error {
	for next := p.Offsets().LogStart; ; {
		got, err := p.Fetch(next, 1<<20, nil)
		if err != nil {
			return err
		}
		if len(got.Batches) == 0 {
			return nil
		}
		_, err = record.Batches(got.Batches, func(h record.Header, raw []byte) error {
			next = h.NextOffset()
			return record.Records(raw, func(r *record.Record) error {
				if r.Offset >= got.LogStart {
					f(r)
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
}

// enterFound enters what Open has found lost and no earlier one has entered.
// The committer runs.
func (l *Log) enterFound() error {
	late := l.ledger.late
	l.ledger.late, l.ledger.on = nil, true
	last := LSN(0)
	for i := range late {
		e := &late[i]
		id, err := record.ParseTopicID(e.TopicID)
		if err != nil {
			return err
		}
		if knownLoss(l.ledger.known[tpKey{id, e.Partition}], hole{e.From, e.To - 1}) {
			continue
		}
		if last, err = l.enterLedger(e, nil, nil); err != nil {
			return err
		}
		if i%32 == 31 { // they are to fit into an entry
			if err := l.waitOrFull(last); err != nil {
				return err
			}
		}
	}
	l.ledger.known = nil
	l.hurry()
	return l.waitOrFull(last)
}

// knownLoss says that the holes cover h together.
func knownLoss(holes []hole, h hole) bool {
	for first := h.first; ; {
		next := first
		for _, o := range holes {
			if o.first <= first && first <= o.last {
				next = max(next, o.last+1)
			}
		}
		if next > h.last {
			return true
		}
		if next == first {
			return false
		}
		first = next
	}
}
