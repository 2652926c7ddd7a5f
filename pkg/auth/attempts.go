package auth

import (
	"sync"
	"time"
)

// Limits of wrong passwords for a user from an address.
const (
	freeFailures = 3                // answered at once
	firstDelay   = time.Second      // of the next; it doubles
	maxDelay     = 10 * time.Second // at most
	maxHeld      = 16               // logins at a time once there were failures
	forgetAfter  = 10 * time.Minute // without another failure
	maxAttempts  = 4096             // pairs that are kept in mind
)

// attempt is a pair of user and address.
type attempt struct{ user, address string }

// attempts counts wrong passwords. With maxHeld at a time and each held for
// maxDelay, a pair tries less than two passwords a second.
type attempts struct {
	mu    sync.Mutex
	pairs map[attempt]*failures
}

type failures struct {
	n    int // wrong passwords
	in   int // logins that are under way
	last time.Time
}

// enter begins a login; false: too many of this pair are under way.
func (a *attempts) enter(at attempt, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.pairs[at]
	if f == nil {
		return true
	}
	if now.Sub(f.last) > forgetAfter {
		f.n = 0
	}
	if f.n >= freeFailures && f.in >= maxHeld {
		return false
	}
	f.in++
	return true
}

// leave ends a login.
func (a *attempts) leave(at attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.pairs[at]; f != nil && f.in > 0 {
		f.in--
	}
}

// failed counts a wrong password and says how long to hold back the answer.
func (a *attempts) failed(at attempt, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.pairs[at]
	if f == nil {
		if a.pairs == nil {
			a.pairs = make(map[attempt]*failures)
		}
		if len(a.pairs) >= maxAttempts {
			a.evict(now)
		}
		f = &failures{in: 1}
		a.pairs[at] = f
	}
	f.n++
	f.last = now
	over := f.n - freeFailures
	if over <= 0 {
		return 0
	}
	return min(firstDelay<<min(over-1, 10), maxDelay)
}

// evict makes room: all that is forgotten anyway, else the pair with the
// oldest failure. The caller holds mu.
func (a *attempts) evict(now time.Time) {
	var oldest attempt
	var last time.Time
	for at, f := range a.pairs {
		if now.Sub(f.last) > forgetAfter && f.in == 0 {
			delete(a.pairs, at)
		} else if last.IsZero() || f.last.Before(last) {
			oldest, last = at, f.last
		}
	}
	if len(a.pairs) >= maxAttempts {
		delete(a.pairs, oldest)
	}
}
