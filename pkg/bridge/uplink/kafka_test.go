package uplink_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"edgehub/pkg/bridge/uplink"
	"edgehub/pkg/bridge/uplink/uplinktest"
	"edgehub/pkg/forward"
	"edgehub/pkg/kafka"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

// edge is a hub as it is: a log on disk behind a Kafka server.
type edge struct {
	t      *testing.T
	dir    string
	addr   string
	log    *log.Log
	server *kafka.Server
}

func newEdge(t *testing.T) *edge {
	e := &edge{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	e.start()
	t.Cleanup(e.stop)
	return e
}

func (e *edge) start() {
	e.t.Helper()
	l, err := log.Open(log.Options{Dir: e.dir, JournalBytes: 32 << 20})
	if err != nil {
		e.t.Fatal(err)
	}
	id := l.ID()
	// A wrong advertised address: nobody may dial it.
	s, err := kafka.Listen(kafka.Options{Store: kafka.NewEdgeStore(l, "site-1/"+hex.EncodeToString(id[:]), nil), Listen: e.addr, Advertise: "192.0.2.1:1"})
	if err != nil {
		e.t.Fatal(err)
	}
	e.log, e.server, e.addr = l, s, s.Addr().String()
}

func (e *edge) stop() {
	if e.log == nil {
		return
	}
	if err := errors.Join(e.server.Close(), e.log.Close()); err != nil {
		e.t.Error(err)
	}
	e.log = nil
}

// append appends records "<topic>/<partition>/<n>" of which n counts up.
func (e *edge) append(topic string, p int32, from, n int) {
	e.t.Helper()
	part, err := e.log.Partition(topic, p)
	if err != nil {
		e.t.Fatal(err)
	}
	var last log.LSN
	for i := range n {
		r := record.Record{Timestamp: 1_700_000_000_000, Key: []byte("k"), Value: fmt.Appendf(nil, "%s/%d/%d", topic, p, from+i)}
		if _, last, err = part.Append(&r); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := e.log.Wait(e.t.Context(), last); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edge) create(topic string, partitions int32) {
	e.t.Helper()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = partitions
	if _, err := e.log.CreateTopic(topic, cfg); err != nil {
		e.t.Fatal(err)
	}
}

// forwardTo runs an uplink from e to core until the returned function is called.
func (e *edge) forwardTo(core *uplinktest.Core, topics ...uplink.Topic) (u *uplink.Uplink, stop func()) {
	e.t.Helper()
	src, err := uplink.NewKafkaSource(e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	o := uplink.Options{Source: src, Sink: core, Topics: topics, CommitInterval: 50 * time.Millisecond}
	if os.Getenv("UPLINK_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if u, err = uplink.New(o); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(e.t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	return u, func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
		core.SetUp(true)
	}
}

// await waits for what a core got of each source to hold n records in all.
func await(t *testing.T, core *uplinktest.Core, n int) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		total := 0
		for _, got := range core.Got() {
			total += len(got)
		}
		if total >= n {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the core has %d of %d records: %v", total, n, core.Problems())
		}
	}
}

// dense checks that each partition's records came once and in order.
func dense(t *testing.T, core *uplinktest.Core, want map[string]int) {
	t.Helper()
	for _, p := range core.Problems() {
		t.Error(p)
	}
	have := map[string]int{}
	for _, got := range core.Got() {
		if len(got) == 0 {
			continue
		}
		topic, _, _ := cut(got[0].Value)
		for i, g := range got {
			if v := fmt.Sprintf("%s/%d/%d", topic, g.Source.Partition, i); g.Value != v || g.Gap != "" {
				t.Fatalf("record %d of %v is %+v, want %s", i, g.Source, g, v)
			}
		}
		have[fmt.Sprintf("%s/%d", topic, got[0].Source.Partition)] = len(got)
	}
	if !maps.Equal(have, want) {
		t.Errorf("the core has %v, want %v", have, want)
	}
}

func cut(v string) (topic, p, n string) {
	n = filepath.Base(v)
	p = filepath.Base(filepath.Dir(v))
	return filepath.Dir(filepath.Dir(v)), p, n
}

// From a log on disk through a Kafka server, over restarts of everything.
func TestKafkaSource(t *testing.T) {
	e := newEdge(t)
	core := uplinktest.NewCore(1)
	core.Latency = time.Millisecond
	e.create("telemetry", 2)
	e.create("alarms", 1)
	e.append("telemetry", 0, 0, 1500)
	topics := []uplink.Topic{{Name: "telemetry", Priority: uplink.UrgentPriority}, {Name: "alarms", Priority: 10}, {Name: "later"}}
	u, stop := e.forwardTo(core, topics...)
	await(t, core, 1500)
	e.append("telemetry", 1, 0, 100)
	e.append("alarms", 0, 0, 10)
	await(t, core, 1610)

	// The hub restarts on the same address, twice, and goes on in new epochs.
	for i := range 2 {
		e.stop()
		e.start()
		e.append("telemetry", 0, 1500+100*i, 100)
		await(t, core, 1610+100*(i+1))
	}
	e.create("later", 1)
	e.append("later", 0, 0, 5)
	await(t, core, 1815)
	st := u.Stats()
	if st.Site != "site-1" || len(st.Lanes) != 4 || st.Lanes[0].Topic != "alarms" {
		t.Errorf("stats %+v", st)
	}
	stop()

	// The cursor is in the hub.
	offs := map[string]int64{}
	for _, o := range e.log.GroupOffsets(uplink.DefaultGroup) {
		offs[o.TopicPartition.String()] = o.Offset
	}
	if want := map[string]int64{"telemetry/0": 1700, "telemetry/1": 100, "alarms/0": 10, "later/0": 5}; !maps.Equal(offs, want) {
		t.Errorf("cursor %v, want %v", offs, want)
	}
	// Another uplink sends nothing again.
	e.append("telemetry", 0, 1700, 1)
	_, stop = e.forwardTo(core, topics...)
	await(t, core, 1816)
	stop()
	dense(t, core, map[string]int{"telemetry/0": 1701, "telemetry/1": 100, "alarms/0": 10, "later/0": 5})
	epochs := map[forward.ID]bool{}
	for _, got := range core.Got() {
		for _, g := range got {
			epochs[g.Epoch] = true
		}
	}
	if len(epochs) != 3 {
		t.Errorf("records of %d epochs, want 3", len(epochs))
	}
}

// A disk put back from an image, with the hub on the same address: what it
// gives from then on is new, whatever the offsets and epoch numbers.
func TestKafkaSourceOfARestoredImage(t *testing.T) {
	e := newEdge(t)
	core := uplinktest.NewCore(2)
	core.Latency = time.Millisecond
	e.create("t", 1)
	e.append("t", 0, 0, 100)
	e.stop()
	image := t.TempDir()
	if err := os.CopyFS(image, os.DirFS(e.dir)); err != nil {
		t.Fatal(err)
	}
	e.start()
	_, stop := e.forwardTo(core, uplink.Topic{Name: "t", Priority: 10})
	e.append("t", 0, 100, 100)
	await(t, core, 200)
	e.stop()
	e.dir = image
	e.start()
	e.append("t", 0, 1000, 300) // at once beyond what the core has
	await(t, core, 500)
	stop()
	var values []string
	for _, got := range core.Got() {
		for _, g := range got {
			values = append(values, g.Value)
		}
	}
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("t/0/%d", i))
	}
	for i := range 300 {
		want = append(want, fmt.Sprintf("t/0/%d", 1000+i))
	}
	if !slices.Equal(values, want) {
		t.Errorf("the core has %d records: %v", len(values), values)
	}
}

// The uplink starts with no hub and no core, waits for both, and ends at once
// when told to.
func TestKafkaSourceWithoutAHub(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts, never answers
	e := &edge{t: t, addr: l.Addr().String()}
	core := uplinktest.NewCore(3)
	u, stop := e.forwardTo(core, uplink.Topic{Name: "t"})
	time.Sleep(300 * time.Millisecond)
	if st := u.Stats(); st.HubUp || st.Ready() == nil {
		t.Errorf("stats %+v", st)
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("ending took %s", took)
	}
}

func TestKafkaSourceErrors(t *testing.T) {
	e := newEdge(t)
	e.create("t", 1)
	e.append("t", 0, 0, 10)
	src, err := uplink.NewKafkaSource(e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hub, err := src.Describe(ctx, []string{"t", "nothing"})
	if err != nil || len(hub.Topics) != 1 || len(hub.Epochs) != 1 {
		t.Fatalf("%+v, %v", hub, err)
	}
	p := uplink.Partition{Topic: "t", ID: hub.Topics[0].ID}
	r := src.Read(p)
	defer r.Close()
	o := uplink.FetchOptions{MinBytes: 1, MaxBytes: 1 << 20, Wait: time.Millisecond}
	if _, err := r.Fetch(ctx, 11, o); !errors.Is(err, record.ErrOffsetOutOfRange) {
		t.Errorf("beyond the end: %v", err)
	}
	f, err := r.Fetch(ctx, 10, o)
	if err != nil || len(f.Batches) != 0 || f.HighWatermark != 10 {
		t.Errorf("at the end: %+v, %v", f, err)
	}
	first, err := r.Fetch(ctx, 3, o)
	if err != nil || len(first.Batches) == 0 {
		t.Errorf("inside: %+v, %v", first, err)
	}
	second, err := r.Fetch(ctx, 3, o)
	if err != nil || second.Session == 0 {
		t.Errorf("again: session %d, %v", second.Session, err)
	}
	if third, err := r.Fetch(ctx, 3, o); err != nil || third.Session != second.Session {
		t.Errorf("session %d, then %d, %v", second.Session, third.Session, err)
	}
	old := src.Read(uplink.Partition{Topic: "t", ID: record.TopicID{1}})
	defer old.Close()
	if _, err := old.Fetch(ctx, 0, o); !errors.Is(err, record.ErrUnknownTopic) {
		t.Errorf("a topic of another id: %v", err)
	}
	if _, err := old.Offsets(ctx); !errors.Is(err, record.ErrUnknownTopic) {
		t.Errorf("a topic of another id: %v", err)
	}
	if _, err := uplink.NewKafkaSource("nonsense"); err == nil {
		t.Error("an address without a port passes")
	}
}
