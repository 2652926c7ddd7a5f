package kafka

import (
	"context"
	"math/bits"
	"sync"
)

// budget bounds the bytes that all connections hold together. Those who wait
// are served in the order in which they came.
type budget struct {
	mu      sync.Mutex
	size    int64
	free    int64
	waiters []*claim
}

type claim struct {
	n     int64
	ready chan struct{} // closed when granted
}

func newBudget(size int64) *budget { return &budget{size: size, free: size} }

// acquire takes n bytes, waiting until they are free or ctx ends. More than
// the whole budget is taken as the whole; the amount taken is returned.
func (b *budget) acquire(ctx context.Context, n int64) (int64, error) {
	b.mu.Lock()
	n = min(n, b.size)
	if len(b.waiters) == 0 && n <= b.free {
		b.free -= n
		b.mu.Unlock()
		return n, nil
	}
	c := &claim{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, c)
	b.mu.Unlock()
	select {
	case <-c.ready:
		return n, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiters {
		if w == c {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.grant() // those behind may be smaller
			return 0, context.Cause(ctx)
		}
	}
	return n, nil // granted between ctx's end and the lock
}

// tryAcquire takes n bytes if that leaves at least spare free and nobody
// waits.
func (b *budget) tryAcquire(n, spare int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) > 0 || b.free-n < spare {
		return false
	}
	b.free -= n
	return true
}

func (b *budget) release(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.free += n
	b.grant()
	b.mu.Unlock()
}

// grant serves those who wait. It is called with mu held.
func (b *budget) grant() {
	for len(b.waiters) > 0 && b.waiters[0].n <= b.free {
		b.free -= b.waiters[0].n
		close(b.waiters[0].ready)
		b.waiters = b.waiters[1:]
	}
}

func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size - b.free
}

// buffers keeps byte slices of five sizes for reuse: 64 KiB << 2i. Larger
// ones are made and left to the collector.
type buffers struct {
	pools [5]sync.Pool
}

const smallestBuffer = 64 << 10

// classOf is the class of the smallest buffer that holds n bytes.
func classOf(n int) int {
	if n <= smallestBuffer {
		return 0
	}
	return (bits.Len(uint(n-1)) - bits.Len(smallestBuffer-1) + 1) / 2
}

func classSize(class int) int { return smallestBuffer << (2 * class) }

// get returns an empty slice with room for at least n bytes.
func (p *buffers) get(n int) []byte {
	c := classOf(n)
	if c >= len(p.pools) {
		return make([]byte, 0, n)
	}
	if b, ok := p.pools[c].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, classSize(c))
}

// put takes back what get gave, also when append has replaced it by a larger
// one. Nobody may use it afterwards.
func (p *buffers) put(b []byte) {
	if cap(b) < smallestBuffer || cap(b) > classSize(len(p.pools)-1) {
		return
	}
	c := classOf(cap(b))
	if classSize(c) > cap(b) {
		c-- // a grown slice serves the class below its own
	}
	b = b[:0]
	p.pools[c].Put(&b)
}
