package uplink

import (
	"slices"
	"sync"
	"time"

	"edgehub/pkg/forward"
)

// What the pacer assumes and allows.
const (
	firstRate = 64 << 10 // bytes/s, of a link never measured
	minBudget = 16 << 10
	maxBudget = 4 << 20
	minTarget = 8 << 10
	minRate   = 256
	fairEvery = 16 // of so many grants, one goes to who waits longest
)

// pacer decides when which lane may send: by topic priority, within the
// configured bandwidth (a token bucket) and within what the link takes in a
// second, as measured. Small enough queues are what makes priorities work: an
// alarm waits at most for the bytes already in flight.
type pacer struct {
	bandwidth int64 // bytes/s, 0: no limit

	mu       sync.Mutex
	waiting  []*ticket // by priority, then by age
	seq      uint64
	grants   uint64
	tokens   float64
	refilled time.Time
	timer    *time.Timer
	closed   bool

	inflight int64
	rtt      time.Duration // the shortest seen
	rate     float64       // bytes/s that the link takes

	delivered int64 // bytes acknowledged so far
}

// ticket is a wish to send n bytes. C is closed when they may go.
type ticket struct {
	C        chan struct{}
	priority int
	n        int64
	seq      uint64
	granted  bool

	at        time.Time // of the grant
	delivered int64     // by the pacer then
	limited   bool      // it waited for the budget: the link was full
}

func newPacer(bandwidth int64) *pacer {
	p := &pacer{bandwidth: bandwidth, rate: firstRate, refilled: time.Now()}
	p.tokens = p.burst()
	return p
}

// burst is what may go at once after a pause: a quarter of a second.
func (p *pacer) burst() float64 { return float64(p.bandwidth) / 4 }

// budget is how many bytes may be in flight: what the link takes in a second,
// or in two round trips where those are longer.
func (p *pacer) budget() int64 {
	span := max(1, 2*p.rtt.Seconds())
	return min(max(int64(p.rate*span), minBudget), maxBudget)
}

// observe takes a round trip into account; the shortest counts, as all others
// hold waiting for bytes in flight.
func (p *pacer) observe(rtt time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rtt == 0 || rtt < p.rtt {
		p.rtt = rtt
	}
}

// target is how large a message should be: half a second of the link.
func (p *pacer) target(limit int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := p.rate
	if p.bandwidth > 0 {
		rate = min(rate, float64(p.bandwidth))
	}
	return min(max(int(rate/2), minTarget), limit)
}

// slow is the size above which a batch should be split, 0 if the link takes
// whole ones well.
func (p *pacer) slow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := p.rate
	if p.bandwidth > 0 {
		rate = min(rate, float64(p.bandwidth))
	}
	if rate/2 >= forward.MaxBatchBytes {
		return 0
	}
	return max(int(rate/2), minTarget)
}

// allowance is how long, beside a round trip, the bytes in flight may take.
func (p *pacer) allowance() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(time.Duration(2*float64(p.inflight)/p.rate*float64(time.Second)), 30*time.Second)
}

// request asks to send n bytes. Every ticket ends with cancel, or with done
// once it is granted.
func (p *pacer) request(priority int, n int64) *ticket {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	t := &ticket{C: make(chan struct{}), priority: priority, n: n, seq: p.seq}
	at, _ := slices.BinarySearchFunc(p.waiting, t, func(a, b *ticket) int {
		if a.priority != b.priority {
			return b.priority - a.priority
		}
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	p.waiting = slices.Insert(p.waiting, at, t)
	p.pump()
	return t
}

// cancel takes a ticket back whose bytes were not sent.
func (p *pacer) cancel(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.granted {
		p.inflight -= t.n
		p.tokens += float64(t.n)
	} else if i := slices.Index(p.waiting, t); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.pump()
}

// done says that a granted ticket's bytes are not in flight any more; acked,
// that the core has them.
func (p *pacer) done(t *ticket, acked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inflight -= t.n
	p.measure(t, acked)
	p.pump()
}

// measure takes a ticket's end into the link's rate: what was delivered while
// it was under way, over that time. (Answers come in bunches; over the time
// between two of them anything could be measured.)
func (p *pacer) measure(t *ticket, acked bool) {
	took := time.Since(t.at)
	if took <= 0 {
		return
	}
	if !acked {
		// The link did not carry it in all that time. Without this a message
		// that never gets through between two cuts would never be made smaller.
		if most := float64(p.delivered-t.delivered+t.n) / took.Seconds(); took > time.Second && t.n >= 2*minTarget && most < p.rate {
			p.rate = max(most, minRate)
		}
		return
	}
	p.delivered += t.n
	sample := float64(p.delivered-t.delivered) / took.Seconds()
	switch {
	case sample > p.rate:
		p.rate += (sample - p.rate) / 2
	case t.limited:
		p.rate += (sample - p.rate) / 8
	default:
		return // it says only how little the hub had to send
	}
	p.rate = max(p.rate, minRate)
}

// pump grants what may go now.
func (p *pacer) pump() {
	for len(p.waiting) > 0 && !p.closed {
		i := 0
		if p.grants%fairEvery == fairEvery-1 {
			for j, t := range p.waiting {
				if t.seq < p.waiting[i].seq {
					i = j
				}
			}
		}
		t := p.waiting[i]
		if p.inflight > 0 && p.inflight+t.n > p.budget() {
			t.limited = true
			return // done pumps again
		}
		if wait := p.refill(); wait > 0 {
			if p.timer == nil {
				p.timer = time.AfterFunc(wait, p.tick)
			} else {
				p.timer.Reset(wait)
			}
			return
		}
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.grants++
		p.tokens -= float64(t.n)
		p.inflight += t.n
		t.granted, t.at, t.delivered = true, time.Now(), p.delivered
		close(t.C)
	}
}

// refill adds the tokens of the time gone by and returns how long to wait for
// the first, 0 if there are some. A message may take more than there are: the
// next waits the longer, so that the mean is the bandwidth whatever the sizes.
func (p *pacer) refill() time.Duration {
	if p.bandwidth <= 0 {
		return 0
	}
	now := time.Now()
	p.tokens = min(p.tokens+now.Sub(p.refilled).Seconds()*float64(p.bandwidth), p.burst())
	p.refilled = now
	if p.tokens > 0 {
		return 0
	}
	return max(time.Duration((1-p.tokens)/float64(p.bandwidth)*float64(time.Second)), time.Millisecond)
}

func (p *pacer) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pump()
}

// close ends the pacer's timer. Nothing is granted any more.
func (p *pacer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// snapshot returns the measured rate in bytes/s and the bytes in flight.
func (p *pacer) snapshot() (rate, inflight int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.rate), p.inflight
}
