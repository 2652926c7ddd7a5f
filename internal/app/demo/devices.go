package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"edgehub/pkg/bridge/mqtt"
)

// series is what one device measured, oldest first.
type series struct {
	device string
	points []point
}

type point struct {
	ts          int64 // ms since 1970
	temperature float64
}

// message is the payload of a publish.
type message struct {
	TS          int64   `json:"ts"`
	Seq         int     `json:"seq"`
	Temperature float64 `json:"temperature"`
}

// publish lets every device publish its series evenly over about the time
// given, QoS 1, and returns when all is acknowledged.
func (d *demo) publish(ctx context.Context, over time.Duration) error {
	var wg sync.WaitGroup
	errs := make([]error, len(d.series))
	for i, s := range d.series {
		wg.Go(func() {
			if err := d.publishSeries(ctx, s, over); err != nil {
				errs[i] = fmt.Errorf("device %s: %w", s.device, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *demo) publishSeries(ctx context.Context, s *series, over time.Duration) error {
	dev, err := mqtt.Dial(ctx, mqtt.DeviceOptions{Server: d.edgeMQTT, ClientID: s.device, Reconnect: true})
	if err != nil {
		return err
	}
	defer dev.Close()
	topic := "plant/" + s.device + "/telemetry"
	acks := make(chan (<-chan error), 1024)
	collected := make(chan error, 1)
	go func() { collected <- d.collect(ctx, acks) }()
	began := time.Now()
	for i, p := range s.points {
		// What is due by now goes out in one go; the timer is too coarse for one
		// message each.
		if due := began.Add(time.Duration(float64(over) * float64(i) / float64(len(s.points)))); time.Until(due) > time.Millisecond {
			if err := sleep(ctx, time.Until(due)); err != nil {
				break
			}
		}
		b, err := json.Marshal(message{TS: p.ts, Seq: i, Temperature: p.temperature})
		if err != nil {
			return err
		}
		select {
		case acks <- dev.Publish(topic, b, 1):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(acks)
	return errors.Join(<-collected, ctx.Err())
}

// collect waits for acknowledgements in order.
func (d *demo) collect(ctx context.Context, acks <-chan (<-chan error)) error {
	var first error
	for done := range acks {
		if first != nil {
			continue // drained, so that the publisher never blocks
		}
		select {
		case err := <-done:
			if err != nil {
				first = err
				continue
			}
			d.published.Add(1)
		case <-ctx.Done():
			first = ctx.Err()
		}
	}
	return first
}

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
