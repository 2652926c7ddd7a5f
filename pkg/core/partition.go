package core

import (
	"context"
	"fmt"
	"sort"
	"sync"

	"edgehub/pkg/log/record"
)

// maxQueued bounds the bytes that wait in one partition's queue. A produce
// beyond it waits; an Append is answered with CodeBusy.
const maxQueued = 16 << 20

// maxIndex bounds the entries of a partition's sparse index (32 bytes each).
const maxIndex = 16_384

// partition is one partition as this node sees it: a name while it follows;
// queue, index and offsets while it leads.
type partition struct {
	topic   record.TopicID
	name    string
	num     int32
	stream  string
	subject string

	mu        sync.Mutex
	cfg       record.TopicConfig
	leading   bool // a leader goroutine runs
	serving   bool // its first keyframe is stored (C3)
	closed    bool
	epoch     int32
	high      int64 // high watermark: next offset of the last frame that counts
	logStart  int64
	firstSeq  uint64
	lastSeq   uint64
	maxTime   int64
	bytes     int64 // running sum up to the last frame
	bytesAt   int64 // running sum before the first live frame
	index     []indexEntry
	queue     []*request
	queued    int64
	room      chan struct{} // closed and renewed when the queue shrinks
	wake      chan struct{} // capacity 1: the queue has grown
	watchers  map[int]chan<- struct{}
	watchID   int
	sick      error // quarantine (C4)
	stop      context.CancelFunc
	nextStart int64 // unix ms before which no leader is started again
}

// indexEntry tells what begins at a sequence. Only frames that count are
// entered.
type indexEntry struct {
	seq     uint64
	base    int64
	next    int64
	maxTime int64 // running maximum with this frame
}

func streamName(id record.TopicID, p int32) string { return fmt.Sprintf("p_%s_%d", id, p) }

func newPartition(id record.TopicID, name string, p int32, cfg record.TopicConfig) *partition {
	return &partition{
		topic: id, name: name, num: p, cfg: cfg,
		stream: streamName(id, p), subject: fmt.Sprintf("hub.f.%s.%d", id, p),
		room: make(chan struct{}), wake: make(chan struct{}, 1), watchers: map[int]chan<- struct{}{},
	}
}

func (p *partition) String() string { return fmt.Sprintf("%s/%d", p.name, p.num) }

// ready says why the partition does not serve here. mu is held.
func (p *partition) ready() error {
	switch {
	case p.closed:
		return fmt.Errorf("%w: %s", record.ErrUnknownTopic, p)
	case !p.serving && p.sick != nil:
		return fmt.Errorf("%w: %s is quarantined on this node: %w", record.ErrNotLeader, p, p.sick)
	case !p.serving:
		return fmt.Errorf("%w: %s", record.ErrNotLeader, p)
	}
	return nil
}

// enqueue hands r to the leader. With wait it waits for room, else a full
// queue is record.ErrUnavailable. On an error r.done is not called.
func (p *partition) enqueue(ctx context.Context, r *request, wait bool) error {
	for {
		p.mu.Lock()
		if err := p.ready(); err != nil {
			p.mu.Unlock()
			return err
		}
		if p.queued == 0 || p.queued+int64(r.size) <= maxQueued {
			p.queue = append(p.queue, r)
			p.queued += int64(r.size)
			p.mu.Unlock()
			notify(p.wake)
			return nil
		}
		room := p.room
		p.mu.Unlock()
		if !wait {
			return fmt.Errorf("%w: the queue of %s is full", record.ErrUnavailable, p)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-room:
		}
	}
}

// peek copies the queue's head.
func (p *partition) peek() []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*request(nil), p.queue[:min(len(p.queue), 4096)]...)
}

// drop removes the first n requests of the queue.
func (p *partition) drop(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.queue[:n] {
		p.queued -= int64(r.size)
	}
	p.queue = append([]*request(nil), p.queue[n:]...)
	close(p.room)
	p.room = make(chan struct{})
}

// unserve ends service: the queue is answered with err and nothing more is
// accepted.
func (p *partition) unserve(err error) {
	p.mu.Lock()
	p.serving = false
	q := p.queue
	p.queue, p.queued = nil, 0
	close(p.room)
	p.room = make(chan struct{})
	p.index = nil
	p.wakeWatchers()
	p.mu.Unlock()
	for _, r := range q {
		r.done(outcome{err: err})
	}
}

// enter adds a frame that counts to the index and moves the high watermark.
func (p *partition) enter(seq uint64, h *frameHeader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.insert(indexEntry{seq: seq, base: h.Base, next: h.next(), maxTime: h.MaxTime})
	p.high, p.lastSeq, p.maxTime, p.epoch, p.bytes = h.next(), seq, h.MaxTime, h.Epoch, h.Bytes
	p.wakeWatchers()
}

// insert keeps the index sorted and bounded. mu is held.
func (p *partition) insert(e indexEntry) {
	i := sort.Search(len(p.index), func(i int) bool { return p.index[i].seq >= e.seq })
	if i < len(p.index) && p.index[i].seq == e.seq {
		return
	}
	p.index = append(p.index, indexEntry{})
	copy(p.index[i+1:], p.index[i:])
	p.index[i] = e
	if len(p.index) <= maxIndex {
		return
	}
	// Thin the older half; the first entry stays.
	half, kept := len(p.index)/2, p.index[:0]
	for i, e := range p.index {
		if i >= half || i%2 == 0 {
			kept = append(kept, e)
		}
	}
	p.index = kept
}

// trim forgets what lies below the first live frame. mu is held.
func (p *partition) trim(first indexEntry, bytesBefore int64) {
	i := sort.Search(len(p.index), func(i int) bool { return p.index[i].seq >= first.seq })
	p.index = append(p.index[:0], p.index[i:]...)
	p.insert(first)
	p.firstSeq, p.logStart, p.bytesAt = first.seq, first.base, bytesBefore
	p.wakeWatchers()
}

// refuse accepts nothing more; what is queued is still stored.
func (p *partition) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = false
}

// drain waits until the queue is answered.
func (p *partition) drain(ctx context.Context) {
	for {
		p.mu.Lock()
		n, room := len(p.queue), p.room
		p.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-room:
		}
	}
}

// watch makes wake be sent to whenever high watermark, log start or
// leadership of p move.
func (p *partition) watch(wake chan<- struct{}) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchID++
	id := p.watchID
	p.watchers[id] = wake
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, id)
	}
}

// wakeWatchers sends without blocking. mu is held.
func (p *partition) wakeWatchers() {
	for _, w := range p.watchers {
		notify(w)
	}
}

// notify sends without blocking: a full channel says it already.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
