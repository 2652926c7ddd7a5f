package uplink

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// With a bandwidth, the mean is the bandwidth, whatever the sizes, and no
// second holds much more.
func TestPacerBandwidth(t *testing.T) {
	for _, bandwidth := range []int64{1_000, 50_000, 2_000_000} {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(bandwidth)
			defer p.close()
			rng := rand.New(rand.NewPCG(1, 1))
			begun, total := time.Now(), int64(0)
			perSecond := map[int64]int64{}
			largest := min(bandwidth/2, 500_000)
			for time.Since(begun) < 2*time.Minute {
				k := p.request(0, 1+rng.Int64N(largest))
				<-k.C
				p.done(k, true)
				total += k.n
				perSecond[int64(time.Since(begun)/time.Second)] += k.n
			}
			mean := float64(total) / time.Since(begun).Seconds()
			if mean < 0.98*float64(bandwidth) || mean > 1.02*float64(bandwidth) {
				t.Errorf("mean %.0f bytes/s, want %d", mean, bandwidth)
			}
			for s, n := range perSecond {
				if n > bandwidth+int64(p.burst())+largest {
					t.Errorf("%d bytes in second %d at %d bytes/s", n, s, bandwidth)
				}
			}
		})
	}
}

// The higher priority goes first; every so many grants one goes to who waits
// longest, so that nobody waits for ever.
func TestPacerPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(1000)
		defer p.close()
		low := p.request(1, 100)
		<-low.C
		p.done(low, true)
		hungry := p.request(1, 100) // waits for tokens or its turn
		var order []int
		for range 100 {
			a, b := p.request(5, 100), p.request(9, 100)
			for range 2 {
				select {
				case <-a.C:
					order = append(order, 5)
					p.done(a, true)
					a.C = nil
				case <-b.C:
					order = append(order, 9)
					p.done(b, true)
					b.C = nil
				}
			}
		}
		select {
		case <-hungry.C:
		default:
			t.Error("the lowest priority never got its turn")
		}
		first := 0
		for i := 0; i < len(order); i += 2 {
			if order[i] == 9 {
				first++
			}
		}
		if first < 90 {
			t.Errorf("priority 9 went before 5 in %d of 100 rounds", first)
		}
	})
}

// A cancelled ticket takes nothing with it.
func TestPacerCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(1000)
		defer p.close()
		granted := p.request(0, 250)
		<-granted.C
		waiting := p.request(0, 1000)
		p.cancel(granted)
		p.cancel(waiting)
		if rate, inflight := p.snapshot(); rate != firstRate || inflight != 0 || len(p.waiting) != 0 {
			t.Errorf("rate %d, %d in flight, %d waiting", rate, inflight, len(p.waiting))
		}
		begun := time.Now()
		next := p.request(0, 1)
		<-next.C
		if took := time.Since(begun); took != 0 {
			t.Errorf("after all was taken back a byte waits %s", took)
		}
	})
}

// What is in flight follows the link: it grows to what a fast one takes and
// stays at a second's worth of a slow one (U6).
func TestPacerFollowsTheLink(t *testing.T) {
	for _, link := range []struct {
		rate    float64
		latency time.Duration
		bunch   time.Duration
	}{
		{4_000, 100 * time.Millisecond, 0}, {20_000, 200 * time.Millisecond, time.Second}, {100_000, 50 * time.Millisecond, 0},
		{3_000_000, 300 * time.Millisecond, 0}, {1_000_000, 1500 * time.Millisecond, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(0)
			defer p.close()
			p.observe(link.latency + link.bunch)
			begun := time.Now()
			free, total := begun, int64(0)
			var queue []time.Duration // how long each message was under way
			for time.Since(begun) < 3*time.Minute {
				k := p.request(0, int64(p.target(512<<10)))
				<-k.C
				sent := time.Now()
				if sent.After(free) {
					free = sent
				}
				free = free.Add(time.Duration(float64(k.n) / link.rate * float64(time.Second)))
				arrive := free.Add(link.latency)
				if link.bunch > 0 {
					arrive = arrive.Truncate(link.bunch).Add(link.bunch) // answers come together
				}
				time.AfterFunc(arrive.Sub(sent), func() { p.done(k, true) })
				if time.Since(begun) > time.Minute {
					total += k.n
					queue = append(queue, arrive.Sub(sent))
				}
			}
			mean := float64(total) / (time.Since(begun) - time.Minute).Seconds()
			if mean < 0.7*link.rate {
				t.Errorf("link of %.0f bytes/s: %.0f used", link.rate, mean)
			}
			slices.Sort(queue)
			// A message of 8 KB at least, two of them at once.
			least := time.Duration(float64(2*minTarget) / link.rate * float64(time.Second))
			if p90 := queue[len(queue)*9/10]; p90 > 2*time.Second+2*link.latency+2*link.bunch+least {
				t.Errorf("link of %.0f bytes/s: a message takes %s", link.rate, p90)
			}
			synctest.Wait()
			time.Sleep(time.Minute) // for the answers under way
		})
	}
}
