package uplink_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"edgehub/pkg/bridge/uplink"
	"edgehub/pkg/bridge/uplink/uplinktest"
	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// rig is an uplink between a hub and a core in memory, in a synctest bubble.
type rig struct {
	t      *testing.T
	hub    *uplinktest.Hub
	core   *uplinktest.Core
	topics []uplink.Topic
	up     *uplink.Uplink
	stop   func()
}

func newRig(t *testing.T, seed uint64, topics ...uplink.Topic) *rig {
	return &rig{t: t, hub: uplinktest.NewHub("site-1", seed), core: uplinktest.NewCore(seed), topics: topics}
}

func (r *rig) start(bandwidth int64) {
	r.t.Helper()
	o := uplink.Options{Source: r.hub, Sink: r.core, Topics: r.topics, Bandwidth: bandwidth}
	if os.Getenv("UPLINK_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	u, err := uplink.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	r.up = u
	r.stop = func() {
		r.t.Helper()
		begun := time.Now()
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		if took := time.Since(begun); took > 20*time.Second {
			r.t.Errorf("Run took %s to end", took)
		}
		r.core.SetUp(true) // for the next uplink
	}
}

// drained waits until the core has everything, as the lanes see it: where the
// core has more than a restored hub, its mark stays where it is.
func (r *rig) drained(within time.Duration) {
	r.t.Helper()
	until := time.Now().Add(within)
	time.Sleep(2 * time.Second) // for the lanes to see what the hub became
	for {
		missing := ""
		ends := r.hub.Ends()
		for _, l := range r.up.Stats().Lanes {
			for src, end := range ends {
				if src.Topic.String() == l.TopicID && src.Partition == l.Partition {
					if delete(ends, src); l.Acked != end {
						missing = fmt.Sprintf("%s/%d: acked %d, end %d", l.Topic, l.Partition, l.Acked, end)
					}
				}
			}
		}
		if missing == "" && len(ends) == 0 {
			return
		}
		if time.Now().After(until) {
			r.t.Fatalf("not drained within %s: %s, %d lanes missing; %+v", within, missing, len(ends), r.up.Stats())
		}
		time.Sleep(100 * time.Millisecond) // of the bubble's time
	}
}

func (r *rig) verify() {
	r.t.Helper()
	for _, s := range uplinktest.Verify(r.core, r.hub) {
		r.t.Error(s)
	}
}

func TestForwardsEverythingOnceInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, uplink.Topic{Name: "telemetry"}, uplink.Topic{Name: "late"})
		r.hub.CreateTopic("telemetry", 3)
		r.start(0)
		for i := range 100 {
			r.hub.Append("telemetry", i%3, 1+i%7, uplinktest.Shape{})
			if i == 50 {
				r.hub.CreateTopic("late", 1)
			}
			if i > 50 {
				r.hub.Append("late", 0, 3, uplinktest.Shape{Codec: record.Zstd, Idempotent: true})
			}
			time.Sleep(100 * time.Millisecond)
		}
		r.drained(20 * time.Second)
		r.stop()
		r.verify()
		for p := range 3 {
			if got, want := r.hub.Cursor("telemetry", p), r.hub.Next("telemetry", p); got != want {
				t.Errorf("cursor of partition %d is %d, want %d", p, got, want)
			}
		}
		st := r.up.Stats()
		if st.Site != "site-1" || st.Core != "core" || len(st.Lanes) != 4 || st.Backlog() != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// Whatever link, hub and core do, every offset arrives once, in order, and
// gaps are declared only where they are (U1 to U4).
func TestEverythingOnceWhateverHappens(t *testing.T) {
	runs := 40
	if testing.Short() {
		runs = 8
	}
	if n, err := strconv.Atoi(os.Getenv("UPLINK_STORMS")); err == nil {
		runs = n
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { storm(t, seed) })
		})
	}
}

func storm(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	r := newRig(t, seed, uplink.Topic{Name: "a", Priority: 10}, uplink.Topic{Name: "b", Priority: 1})
	r.hub.CreateTopic("a", 1)
	r.hub.CreateTopic("b", 2)
	chance := func() int { return rng.IntN(3) * rng.IntN(40) }
	r.core.SetFaults(uplinktest.Faults{
		DropRequest: chance(), DropReply: chance(), DelayRequest: chance(), DelayReply: chance(),
		DoubleRequest: chance(), DoubleReply: chance(), LoseLanes: chance(),
		Busy: chance(), NoLeader: chance(), NoBody: chance(), Cut: chance(),
	})
	if rng.IntN(2) == 0 {
		r.core.Window = int64(1 + rng.IntN(20_000))
	}
	if rng.IntN(3) == 0 {
		r.core.Rate = 2_000 + rng.Int64N(50_000)
	}
	var images []*uplinktest.Image
	r.start(0)
	codecs := []record.Codec{record.None, record.None, record.None, record.Zstd, record.Gzip, record.LZ4, record.Snappy}
	for range 300 {
		name, part := "a", 0
		if rng.IntN(2) == 0 {
			name, part = "b", rng.IntN(2)
		}
		switch n := rng.IntN(100); {
		case n < 70:
			for range 1 + rng.IntN(10) {
				r.hub.Append(name, part, 1+rng.IntN(30), uplinktest.Shape{
					Codec: codecs[rng.IntN(len(codecs))], Idempotent: rng.IntN(4) == 0, AppendTime: rng.IntN(10) == 0})
			}
		case n < 73:
			r.hub.Restart()
		case n < 75:
			images = append(images, r.hub.Image())
		case n < 76 && len(images) > 0:
			r.hub.Restore(images[rng.IntN(len(images))])
		case n < 77:
			r.hub.LoseTail(name, part, rng.Int64N(50))
		case n < 78:
			r.hub.DeleteTopic("b")
			r.hub.CreateTopic("b", 2)
		case n < 80:
			r.hub.Retire(name, part, rng.Int64N(200))
		case n < 82:
			r.hub.Rot(name, part)
		case n < 83:
			r.hub.Compact(name, part)
		case n < 85:
			r.hub.SetUp(false)
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			r.hub.SetUp(true)
		case n < 87:
			r.hub.Drop()
		case n < 89:
			r.core.SetUp(false)
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			r.core.SetUp(true)
		case n < 91:
			r.core.LoseLanes()
		case n < 92:
			r.core.GoDark()
		case n < 93:
			r.stop()
			r.start(0)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
	}
	r.core.SetFaults(uplinktest.Faults{})
	r.core.SetUp(false)
	r.core.SetUp(true)
	time.Sleep(10 * time.Second) // for what is late to arrive
	// A rotten end shows once something stands behind it.
	r.hub.Append("a", 0, 1, uplinktest.Shape{})
	r.hub.Append("b", 0, 1, uplinktest.Shape{})
	r.hub.Append("b", 1, 1, uplinktest.Shape{})
	r.drained(10 * time.Minute)
	r.stop()
	r.verify()
}

// A hub restored to an old image numbers its epochs as the lost one did. Only
// ids tell them apart (U3).
func TestRestoredImageIsAnotherEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 7, uplink.Topic{Name: "t"})
		r.hub.CreateTopic("t", 1)
		r.start(0)
		r.hub.Append("t", 0, 100, uplinktest.Shape{})
		r.drained(5 * time.Second)
		img := r.hub.Image()
		r.hub.Restart()
		r.hub.Append("t", 0, 100, uplinktest.Shape{})
		r.drained(5 * time.Second)
		r.hub.Restore(img)                            // at 100, epoch 1 as before
		r.hub.Append("t", 0, 300, uplinktest.Shape{}) // at once beyond the uplink's place
		r.drained(5 * time.Second)
		r.stop()
		r.verify()
		for _, got := range r.core.Got() {
			if len(got) != 500 {
				t.Errorf("the core has %d records, want 500", len(got))
			}
		}
	})
}

func TestRecreatedTopicIsAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, uplink.Topic{Name: "t"})
		r.hub.CreateTopic("t", 1)
		r.start(0)
		r.hub.Append("t", 0, 100, uplinktest.Shape{})
		r.drained(5 * time.Second)
		r.hub.DeleteTopic("t")
		r.hub.CreateTopic("t", 1)
		r.hub.Append("t", 0, 150, uplinktest.Shape{})
		r.drained(60 * time.Second)
		r.stop()
		r.verify()
		if n := len(r.core.Got()); n != 2 {
			t.Errorf("%d sources at the core, want 2", n)
		}
	})
}

func TestGapOfRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 9, uplink.Topic{Name: "t"})
		r.hub.CreateTopic("t", 1)
		r.hub.Append("t", 0, 100, uplinktest.Shape{})
		r.hub.Restart()
		r.hub.Append("t", 0, 100, uplinktest.Shape{})
		r.hub.Retire("t", 0, 150)
		r.start(0)
		r.drained(5 * time.Second)
		r.hub.Retire("t", 0, 200) // all of it, forwarded or not
		r.core.SetUp(false)
		r.hub.Append("t", 0, 10, uplinktest.Shape{})
		r.hub.Retire("t", 0, 10) // nothing is left to carry the gap
		time.Sleep(10 * time.Second)
		r.core.SetUp(true)
		r.drained(10 * time.Second)
		r.stop()
		r.verify()
		var gaps []string
		for _, got := range r.core.Got() {
			for _, g := range got {
				if g.Gap != "" {
					gaps = append(gaps, fmt.Sprintf("%d-%d %s", g.Offset, g.To, g.Gap))
				}
			}
		}
		if got, want := strings.Join(gaps, ", "), "0-100 retention, 100-150 retention, 200-210 retention"; got != want {
			t.Errorf("gaps %s, want %s", got, want)
		}
	})
}

// A refused batch halts its lane and no other, and nothing behind it is sent
// until it is taken (U5).
func TestRefusedIsNotSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 10, uplink.Topic{Name: "t"}, uplink.Topic{Name: "u"})
		r.hub.CreateTopic("t", 1)
		r.hub.CreateTopic("u", 1)
		r.start(0)
		r.hub.Append("t", 0, 10, uplinktest.Shape{})
		r.drained(5 * time.Second)
		var bad forward.Source
		for src, got := range r.core.Got() {
			if len(got) > 0 {
				bad = src
			}
		}
		r.core.Refuse(func(a *forward.Append) bool { return a.Source == bad })
		for range 20 {
			r.hub.Append("t", 0, 10, uplinktest.Shape{Codec: record.Zstd})
			r.hub.Append("u", 0, 10, uplinktest.Shape{})
			time.Sleep(time.Second)
		}
		st := r.up.Stats()
		if l := st.Lanes[0]; l.State != uplink.StateHalted || l.Refused != 1 || l.Acked != 10 || l.Backlog == 0 || !strings.Contains(l.LastError, "the test refuses") {
			t.Errorf("lane %+v", l)
		}
		if st.Lanes[1].Acked < 190 {
			t.Errorf("the other lane waits at %d", st.Lanes[1].Acked)
		}
		if st.Ready() == nil {
			t.Error("ready with a halted lane")
		}
		r.core.Refuse(nil)
		r.drained(2 * time.Minute)
		r.stop()
		r.verify()
	})
}

func TestStartsWithNothingThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 11, uplink.Topic{Name: "t"})
		r.hub.SetUp(false)
		r.core.SetUp(false)
		r.start(0)
		time.Sleep(time.Hour)
		r.hub.SetUp(true)
		time.Sleep(time.Hour)
		r.hub.CreateTopic("t", 1)
		r.hub.Append("t", 0, 1000, uplinktest.Shape{})
		time.Sleep(time.Hour)
		if st := r.up.Stats(); st.Backlog() != 1000 {
			t.Errorf("backlog %d, want 1000", st.Backlog())
		}
		r.core.SetUp(true)
		r.drained(5 * time.Second)
		r.stop()
		r.verify()
	})
}

// A link that swallows everything is dropped after 3 s, one that is only slow
// never.
func TestDarkLinkIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 13, uplink.Topic{Name: "t"})
		r.hub.CreateTopic("t", 1)
		r.start(0)
		r.hub.Append("t", 0, 10, uplinktest.Shape{})
		r.drained(5 * time.Second)
		r.core.GoDark()
		r.hub.Append("t", 0, 10, uplinktest.Shape{})
		time.Sleep(6 * time.Second)
		if n := r.up.Stats().Reconnects; n != 1 {
			t.Errorf("%d reconnects, want 1", n)
		}
		r.drained(5 * time.Second)
		r.core.Rate = 2000
		for range 50 {
			r.hub.Append("t", 0, 500, uplinktest.Shape{Codec: record.Snappy})
		}
		r.drained(30 * time.Minute)
		if n := r.up.Stats().Reconnects; n != 1 {
			t.Errorf("%d reconnects of a slow link", n-1)
		}
		r.stop()
		r.verify()
	})
}

// Two seconds of link between cuts are enough to get on.
func TestTwoSecondsOfLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 12, uplink.Topic{Name: "t"})
		r.core.Latency = 150 * time.Millisecond
		r.core.Rate = 50_000
		r.hub.CreateTopic("t", 1)
		for range 200 {
			r.hub.Append("t", 0, 50, uplinktest.Shape{Codec: record.Zstd})
		}
		r.core.SetUp(false)
		r.start(0)
		for range 40 {
			time.Sleep(30 * time.Second)
			r.core.SetUp(true)
			time.Sleep(2 * time.Second)
			r.core.SetUp(false)
		}
		r.core.SetUp(true)
		st := r.up.Stats()
		if st.Lanes[0].Acked < 10_000 {
			t.Errorf("after 40 windows of 2 s the core has %d of 10000", st.Lanes[0].Acked)
		}
		r.drained(time.Minute)
		r.stop()
		r.verify()
	})
}
