package core

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"edgehub/pkg/log/record"
)

// The methods of kafka.Store. Topics, CreateTopic and DeleteTopic are in
// topic.go.

// Cluster is the core as Kafka clients see it: the nodes heard of lately. Its
// controller is the one with the lowest id; every node does a controller's
// work.
func (c *Core) Cluster(ctx context.Context) (record.Cluster, error) {
	if err := c.up(); err != nil {
		return record.Cluster{}, err
	}
	cl := record.Cluster{ID: c.clusterID(), Controller: c.nodeID.Load(), Brokers: c.nodes.brokers(time.Now())}
	if len(cl.Brokers) == 0 {
		return cl, fmt.Errorf("%w: %w", record.ErrUnavailable, errStarting)
	}
	cl.Controller = cl.Brokers[0].ID
	return cl, nil
}

// Append stores batches and blocks until their frames are acked. Batches of
// one partition keep their order. The answer to a batch whose fate is unknown
// because leadership moved is record.ErrNotLeader: an idempotent producer may
// send it again safely.
func (c *Core) Append(ctx context.Context, in []record.Append) []record.Appended {
	out := make([]record.Appended, len(in))
	var wg sync.WaitGroup
	for i, a := range in {
		fail := func(err error) { out[i] = record.Appended{BaseOffset: -1, LogStart: -1, Err: err} }
		p, err := c.partition(ctx, a.TopicPartition)
		if err != nil {
			fail(err)
			continue
		}
		h, err := record.ParseHeader(a.Batch)
		if err != nil {
			fail(err)
			continue
		}
		wg.Add(1)
		r := &request{kind: produceRequest, size: len(a.Batch), batches: [][]byte{a.Batch}, heads: []record.Header{h},
			done: func(o outcome) {
				defer wg.Done()
				if o.err != nil {
					fail(o.err)
					return
				}
				c.stats.produced.Add(1)
				out[i] = record.Appended{BaseOffset: o.base, LogStart: o.logStart, Duplicate: o.duplicate}
			}}
		if err := p.enqueue(ctx, r, true); err != nil {
			wg.Done()
			fail(err)
		}
	}
	// Every queued request is answered: by its frame, or when the leader
	// leaves office. So this ends without ctx, and nobody writes to out later.
	wg.Wait()
	return out
}

// Fetch appends whole batches from the one that holds offset to dst; the
// first may begin before it. Only the partition's leader answers.
func (c *Core) Fetch(ctx context.Context, tp record.TopicPartition, offset int64, maxBytes int, dst []byte) (record.Fetched, error) {
	p, err := c.partition(ctx, tp)
	if err != nil {
		return record.Fetched{}, err
	}
	return c.fetch(ctx, p, offset, maxBytes, dst)
}

// Offsets is the range of a partition. Only its leader answers.
func (c *Core) Offsets(ctx context.Context, tp record.TopicPartition) (record.Offsets, error) {
	p, err := c.partition(ctx, tp)
	if err != nil {
		return record.Offsets{}, err
	}
	b, err := p.bounds()
	if err != nil {
		return record.Offsets{}, err
	}
	return record.Offsets{LogStart: b.logStart, HighWatermark: b.high, LeaderEpoch: b.epoch}, nil
}

// Watch makes wake be sent to, without blocking, whenever one of the
// partitions moves or its leadership here changes.
func (c *Core) Watch(tps []record.TopicPartition, wake chan<- struct{}) (stop func()) {
	var stops []func()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tp := range tps {
		if t := c.topics[tp.Topic]; t != nil && tp.Partition >= 0 && int(tp.Partition) < len(t.parts) {
			stops = append(stops, t.parts[tp.Partition].watch(wake))
		}
	}
	return func() {
		for _, s := range stops {
			s()
		}
	}
}

// OffsetForTime is the first record with time ts or later.
func (c *Core) OffsetForTime(ctx context.Context, tp record.TopicPartition, ts int64) (record.OffsetTime, error) {
	p, err := c.partition(ctx, tp)
	if err != nil {
		return record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}, err
	}
	return c.offsetForTime(ctx, p, ts)
}

// MaxTimestamp is the first record with the latest time.
func (c *Core) MaxTimestamp(ctx context.Context, tp record.TopicPartition) (record.OffsetTime, error) {
	p, err := c.partition(ctx, tp)
	if err != nil {
		return record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}, err
	}
	return c.maxTimestamp(ctx, p)
}

// EpochEnd answers OffsetForLeaderEpoch for the present epoch; for older ones
// -1, unknown.
func (c *Core) EpochEnd(ctx context.Context, tp record.TopicPartition, epoch int32) (int32, int64, error) {
	p, err := c.partition(ctx, tp)
	if err != nil {
		return -1, -1, err
	}
	b, err := p.bounds()
	if err != nil || epoch != b.epoch {
		return -1, -1, err
	}
	return b.epoch, b.high, nil
}

// producerBlock is how many producer ids a node takes at a time.
const producerBlock = 1000

// idBlock is a range of producer ids that a node has taken.
type idBlock struct{ next, end int64 }

func (b *idBlock) empty() bool { return b.next == b.end }

// NewProducerID is an id that no producer of this core had before.
func (c *Core) NewProducerID(ctx context.Context) (int64, int16, error) {
	if err := c.up(); err != nil {
		return 0, 0, err
	}
	for {
		c.mu.Lock()
		if c.ids.empty() {
			c.ids, c.spareIDs = c.spareIDs, idBlock{}
		}
		if !c.ids.empty() {
			id := c.ids.next
			c.ids.next++
			c.mu.Unlock()
			return id, 0, nil
		}
		c.mu.Unlock()
		b, err := c.takeIDs(ctx)
		if err != nil {
			return 0, 0, err
		}
		c.keepIDs(b)
	}
}

// stockIDs keeps a block in reserve, so that a producer need not wait for the
// metadata's leader just when that has died.
func (c *Core) stockIDs(ctx context.Context) {
	c.mu.Lock()
	has := !c.spareIDs.empty()
	c.mu.Unlock()
	if has {
		return
	}
	b, err := c.takeIDs(ctx)
	if err != nil {
		c.log.Debug("no producer ids in reserve", "error", err)
		return
	}
	c.keepIDs(b)
}

func (c *Core) keepIDs(b idBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spareIDs.empty() {
		c.spareIDs = b
	} // else two asked at once: ids are plenty
}

// takeIDs takes a block in the metadata.
func (c *Core) takeIDs(ctx context.Context) (idBlock, error) {
	for {
		e, ok, err := c.meta.lookup(ctx, "producer")
		var from int64 = 1
		if err == nil && ok {
			from, err = strconv.ParseInt(string(e.value), 10, 64)
		}
		if err == nil {
			_, err = c.meta.swap(ctx, "producer", strconv.AppendInt(nil, from+producerBlock, 10), e.rev)
		}
		switch {
		case err == nil:
			return idBlock{from, from + producerBlock}, nil
		case !errors.Is(err, errConflict):
			return idBlock{}, fmt.Errorf("%w: producer id: %w", record.ErrUnavailable, err)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return idBlock{}, err
		}
	}
}

// Coordinator is the node that keeps all groups' offsets.
func (c *Core) Coordinator(ctx context.Context, group string) (record.Broker, error) {
	if err := c.up(); err != nil {
		return record.Broker{}, err
	}
	b, ok := c.nodes.coordinator(time.Now())
	if !ok {
		return record.Broker{}, fmt.Errorf("%w: group %s has no coordinator yet", record.ErrUnavailable, group)
	}
	return b, nil
}

// CommitOffsets stores a group's offsets, at its coordinator only. They are
// durable on return.
func (c *Core) CommitOffsets(ctx context.Context, group string, offs []record.GroupOffset) error {
	if err := c.up(); err != nil {
		return err
	}
	return c.groups.commit(ctx, group, offs)
}

// GroupOffsets are a group's durable offsets, at its coordinator only.
func (c *Core) GroupOffsets(ctx context.Context, group string) ([]record.GroupOffset, error) {
	if err := c.up(); err != nil {
		return nil, err
	}
	return c.groups.offsets(group)
}
