package core

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"edgehub/pkg/forward"
)

// Kinds of a LedgerEntry.
const (
	LedgerGap    = "gap"    // the edge declared offsets that it cannot send
	LedgerRewind = "rewind" // the edge has no more what the core has: restored image, lost tail
)

// LedgerEntry is a line of the core's ledger: the edge's offsets [From, To)
// of an epoch that are not, or not any more, on both sides. It is durable
// before the frame or the answer that it belongs to.
type LedgerEntry struct {
	Time          int64  `json:"time"` // ms since 1970, when the core learnt of it
	Kind          string `json:"kind"`
	Reason        string `json:"reason,omitempty"` // of a gap: lost, retention
	Site          string `json:"site"`
	Log           string `json:"log"`   // the edge's log id
	Topic         string `json:"topic"` // at the core
	Partition     int32  `json:"partition"`
	EdgeTopic     string `json:"edge_topic"` // id
	EdgePartition int32  `json:"edge_partition"`
	Epoch         string `json:"epoch"`
	From          int64  `json:"from"`
	To            int64  `json:"to"`
}

// key makes writing an entry twice the same as once.
func (e LedgerEntry) key() string {
	e.Time = 0
	b, err := json.Marshal(&e)
	if err != nil {
		panic(err) // strings and numbers
	}
	h := sha256.Sum256(b)
	return "ledger." + hex.EncodeToString(h[:12])
}

func ledgerEntry(p *partition, s forward.Source, kind, reason string, epoch forward.ID, from, to int64) LedgerEntry {
	return LedgerEntry{Kind: kind, Reason: reason, Site: s.Site, Log: s.Log.String(), Topic: p.name, Partition: p.num,
		EdgeTopic: s.Topic.String(), EdgePartition: s.Partition, Epoch: epoch.String(), From: from, To: to}
}

func (c *Core) ledger(ctx context.Context, e LedgerEntry) error {
	key := e.key()
	if _, ok := c.meta.get(key); ok {
		return nil
	}
	e.Time = c.now()
	b, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	_, created, err := c.meta.create(ctx, key, b)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if created {
		c.stats.ledgerLines.Add(1)
		c.stats.ledgerRecords.Add(e.To - e.From)
		c.log.Warn("ledger", "kind", e.Kind, "reason", e.Reason, "site", e.Site, "topic", e.Topic,
			"edge_partition", e.EdgePartition, "from", e.From, "to", e.To)
	}
	return nil
}

// ledgerGaps enters the gaps of a draft. Offsets that compaction removed are
// no loss: they are counted only.
func (c *Core) ledgerGaps(ctx context.Context, p *partition, gaps []sourceGap) error {
	for _, g := range gaps {
		if g.Gap.Reason == forward.GapCompacted {
			c.stats.compacted.Add(g.Gap.To - g.Gap.From)
			continue
		}
		if err := c.ledger(ctx, ledgerEntry(p, g.Source, LedgerGap, g.Gap.Reason, g.Gap.Epoch, g.Gap.From, g.Gap.To)); err != nil {
			return err
		}
	}
	return nil
}

// ledgerRewind enters what an edge has lost behind the last position shared.
func (c *Core) ledgerRewind(ctx context.Context, p *partition, s forward.Source, lost []span) error {
	for _, sp := range lost {
		if sp.Start == sp.Next {
			continue
		}
		if err := c.ledger(ctx, ledgerEntry(p, s, LedgerRewind, "", sp.Epoch, sp.Start, sp.Next)); err != nil {
			return err
		}
	}
	return nil
}

// Ledger is the ledger as this node knows it, oldest first.
func (c *Core) Ledger() []LedgerEntry {
	var out []LedgerEntry
	c.meta.list("ledger.", func(_ string, e kvEntry) {
		var l LedgerEntry
		if json.Unmarshal(e.value, &l) == nil {
			out = append(out, l)
		}
	})
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		return a.Time < b.Time || a.Time == b.Time && (a.From < b.From || a.From == b.From && a.Epoch < b.Epoch)
	})
	return out
}
