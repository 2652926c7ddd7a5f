package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
)

// Windows of lanes, in bytes.
const (
	windowFirst = 128 << 10 // granted after a lane's first frame
	windowMost  = 4 << 20   // to one lane
	laneIdle    = 2 * time.Minute
)

// grants shares a node's window among its lanes: what may be in flight to it
// sums to limit at most, one batch per lane aside.
type grants struct {
	limit int64

	mu    sync.Mutex
	total int64
	m     map[grantKey]*grant
}

type grantKey struct {
	p      *partition
	source forward.Source
}

type grant struct {
	bytes int64
	used  time.Time
}

func newGrants(limit int64) *grants {
	return &grants{limit: limit, m: map[grantKey]*grant{}}
}

// open begins a lane with one batch: window 0.
func (g *grants) open(p *partition, s forward.Source, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := grantKey{p, s}
	if old := g.m[k]; old != nil {
		g.total -= old.bytes
	}
	g.m[k] = &grant{used: now}
}

// grow is the lane's window after a reply: doubled while there is room, cut
// to its share when lanes are many.
func (g *grants) grow(p *partition, s forward.Source, now time.Time) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.m[grantKey{p, s}]
	if l == nil {
		return 0
	}
	l.used = now
	want := min(max(l.bytes*2, windowFirst), windowMost, g.limit/int64(len(g.m)))
	want = min(want, l.bytes+g.limit-g.total)
	g.total += want - l.bytes
	l.bytes = want
	return want
}

// drop ends the lanes of p.
func (g *grants) drop(p *partition) {
	g.remove(func(k grantKey, _ *grant) bool { return k.p == p })
}

// expire ends the windows of lanes that have long been silent.
func (g *grants) expire(now time.Time) {
	g.remove(func(_ grantKey, l *grant) bool { return now.Sub(l.used) > laneIdle })
}

func (g *grants) remove(f func(grantKey, *grant) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, l := range g.m {
		if f(k, l) {
			g.total -= l.bytes
			delete(g.m, k)
		}
	}
}

func (g *grants) stats() (lanes int, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.m), g.total
}

// onLane takes an Open or Append of a site. It runs in the subscription's
// goroutine, so that a lane's messages are queued in order.
func (c *Core) onLane(p *partition, m *nats.Msg) {
	site, ok := c.trustReply(m)
	if !ok {
		return
	}
	answer := func(r forward.Reply) {
		if r.Code == forward.CodeRefused {
			c.stats.refused.Add(1)
			c.log.Warn("lane message refused", "site", site, "partition", p.String(), "reason", r.Message)
		}
		c.reply(m, forward.KindReply, &r)
	}
	r, err := laneRequest(site, p, m.Data)
	if err != nil {
		code := forward.CodeRefused
		if errors.Is(err, forward.ErrVersion) {
			code = forward.CodeVersion
		}
		answer(forward.Reply{Code: code, Message: err.Error()})
		return
	}
	var source forward.Source
	if r.kind == openRequest {
		source = r.open.Source
		if code, why := c.mapped(p, source); code != forward.CodeOK {
			answer(forward.Reply{Code: code, Message: why})
			return
		}
	} else {
		source = r.append.Source
	}
	// Uplinks that keep to their windows never meet this bound.
	if c.laneBytes.Add(int64(r.size)) > 2*c.opt.WindowBytes {
		c.laneBytes.Add(-int64(r.size))
		answer(forward.Reply{Code: forward.CodeBusy, Message: "the node has too much in flight"})
		return
	}
	r.done = func(o outcome) {
		c.laneBytes.Add(-int64(r.size))
		rep := o.reply
		switch {
		case o.err != nil:
			rep = forward.Reply{Code: forward.CodeNoLeader, Message: o.err.Error()}
		case r.kind == openRequest:
			if rep.Code == forward.CodeOK {
				c.lanes.open(p, source, time.Now())
			}
		default:
			rep.Window = c.lanes.grow(p, source, time.Now())
			if rep.Code == forward.CodeOK {
				c.stats.forwarded.Add(int64(len(r.heads)))
			} else if rep.Code == forward.CodeMismatch {
				c.stats.mismatches.Add(1)
			}
		}
		answer(rep)
	}
	if err := p.enqueue(context.Background(), r, false); err != nil {
		c.laneBytes.Add(-int64(r.size))
		code := forward.CodeNoLeader
		if errors.Is(err, record.ErrUnavailable) {
			code = forward.CodeBusy
		}
		answer(forward.Reply{Code: code, Message: err.Error()})
	}
}

// laneRequest decodes and verifies a lane's message: the site is the
// subject's, and an Append's batches are whole, contiguous from First to
// Last, of records only. The request aliases data.
func laneRequest(site string, p *partition, data []byte) (*request, error) {
	kind, err := forward.KindOf(data)
	if err != nil {
		return nil, err
	}
	switch kind {
	case forward.KindOpen:
		var o forward.Open
		rest, err := forward.Decode(data, kind, &o)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("%w: %d bytes behind an Open", forward.ErrMalformed, len(rest))
		}
		if o.Source.Site != site {
			return nil, fmt.Errorf("site %q spoke as %q", site, o.Source.Site)
		}
		return &request{kind: openRequest, open: &o, size: len(data)}, nil
	case forward.KindAppend:
		var a forward.Append
		rest, err := forward.Decode(data, kind, &a)
		if err != nil {
			return nil, err
		}
		if a.Source.Site != site {
			return nil, fmt.Errorf("site %q spoke as %q", site, a.Source.Site)
		}
		r := &request{kind: appendRequest, append: &a, size: len(data)}
		if r.batches, r.heads, err = checkBatches(&a, rest); err != nil {
			return nil, err
		}
		return r, nil
	}
	return nil, fmt.Errorf("%w: kind %d on a lane", forward.ErrMalformed, kind)
}

// checkBatches verifies the batches of an Append.
func checkBatches(a *forward.Append, b []byte) ([][]byte, []record.Header, error) {
	switch {
	case a.First < 0 || a.Last < a.First-1:
		return nil, nil, fmt.Errorf("append of offsets %d to %d", a.First, a.Last)
	case len(b) == 0 && a.Last >= a.First:
		return nil, nil, fmt.Errorf("append of offsets %d to %d without batches", a.First, a.Last)
	case len(b) == 0 && len(a.Gaps) == 0:
		return nil, nil, errors.New("append of nothing")
	case len(b) > maxFrameBatches:
		return nil, nil, fmt.Errorf("append of %d bytes, at most %d", len(b), maxFrameBatches)
	}
	var raws [][]byte
	var heads []record.Header
	next := a.First
	for len(b) > 0 {
		h, err := record.Check(b)
		if err != nil {
			return nil, nil, fmt.Errorf("batch at offset %d: %w", next, err)
		}
		switch {
		case h.Control() || h.Transactional():
			return nil, nil, fmt.Errorf("batch at offset %d is control or transactional", next)
		case h.Idempotent():
			return nil, nil, fmt.Errorf("batch at offset %d has producer id %d: an uplink clears it", next, h.ProducerID)
		case h.Codec() > record.Zstd:
			return nil, nil, fmt.Errorf("batch at offset %d: codec %d", next, h.Codec())
		case h.Count < 1 || h.LastOffsetDelta != h.Count-1:
			return nil, nil, fmt.Errorf("batch at offset %d: %d records in %d offsets", next, h.Count, h.LastOffsetDelta+1)
		case h.BaseOffset != next:
			return nil, nil, fmt.Errorf("batch of offset %d where %d was due", h.BaseOffset, next)
		}
		next = h.NextOffset()
		raws = append(raws, b[:h.Size()])
		heads = append(heads, h)
		b = b[h.Size():]
	}
	if next != a.Last+1 {
		return nil, nil, fmt.Errorf("batches end behind offset %d, the append at %d", next-1, a.Last)
	}
	return raws, heads, nil
}

// trustReply is the site of a message, if it may be answered: a site's reply
// subject must lie in its own inbox, else the hub, which may publish
// anything, would do so for it.
func (c *Core) trustReply(m *nats.Msg) (site string, ok bool) {
	site = forward.SiteOf(m.Subject)
	prefix := forward.InboxPrefix(site) + "."
	if c.anonymous {
		prefix = "_INBOX."
	}
	if forward.CheckSite(site) != nil || !strings.HasPrefix(m.Reply, prefix) {
		c.stats.refused.Add(1)
		return "", false
	}
	return site, true
}

// reply answers m.
func (c *Core) reply(m *nats.Msg, k forward.Kind, v any) {
	b, err := forward.Encode(nil, k, v)
	if err != nil {
		c.log.Error("reply cannot be encoded", "subject", m.Subject, "error", err)
		return
	}
	if err := c.nc.Publish(m.Reply, b); err != nil {
		c.log.Debug("reply not sent", "subject", m.Subject, "error", err)
	}
}
