package core

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"edgehub/pkg/log/record"
)

// Waits of topic creation.
const (
	createTimeout = 20 * time.Second // streams of a new topic
	leaderTimeout = 10 * time.Second // their leaders, announced
)

// topicMeta is a topic in the metadata KV.
type topicMeta struct {
	Name     string             `json:"name"`
	ID       record.TopicID     `json:"id"`
	Config   record.TopicConfig `json:"config"`
	Created  int64              `json:"created"`            // ms since 1970
	Ready    bool               `json:"ready"`              // all its streams have been made: never make one again
	Deleting bool               `json:"deleting,omitempty"` // its streams are going
}

// topicKey is the key of a topic's name: names may hold dots anywhere, keys
// may not, and names never hold "=".
func topicKey(name string) string { return "topic." + strings.ReplaceAll(name, ".", "=") }

// topic is a topic as this node sees it.
type topic struct {
	meta  topicMeta
	rev   uint64
	parts []*partition
}

// syncTopics makes the topics known here those of the KV.
func (c *Core) syncTopics() {
	type found struct {
		meta topicMeta
		rev  uint64
	}
	known := map[string]found{}
	c.meta.list("topic.", func(key string, e kvEntry) {
		var m topicMeta
		if err := json.Unmarshal(e.value, &m); err != nil {
			c.log.Error("topic entry cannot be read", "key", key, "error", err)
			return
		}
		known[m.Name] = found{m, e.rev}
	})
	ids := make([]int32, 0, 8)
	for id := range c.nodeEntries() {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var gone []*partition
	c.mu.Lock()
	c.known = ids
	for name, t := range c.topics {
		if k, ok := known[name]; !ok || k.meta.ID != t.meta.ID {
			gone = append(gone, t.parts...)
			delete(c.topics, name)
		}
	}
	for name, k := range known {
		t := c.topics[name]
		if t == nil {
			t = &topic{}
			for p := range k.meta.Config.Partitions {
				t.parts = append(t.parts, newPartition(k.meta.ID, name, p, k.meta.Config))
			}
			c.topics[name] = t
		} else if t.rev != k.rev {
			for _, p := range t.parts {
				p.mu.Lock()
				p.cfg = k.meta.Config
				p.mu.Unlock()
			}
		}
		t.meta, t.rev = k.meta, k.rev
	}
	c.mu.Unlock()
	for _, p := range gone {
		p.mu.Lock()
		p.closed = true
		stop := p.stop
		p.wakeWatchers()
		p.mu.Unlock()
		if stop != nil {
			stop()
		}
	}
}

// partitions are all partitions known here.
func (c *Core) partitions() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*partition
	for _, t := range c.topics {
		out = append(out, t.parts...)
	}
	return out
}

// partition finds one. An unknown topic is looked for in the KV once, so that
// a topic made at another node is there at once.
func (c *Core) partition(ctx context.Context, tp record.TopicPartition) (*partition, error) {
	find := func() *partition {
		c.mu.Lock()
		defer c.mu.Unlock()
		t := c.topics[tp.Topic]
		if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.parts) {
			return nil
		}
		return t.parts[tp.Partition]
	}
	if p := find(); p != nil {
		return p, nil
	}
	if err := c.up(); err != nil {
		return nil, err
	}
	if changed, err := c.meta.refresh(ctx); err == nil && changed {
		c.syncTopics()
		if p := find(); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", record.ErrUnknownTopic, tp)
}

// findTopic asks the KV's leader for a topic.
func (c *Core) findTopic(ctx context.Context, name string) (topicMeta, error) {
	m, _, err := c.lookupTopic(ctx, name)
	return m, err
}

func (c *Core) lookupTopic(ctx context.Context, name string) (topicMeta, uint64, error) {
	e, ok, err := c.meta.lookup(ctx, topicKey(name))
	if err != nil {
		return topicMeta{}, 0, fmt.Errorf("%w: topic %s: %w", record.ErrUnavailable, name, err)
	}
	if !ok {
		return topicMeta{}, e.rev, fmt.Errorf("%w: %s", record.ErrUnknownTopic, name)
	}
	var m topicMeta
	if err := json.Unmarshal(e.value, &m); err != nil {
		return topicMeta{}, e.rev, fmt.Errorf("topic %s: %w", name, err)
	}
	return m, e.rev, nil
}

// CreateTopic makes a topic and waits, at most about 30 s, until its
// partitions are stored and have leaders. It is durable on return without an
// error or with record.ErrUnavailable, after which it is finished in the
// background. Several nodes may create the same topic at once: one does, the
// others get record.ErrTopicExists with its TopicInfo.
func (c *Core) CreateTopic(ctx context.Context, name string, cfg record.TopicConfig) (record.TopicInfo, error) {
	if err := record.CheckTopicName(name); err != nil {
		return record.TopicInfo{}, err
	}
	cfg.EnsureDefaults()
	switch {
	case cfg.Partitions < 1 || cfg.Partitions > record.MaxPartitions:
		return record.TopicInfo{}, fmt.Errorf("%w: %d of topic %s, 1 to %d are possible", record.ErrInvalidPartitions, cfg.Partitions, name, record.MaxPartitions)
	case cfg.MaxMessageBytes < 1 || cfg.RetentionTime < -1 || cfg.RetentionBytes < -1:
		return record.TopicInfo{}, fmt.Errorf("%w: topic %s", record.ErrInvalidConfig, name)
	}
	if err := c.up(); err != nil {
		return record.TopicInfo{}, err
	}
	if cfg.Compact {
		c.log.Warn("compaction is not done at the core yet: every record is kept until retention", "topic", name)
	}
	meta := topicMeta{Name: name, Config: cfg, Created: c.now()}
	rand.Read(meta.ID[:])
	b, err := json.Marshal(&meta)
	if err != nil {
		return record.TopicInfo{}, err
	}
	e, created, err := c.meta.create(ctx, topicKey(name), b)
	if err != nil {
		return record.TopicInfo{}, fmt.Errorf("%w: create topic %s: %w", record.ErrUnavailable, name, err)
	}
	if err := json.Unmarshal(e.value, &meta); err != nil {
		return record.TopicInfo{}, fmt.Errorf("topic %s: %w", name, err)
	}
	c.syncTopics()
	c.poke()
	if meta.Deleting {
		if err := c.finishDelete(ctx, meta, e.rev); err != nil {
			return record.TopicInfo{}, err
		}
		return c.CreateTopic(ctx, name, cfg)
	}
	if !meta.Ready {
		if err := c.finishCreate(ctx, name); err != nil {
			return record.TopicInfo{}, fmt.Errorf("%w: topic %s: %w", record.ErrUnavailable, name, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	err = c.waitLeaders(wait, meta.ID, meta.Config.Partitions)
	if !created {
		return c.info(meta), fmt.Errorf("%w: %s", record.ErrTopicExists, name)
	}
	if err != nil {
		c.log.Warn("topic has been created and waits for leaders", "topic", name, "error", err)
	}
	return c.info(meta), nil
}

// finishCreate makes the streams of a topic and marks it ready. It may run
// at several nodes at once.
func (c *Core) finishCreate(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	for {
		meta, rev, err := c.lookupTopic(ctx, name)
		if err != nil || meta.Ready || meta.Deleting {
			return err
		}
		err = c.makeStreams(ctx, meta)
		if err == nil {
			meta.Ready = true
			var b []byte
			if b, err = json.Marshal(&meta); err != nil {
				return err
			}
			if _, err = c.meta.swap(ctx, topicKey(name), b, rev); err == nil {
				c.syncTopics()
				c.poke()
				return nil
			}
		}
		c.log.Debug("topic is not ready yet", "topic", name, "error", err)
		if serr := sleep(ctx, 100*time.Millisecond); serr != nil {
			return err
		}
	}
}

func (c *Core) makeStreams(ctx context.Context, meta topicMeta) error {
	for p := range meta.Config.Partitions {
		part := newPartition(meta.ID, meta.Name, p, meta.Config)
		if err := c.js.create(ctx, fileStream(part.stream, part.subject, c.opt.Replicas, false)); err != nil {
			return fmt.Errorf("stream of %s: %w", part, err)
		}
	}
	return nil
}

// DeleteTopic removes a topic with all that is in it. The removal is durable
// before the first stream goes.
func (c *Core) DeleteTopic(ctx context.Context, name string) error {
	if err := c.up(); err != nil {
		return err
	}
	for {
		meta, rev, err := c.lookupTopic(ctx, name)
		if err != nil {
			return err
		}
		if !meta.Deleting {
			meta.Deleting = true
			b, err := json.Marshal(&meta)
			if err != nil {
				return err
			}
			rev, err = c.meta.swap(ctx, topicKey(name), b, rev)
			if errors.Is(err, errConflict) {
				continue
			}
			if err != nil {
				return fmt.Errorf("%w: delete topic %s: %w", record.ErrUnavailable, name, err)
			}
			c.syncTopics()
			return c.finishDelete(ctx, meta, rev)
		}
		return c.finishDelete(ctx, meta, rev)
	}
}

func (c *Core) finishDelete(ctx context.Context, meta topicMeta, rev uint64) error {
	for p := range meta.Config.Partitions {
		if err := c.js.delete(ctx, streamName(meta.ID, p)); err != nil {
			return fmt.Errorf("%w: delete topic %s: %w", record.ErrUnavailable, meta.Name, err)
		}
	}
	if _, err := c.meta.swap(ctx, topicKey(meta.Name), nil, rev); err != nil && !errors.Is(err, errConflict) {
		return fmt.Errorf("%w: delete topic %s: %w", record.ErrUnavailable, meta.Name, err)
	}
	c.syncTopics()
	c.poke()
	return nil
}

// finishTopics goes on with what a node left half done.
func (c *Core) finishTopics(ctx context.Context) {
	c.mu.Lock()
	var todo []topic
	for _, t := range c.topics {
		if t.meta.Deleting || !t.meta.Ready {
			todo = append(todo, *t)
		}
	}
	c.mu.Unlock()
	for _, t := range todo {
		var err error
		if t.meta.Deleting {
			err = c.finishDelete(ctx, t.meta, t.rev)
		} else {
			err = c.finishCreate(ctx, t.meta.Name)
		}
		if err != nil {
			c.log.Debug("topic is not finished yet", "topic", t.meta.Name, "error", err)
		}
	}
}

// EnsureTopics creates those of the topics that are missing. Existing ones
// keep their configuration.
func (c *Core) EnsureTopics(ctx context.Context, topics map[string]record.TopicConfig) error {
	names := make([]string, 0, len(topics))
	for n := range topics {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if _, err := c.CreateTopic(ctx, n, topics[n]); err != nil && !errors.Is(err, record.ErrTopicExists) {
			return fmt.Errorf("create topic %s: %w", n, err)
		}
	}
	return nil
}

// Topics are the named topics, or all for nil, sorted by name; unknown ones
// are left out.
func (c *Core) Topics(ctx context.Context, names []string) ([]record.TopicInfo, error) {
	if err := c.up(); err != nil {
		return nil, err
	}
	find := func() (out []topicMeta, all bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if names == nil {
			for _, t := range c.topics {
				out = append(out, t.meta)
			}
			return out, true
		}
		all = true
		for _, n := range names {
			if t := c.topics[n]; t != nil {
				out = append(out, t.meta)
			} else {
				all = false
			}
		}
		return out, all
	}
	metas, all := find()
	if !all {
		if changed, err := c.meta.refresh(ctx); err == nil && changed {
			c.syncTopics()
			metas, _ = find()
		}
	}
	sort.Slice(metas, func(i, j int) bool { return metas[i].Name < metas[j].Name })
	out := make([]record.TopicInfo, 0, len(metas))
	for _, m := range metas {
		if !m.Deleting {
			out = append(out, c.info(m))
		}
	}
	return out, nil
}

func (c *Core) info(m topicMeta) record.TopicInfo {
	i := record.TopicInfo{Name: m.Name, ID: m.ID, Internal: strings.HasPrefix(m.Name, record.InternalPrefix), Config: m.Config}
	now := time.Now()
	all := c.nodeIDs()
	for p := range m.Config.Partitions {
		node, epoch := c.nodes.leader(leadKey{m.ID, p}, now)
		pi := record.PartitionInfo{Leader: node, LeaderEpoch: epoch}
		switch {
		case c.opt.Replicas >= len(all):
			pi.Replicas = all
		case node >= 0:
			pi.Replicas = []int32{node}
		}
		i.Partitions = append(i.Partitions, pi)
	}
	return i
}
