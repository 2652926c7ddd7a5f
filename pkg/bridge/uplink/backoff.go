package uplink

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a growing, jittered pause. Its bounds are small: a link that is
// up for two seconds between cuts is to be used.
type backoff struct {
	min, max time.Duration
	n        int
}

// next is the pause before the next try: uniform in [d/2, d), d doubling from
// min to max.
func (b *backoff) next() time.Duration {
	d := b.max
	if b.n < 16 {
		d = min(b.max, b.min<<b.n)
		b.n++
	}
	return d/2 + rand.N(d/2+1)
}

// reset makes the next pause short again.
func (b *backoff) reset() { b.n = 0 }

// sleep waits for d or for the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
