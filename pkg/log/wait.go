package log

import (
	"context"

	"edgehub/pkg/log/record"
)

// LSN is the number of a commit of this Open. What was appended under it is
// durable when Durable() has reached it.
type LSN uint64

// noCtx is for waits of the log itself, which a failure or Close ends.
var noCtx = context.Background()

// Notifier is told when a commit is durable. LogDurable is called from one
// goroutine of the log, or from Notify itself; it must not block or append.
// err is not nil if the log failed or closed first.
type Notifier interface {
	LogDurable(durable LSN, err error)
}

type note struct {
	lsn LSN
	to  Notifier
}

// Durable is the last commit that is on the device.
func (l *Log) Durable() LSN { return LSN(l.durable.Load()) }

// Wait returns when commit n is durable: nil; else ErrStorage if the log failed,
// ErrClosed if it closed, or ctx's error.
func (l *Log) Wait(ctx context.Context, n LSN) error {
	if l.Durable() >= n {
		return nil
	}
	l.waitMu.Lock()
	if l.Durable() >= n {
		l.waitMu.Unlock()
		return nil
	}
	ch := l.waits[n]
	if ch == nil {
		if err := l.endErr(); err != nil {
			l.waitMu.Unlock()
			return err
		}
		ch = make(chan struct{})
		l.waits[n] = ch
	}
	l.waitMu.Unlock()
	select {
	case <-ch:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if l.Durable() >= n {
		return nil
	}
	l.waitMu.Lock()
	defer l.waitMu.Unlock()
	return l.endErr()
}

// endErr is why nothing becomes durable any more. waitMu is held.
func (l *Log) endErr() error {
	if l.failErr != nil {
		return l.failErr
	}
	if l.waits == nil {
		return record.ErrClosed
	}
	return nil
}

// Notify tells to once when commit n is durable, or at once, from within
// Notify, if it is already or never will be.
func (l *Log) Notify(n LSN, to Notifier) {
	if d := l.Durable(); d >= n {
		to.LogDurable(d, nil)
		return
	}
	l.waitMu.Lock()
	d, err := l.Durable(), l.endErr()
	if d < n && err == nil {
		l.notes = append(l.notes, note{n, to})
		l.waitMu.Unlock()
		return
	}
	l.waitMu.Unlock()
	if d >= n {
		err = nil
	}
	to.LogDurable(d, err)
}

// setDurable moves the durable LSN and answers those who wait for it.
func (l *Log) setDurable(n LSN) {
	l.durable.Store(uint64(n))
	l.waitMu.Lock()
	for lsn, ch := range l.waits {
		if lsn <= n {
			close(ch)
			delete(l.waits, lsn)
		}
	}
	var due []note
	rest := l.notes[:0]
	for _, nt := range l.notes {
		if nt.lsn <= n {
			due = append(due, nt)
		} else {
			rest = append(rest, nt)
		}
	}
	clear(l.notes[len(rest):])
	l.notes = rest
	l.waitMu.Unlock()
	for _, nt := range due {
		nt.to.LogDurable(n, nil)
	}
}

// endWaits answers all who still wait. With err not nil the log is closed, and
// nobody can wait any more.
func (l *Log) endWaits(err error) {
	l.waitMu.Lock()
	for lsn, ch := range l.waits {
		close(ch)
		delete(l.waits, lsn)
	}
	notes := l.notes
	l.notes = nil
	if err != nil {
		l.waits = nil
	}
	if l.failErr != nil {
		err = l.failErr
	}
	l.waitMu.Unlock()
	for _, nt := range notes {
		nt.to.LogDurable(l.Durable(), err)
	}
}
