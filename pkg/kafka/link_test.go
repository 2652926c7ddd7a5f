package kafka

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// badLink forwards connections to target and cuts each of them after a random
// number of answered bytes: requests arrive, answers get lost.
type badLink struct {
	net.Listener
	target atomic.Value // string
	cuts   atomic.Int64
	broken atomic.Bool
	wg     sync.WaitGroup
}

func newBadLink(t *testing.T) *badLink {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &badLink{Listener: ln}
	l.broken.Store(true)
	l.wg.Go(func() {
		r := rand.New(rand.NewPCG(5, 6))
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			limit := int64(400 + r.IntN(1200))
			l.wg.Go(func() { l.forward(c, limit) })
		}
	})
	t.Cleanup(func() { ln.Close(); l.wg.Wait() })
	return l
}

func (l *badLink) forward(c net.Conn, limit int64) {
	defer c.Close()
	s, err := net.Dial("tcp", l.target.Load().(string))
	if err != nil {
		return
	}
	defer s.Close()
	up := make(chan struct{})
	go func() {
		defer close(up)
		io.Copy(s, c)
		s.Close()
	}()
	if !l.broken.Load() {
		limit = 1 << 40
	}
	io.Copy(c, io.LimitReader(s, limit))
	l.cuts.Add(1)
	c.Close()
	s.Close()
	<-up
}

// Answers get lost over and over; an idempotent producer still stores each
// record once and in order.
func TestIdempotentOverBadLink(t *testing.T) {
	stores(t, func(t *testing.T, st Store) {
		link := newBadLink(t)
		s := start(t, st, func(o *Options) { o.Advertise = link.Addr().String() })
		link.target.Store(s.Addr().String())
		mustCreate(t, st, "t", 1)
		ctx := timeout(t, 40*time.Second)
		cl, err := kgo.NewClient(kgo.SeedBrokers(link.Addr().String()), kgo.DefaultProduceTopic("t"), kgo.ProducerBatchMaxBytes(2000),
			kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }), kgo.MetadataMinAge(20*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		const n = 1500
		for i := range n {
			cl.Produce(ctx, &kgo.Record{Value: []byte(fmt.Sprintf("%05d %0100d", i, i))}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		link.broken.Store(false)
		consumer := newClient(t, s, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
		i := 0
		for i < n {
			fs := consumer.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			fs.EachRecord(func(r *kgo.Record) {
				if want := fmt.Sprintf("%05d", i); string(r.Value[:5]) != want || r.Offset != int64(i) {
					t.Fatalf("offset %d is record %q, want %s", r.Offset, r.Value[:5], want)
				}
				i++
			})
		}
		if link.cuts.Load() < 5 {
			t.Errorf("only %d cuts", link.cuts.Load())
		}
	})
}
