package core

import (
	"container/list"
	"sync"
)

// frameCache keeps the batches of recent frames of all partitions of a node,
// bounded in bytes, so that consumers at the tail cost no read of a stream.
type frameCache struct {
	mu    sync.Mutex
	limit int
	size  int
	order *list.List // of *cached, newest use first
	m     map[frameKey]*list.Element

	hits, misses int64
}

type frameKey struct {
	stream string
	seq    uint64
}

type cached struct {
	key frameKey
	f   *frame // without its control part
}

func newFrameCache(limit int) *frameCache {
	return &frameCache{limit: limit, order: list.New(), m: map[frameKey]*list.Element{}}
}

// put keeps f, whose batches nobody may change any more.
func (c *frameCache) put(stream string, seq uint64, f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := frameKey{stream, seq}
	if len(f.Batches) > c.limit/2 || c.m[key] != nil {
		return
	}
	c.m[key] = c.order.PushFront(&cached{key, &frame{frameHeader: f.frameHeader, Batches: f.Batches}})
	c.size += len(f.Batches)
	for c.size > c.limit {
		last := c.order.Back()
		old := c.order.Remove(last).(*cached)
		delete(c.m, old.key)
		c.size -= len(old.f.Batches)
	}
}

func (c *frameCache) get(stream string, seq uint64) *frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[frameKey{stream, seq}]
	if e == nil {
		c.misses++
		return nil
	}
	c.hits++
	c.order.MoveToFront(e)
	return e.Value.(*cached).f
}

func (c *frameCache) stats() (bytes, hits, misses int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.size), c.hits, c.misses
}
