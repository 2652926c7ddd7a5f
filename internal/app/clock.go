package app

import (
	"sync/atomic"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

// clock decides whether the system's time is to be believed.
type clock struct {
	mode   string // auto, trusted, untrusted
	floor  int64  // ms: what is known to be past, by the build and by the log
	now    func() time.Time
	synced func() (ok, known bool)

	// The kernel is asked again once answer is older than clockAge.
	asked  atomic.Int64 // ms
	answer atomic.Bool
}

const clockAge = 5 * time.Second

// builtAfter is a time that every build of this source lies behind.
var builtAfter = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newClock(mode string, floor int64) *clock {
	return &clock{mode: mode, floor: max(floor, builtAfter.UnixMilli()), now: time.Now, synced: kernelSynced}
}

// trusted says whether the system's time is to be believed: as configured, or
// if the kernel's clock is synchronised, or else if it is not before anything
// known to be past.
func (c *clock) trusted() bool {
	switch c.mode {
	case "trusted":
		return true
	case "untrusted":
		return false
	}
	now := c.now().UnixMilli()
	if at := c.asked.Load(); at != 0 && now >= at && now-at < clockAge.Milliseconds() {
		return c.answer.Load()
	}
	ok, known := c.synced()
	if !known || !ok {
		ok = now >= c.floor
	}
	c.answer.Store(ok)
	c.asked.Store(now)
	return ok
}

// logFloor is the time at which the log says that it was opened: its hybrid
// time is never before one that it has seen.
func logFloor(l *log.Log) int64 {
	p, err := l.Partition(record.EpochsTopic, 0)
	if err != nil {
		return 0
	}
	o := p.Offsets()
	if o.HighWatermark == 0 {
		return 0
	}
	f, err := p.Fetch(o.HighWatermark-1, 1, nil)
	if err != nil {
		return 0
	}
	floor := int64(0)
	_, _ = record.Batches(f.Batches, func(_ record.Header, raw []byte) error {
		return record.Records(raw, func(r *record.Record) error {
			if e, err := record.ParseEpochStart(r.Value); err == nil {
				floor = max(floor, e.Time)
			}
			return nil
		})
	})
	return floor
}
