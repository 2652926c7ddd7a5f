package core

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"edgehub/pkg/log/record"
)

// groups keeps the offsets of consumer groups: one key per group and topic in
// a replicated KV. The node that leads the KV's stream coordinates all groups
// and has all offsets in memory.
//
// One write is in flight per group; commits that come meanwhile ride in the
// next one. Each write is a compare-and-set on its key, so a coordinator that
// does not know yet that it was deposed cannot undo what the next one took.
type groups struct {
	c  *Core
	kv *kv

	mu     sync.Mutex
	number uint64 // of the office, 0: not the coordinator
	m      map[string]*group
}

type group struct {
	topics  map[string]*groupTopic
	writing bool
	pending map[string]map[int32]groupValue // by topic
	waiters []chan error
}

type groupTopic struct {
	rev  uint64
	offs map[int32]groupValue
}

type groupValue struct {
	Offset   int64  `cbor:"1,keyasint"`
	Epoch    int32  `cbor:"2,keyasint"`
	Metadata string `cbor:"3,keyasint,omitempty"`
}

// maxGroupName bounds group names, in bytes: they stand in a subject.
const maxGroupName = 512

func newGroups(c *Core) *groups {
	return &groups{c: c, kv: newKV(c.js, "hub_offsets"), m: map[string]*group{}}
}

func offsetsKey(group, topic string) string {
	return "g" + base64.RawURLEncoding.EncodeToString([]byte(group)) + "." + strings.ReplaceAll(topic, ".", "=")
}

func parseOffsetsKey(key string) (group, topic string, ok bool) {
	g, t, ok := strings.Cut(key, ".")
	if !ok || len(g) < 1 || g[0] != 'g' {
		return "", "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(g[1:])
	return string(b), strings.ReplaceAll(t, "=", "."), err == nil
}

// office is the number under which this node coordinates, 0 if it does not.
func (g *groups) office() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.number
}

// takeOffice stores a barrier, whose sequence numbers the office, and reads
// all offsets before it.
func (g *groups) takeOffice(ctx context.Context) error {
	pub, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	number, err := g.kv.s.publish(pub, g.kv.prefix+"office", nil, []byte(g.c.opt.Node))
	if err != nil {
		return err
	}
	if err := g.kv.sync(ctx); err != nil {
		return err
	}
	m := map[string]*group{}
	g.kv.list("g", func(key string, e kvEntry) {
		name, topic, ok := parseOffsetsKey(key)
		offs := map[int32]groupValue{}
		if !ok || cborDec.Unmarshal(e.value, &offs) != nil {
			g.c.log.Error("group offsets cannot be read", "key", key)
			return
		}
		gr := m[name]
		if gr == nil {
			gr = &group{topics: map[string]*groupTopic{}}
			m[name] = gr
		}
		gr.topics[topic] = &groupTopic{rev: e.rev, offs: offs}
	})
	g.mu.Lock()
	g.m, g.number = m, number
	g.mu.Unlock()
	g.c.log.Info("coordinates groups", "office", number, "groups", len(m))
	g.c.announce()
	return nil
}

func (g *groups) leaveOffice() {
	g.mu.Lock()
	was := g.number
	g.number = 0
	g.mu.Unlock()
	if was != 0 {
		g.c.announce()
	}
}

// follow takes and leaves office as the KV's stream changes its leader.
func (g *groups) follow(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		leads := g.c.leads(g.kv.stream)
		switch office := g.office(); {
		case leads && office == 0:
			if err := g.takeOffice(ctx); err != nil && ctx.Err() == nil {
				g.c.log.Debug("coordinator office not taken yet", "error", err)
				sleep(ctx, 100*time.Millisecond)
			}
		case !leads && office != 0:
			g.leaveOffice()
		}
	}
}

// commit stores offsets; they are durable on return.
func (g *groups) commit(ctx context.Context, name string, offs []record.GroupOffset) error {
	if len(name) > maxGroupName {
		return fmt.Errorf("group name of %d bytes, at most %d", len(name), maxGroupName)
	}
	if len(offs) == 0 {
		return nil
	}
	g.mu.Lock()
	if g.number == 0 {
		g.mu.Unlock()
		return fmt.Errorf("%w: group %s", record.ErrNotCoordinator, name)
	}
	gr := g.m[name]
	if gr == nil {
		gr = &group{topics: map[string]*groupTopic{}}
		g.m[name] = gr
	}
	if gr.pending == nil {
		gr.pending = map[string]map[int32]groupValue{}
	}
	for _, o := range offs {
		t := gr.pending[o.Topic]
		if t == nil {
			t = map[int32]groupValue{}
			gr.pending[o.Topic] = t
		}
		t[o.Partition] = groupValue{Offset: o.Offset, Epoch: o.LeaderEpoch, Metadata: o.Metadata}
	}
	done := make(chan error, 1)
	gr.waiters = append(gr.waiters, done)
	if !gr.writing {
		gr.writing = g.c.spawn(func() { g.write(name, gr) })
		if !gr.writing {
			gr.pending, gr.waiters = nil, nil
			g.mu.Unlock()
			return record.ErrClosed
		}
	}
	g.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write stores what is pending of a group until nothing is.
func (g *groups) write(name string, gr *group) {
	for {
		g.mu.Lock()
		pending, waiters := gr.pending, gr.waiters
		gr.pending, gr.waiters = nil, nil
		if len(pending) == 0 {
			gr.writing = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		var err error
		for topic, offs := range pending {
			if err = g.writeTopic(name, gr, topic, offs); err != nil {
				break
			}
		}
		for _, w := range waiters {
			w <- err
		}
	}
}

func (g *groups) writeTopic(name string, gr *group, topic string, offs map[int32]groupValue) error {
	key := offsetsKey(name, topic)
	for try := 0; ; try++ {
		g.mu.Lock()
		if g.number == 0 || g.m[name] != gr {
			g.mu.Unlock()
			return fmt.Errorf("%w: group %s", record.ErrNotCoordinator, name)
		}
		merged := map[int32]groupValue{}
		rev := uint64(0)
		if t := gr.topics[topic]; t != nil {
			rev = t.rev
			for p, v := range t.offs {
				merged[p] = v
			}
		}
		g.mu.Unlock()
		for p, v := range offs {
			merged[p] = v
		}
		b, err := cborEnc.Marshal(merged)
		if err != nil {
			return err
		}
		rev, err = g.kv.swap(g.c.ctx, key, b, rev)
		if err == nil {
			g.mu.Lock()
			gr.topics[topic] = &groupTopic{rev: rev, offs: merged}
			g.mu.Unlock()
			g.c.stats.offsetWrites.Add(1)
			return nil
		}
		if try == 3 || !g.c.leads(g.kv.stream) {
			return fmt.Errorf("%w: offsets of group %s: %w", record.ErrUnavailable, name, err)
		}
		// Ambiguous, or an earlier try was stored: read what is there.
		if !errors.Is(err, errConflict) {
			if err := sleep(g.c.ctx, retryMin); err != nil {
				return err
			}
		}
		e, ok, lerr := g.kv.lookup(g.c.ctx, key)
		if lerr != nil {
			return fmt.Errorf("%w: offsets of group %s: %w", record.ErrUnavailable, name, lerr)
		}
		t := &groupTopic{rev: e.rev, offs: map[int32]groupValue{}}
		if ok {
			if err := cborDec.Unmarshal(e.value, &t.offs); err != nil {
				return fmt.Errorf("offsets of group %s: %w", name, err)
			}
		}
		g.mu.Lock()
		gr.topics[topic] = t
		g.mu.Unlock()
	}
}

// offsets are all durable offsets of a group.
func (g *groups) offsets(name string) ([]record.GroupOffset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.number == 0 {
		return nil, fmt.Errorf("%w: group %s", record.ErrNotCoordinator, name)
	}
	gr := g.m[name]
	if gr == nil {
		return nil, nil
	}
	var out []record.GroupOffset
	for t, gt := range gr.topics {
		for p, v := range gt.offs {
			out = append(out, record.GroupOffset{
				TopicPartition: record.TopicPartition{Topic: t, Partition: p},
				Offset:         v.Offset, LeaderEpoch: v.Epoch, Metadata: v.Metadata})
		}
	}
	return out, nil
}
