// Package demo shows the whole way in one process, with nothing mocked: an
// edge hub, an uplink and a core of three nodes, over real sockets and disks,
// with real sensor series as MQTT devices and a link that is cut in the
// middle. Then it reads everything back at the core and compares.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// Options say how long and where to show it.
type Options struct {
	Duration time.Duration // about the whole; default 60 s, at least 10 s
	Out      io.Writer     // what happens, as it happens
	TTY      bool          // Out is a terminal: the last line is rewritten in place
	Logger   *slog.Logger  // of all parts; nil: nothing is logged
	Version  string
}

// Result is what was found at the end, by reading back.
type Result struct {
	Published  int64 `json:"published"`  // messages that the hub acknowledged to devices
	Edge       int64 `json:"edge"`       // of them in the edge hub's log, read back over Kafka
	Windows    int64 `json:"windows"`    // window results read back at the core
	Core       int64 `json:"core"`       // messages (not windows) read back at the core
	Lost       int64 `json:"lost"`       // messages and windows missing at the core
	Duplicates int64 `json:"duplicates"` // messages and windows at the core more often than at the edge
}

// ErrWrong is the error of a run in which anything was lost, doubled, out of
// order or computed wrongly.
var ErrWrong = errors.New("what was read back at the core is not what was published")

// Names in the demo.
const (
	site        = "demo"
	rawTopic    = "telemetry"
	windowTopic = "telemetry.6h"
	partitions  = 4
	windowSize  = 6 * time.Hour
	grace       = time.Minute
)

// Run runs the demo. With ErrWrong the Result counts what is wrong. It leaves
// nothing behind, however it ends.
func Run(ctx context.Context, o Options) (r Result, err error) {
	if o.Duration == 0 {
		o.Duration = 60 * time.Second
	}
	o.Duration = max(o.Duration, 10*time.Second)
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "hub-demo-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	d := &demo{o: o, dir: dir, began: time.Now()}
	d.table = newTable(o.Out, o.TTY, d.began)
	defer d.table.end()
	defer func() { err = errors.Join(err, d.close()) }()
	stuck := d.run(ctx)
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case errors.Is(stuck, errStuck):
		d.table.say("%v", stuck) // what is missing is counted all the same
	case stuck != nil:
		return r, stuck
	}
	d.table.say("reading everything back at the core …")
	verifyCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r, err = d.verify(verifyCtx)
	return r, errors.Join(err, stuck)
}

// errStuck ends a drain that does not come to its end.
var errStuck = errors.New("the core did not get everything in time")

// run starts everything, publishes, cuts and mends the link, and drains.
func (d *demo) run(ctx context.Context) error {
	// Starting, draining and verifying take about 15 s of the whole, whatever
	// its length.
	publishing := max(d.o.Duration/2-5*time.Second, d.o.Duration/5)
	d.series = load(int(publishing.Seconds() * perSecond))
	d.table.say("starting a core of three nodes, an edge hub and an uplink in %s …", d.dir)
	if err := d.start(ctx); err != nil {
		return err
	}
	d.table.say("edge  mqtt %s  kafka %s", d.edgeMQTT, d.edgeKafka)
	d.table.say("core  kafka %s", join(d.coreKafka))
	d.table.head()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := d.watch(ctx)
	defer stop()
	published := make(chan error, 1)
	go func() { published <- d.publish(ctx, publishing) }()

	cutAt, mendAt := time.NewTimer(publishing*2/5), time.NewTimer(publishing*7/10)
	defer cutAt.Stop()
	defer mendAt.Stop()
	for done := false; !done; {
		select {
		case <-cutAt.C:
			d.setLink(false)
			d.table.mark("the link to the core is cut")
		case <-mendAt.C:
			d.setLink(true)
			d.table.mark("the link is back")
		case err := <-published:
			if err != nil {
				return err
			}
			done = true
		case <-ctx.Done():
			cancel(ctx.Err())
			<-published
			return ctx.Err()
		}
	}
	d.setLink(true)
	d.table.mark("everything is published and acknowledged")
	if err := d.drain(ctx); err != nil {
		return err
	}
	d.table.mark("the core has everything")
	return nil
}

// perSecond is how many messages a second all devices publish.
const perSecond = 1500

// drainTime is how long the core may take to get everything.
const drainTime = 90 * time.Second

// drain waits until the windows are computed and the core has every record.
func (d *demo) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTime, errStuck)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	calm := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s := d.look(context.WithoutCancel(ctx))
			return fmt.Errorf("%w: %d records are on the way, processes are %d behind; the uplink says: %s", context.Cause(ctx), s.backlog, s.lag, s.uplink)
		}
		s := d.look(ctx)
		if s.backlog == 0 && s.unsent == 0 && s.lag == 0 {
			calm++
		} else {
			calm = 0
		}
		if calm >= 3 { // results of the last input have come through, too
			return nil
		}
	}
}
