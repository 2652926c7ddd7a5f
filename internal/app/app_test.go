package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/internal/config"
	"edgehub/internal/obs"
	"edgehub/internal/web"
	"edgehub/pkg/bridge/mqtt"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// A nats-server that is shut down while it creates a stream may leave that
// stream's store open, with these two goroutines.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

func load(t *testing.T, yaml string, set ...string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(file, nil, append([]string{
		"name=test", "mqtt.listen=127.0.0.1:0", "kafka.listen=127.0.0.1:0", "http.listen=127.0.0.1:0", "log.journal=32MiB",
	}, set...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T, c *config.Config) *Hub {
	t.Helper()
	h, err := Start(t.Context(), Options{Config: c, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func address(t *testing.T, h *Hub, part string) string {
	t.Helper()
	a := h.Status(t.Context()).Listeners[part]
	if a == "" {
		t.Fatalf("no address of %s: %v", part, h.Status(t.Context()).Listeners)
	}
	return a
}

func publish(t *testing.T, h *Hub, topic string, payloads ...string) {
	t.Helper()
	d, err := mqtt.Dial(t.Context(), mqtt.DeviceOptions{Server: address(t, h, "mqtt"), ClientID: "device"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, p := range payloads {
		select {
		case err := <-d.Publish(topic, []byte(p), 1):
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no acknowledgement within 20s")
		}
	}
}

// read reads n records of partition 0 of a topic.
func read(t *testing.T, h *Hub, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(address(t, h, "kafka")), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records of %s: %v", len(out), n, topic, f.Errors())
		}
		out = append(out, f.Records()...)
	}
	return out
}

func get(t *testing.T, h *Hub, path string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + address(t, h, "http") + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

const plant = `
topics: {telemetry: {partitions: 1, retention: {time: 48h}}}
routes:
  - {match: "plant/{device}/t", topic: telemetry, key: "{device}", payload: json, time: {field: ts, format: unix_ms}}
process:
  - {name: minutes, from: telemetry, by: [device], window: tumbling 1m, grace: 1s, compute: {n: count(), max: max(v)}, to: telemetry.1m}
`

// The way of a reading: MQTT, log, window, Kafka; and all of it again after
// a restart on the same directory.
func TestEdgeFromPublishToWindow(t *testing.T) {
	data := t.TempDir()
	c := load(t, plant, "data="+data)
	h, err := Start(t.Context(), Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, h, "plant/press/t", `{"ts":1700000000000,"v":1}`, `{"ts":1700000001000,"v":5}`, `broken`, `{"ts":1700000120000,"v":2}`)
	w := read(t, h, "telemetry.1m", 1)
	want := `{"device":"press","window_start":"2023-11-14T22:13:00Z","window_end":"2023-11-14T22:14:00Z","rev":0,"kind":"final","n":2,"max":5}`
	if string(w[0].Value) != want || string(w[0].Key) != "press" {
		t.Errorf("window is %s %s\nwant %s", w[0].Key, w[0].Value, want)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}

	h = start(t, load(t, plant, "data="+data))
	publish(t, h, "plant/press/t", `{"ts":1700000300000,"v":3}`)
	ws := read(t, h, "telemetry.1m", 2)
	if !strings.Contains(string(ws[1].Value), `"n":1,"max":2`) {
		t.Errorf("second window is %s", ws[1].Value)
	}
	rs := read(t, h, "telemetry", 5)
	for i, r := range rs {
		if r.Offset != int64(i) {
			t.Errorf("record %d has offset %d", i, r.Offset)
		}
	}
	var flagged string
	for _, hd := range rs[2].Headers {
		if hd.Key == "payload.error" {
			flagged = string(hd.Value)
		}
	}
	if flagged == "" || string(rs[2].Value) != "broken" {
		t.Errorf("the malformed payload is %s, flagged %q", rs[2].Value, flagged)
	}
	s := h.Status(t.Context())
	if !s.Ready || s.Log.Epoch != 2 || s.MQTT.Published != 1 || len(s.Processes) != 1 || s.Processes[0].Error != "" {
		t.Errorf("status %+v, log %+v, mqtt %+v, processes %+v", s, s.Log, s.MQTT, s.Processes)
	}
	for _, tp := range s.Topics {
		if tp.Name == "telemetry" && (tp.RetentionMS != 48*3600*1000 || tp.Durability != "fsync" || tp.Partitions[0].End != 5) {
			t.Errorf("topic %+v", tp)
		}
	}
	if code, body := get(t, h, "/readyz"); code != 200 {
		t.Errorf("readyz %d %s", code, body)
	}
	if code, body := get(t, h, "/healthz"); code != 200 || !strings.Contains(body, `"ok"`) {
		t.Errorf("healthz %d %s", code, body)
	}
	if _, body := get(t, h, "/metrics"); !strings.Contains(body, "hub_mqtt_stored_records_total 1\n") || !strings.Contains(body, `hub_log_partition_end_offset{partition="0",topic="telemetry"} 5`) {
		t.Errorf("metrics lack what was published:\n%s", body)
	}
	var st map[string]any
	if code, body := get(t, h, "/api/v1/status"); code != 200 || json.Unmarshal([]byte(body), &st) != nil || st["name"] != "test" {
		t.Errorf("status %d %s", code, body)
	}
}

// A topic that goes away makes the hub unready; a changed configuration is
// applied at the next start, but for the number of partitions.
func TestTopicsFollowTheConfiguration(t *testing.T) {
	data := t.TempDir()
	h, err := Start(t.Context(), Options{Config: load(t, "topics: {a: {partitions: 2}, b: {}}\n", "data="+data)})
	if err != nil {
		t.Fatal(err)
	}
	if missing := h.Ready(t.Context()); missing != nil {
		t.Errorf("not ready: %v", missing)
	}
	if err := h.role.(*edge).log.Load().DeleteTopic("b"); err != nil {
		t.Fatal(err)
	}
	if missing := h.Ready(t.Context()); len(missing) != 1 || !strings.Contains(missing[0], "topic b") {
		t.Errorf("missing %v", missing)
	}
	if code, _ := get(t, h, "/readyz"); code != 503 {
		t.Errorf("readyz %d", code)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = start(t, load(t, "topics: {a: {partitions: 3, retention: {bytes: 5MB}}, b: {}}\n", "data="+data))
	info, err := h.role.(*edge).log.Load().Topic("a")
	if err != nil {
		t.Fatal(err)
	}
	if info.Config.Partitions != 2 || info.Config.RetentionBytes != 5_000_000 {
		t.Errorf("topic a is %+v", info.Config)
	}
	if code, body := get(t, h, "/healthz"); code != 200 || !strings.Contains(body, "topic a has 2 partitions and the configuration says 3") {
		t.Errorf("healthz %d %s", code, body)
	}
}

func TestReload(t *testing.T) {
	data := t.TempDir()
	h := start(t, load(t, "routes: [{match: \"a/#\", topic: one}]\n", "data="+data))
	publish(t, h, "a/x", "1")
	if err := h.Reload(load(t, "topics: {two: {partitions: 2}}\nroutes: [{match: \"a/#\", topic: two, key: k}]\n", "data="+data)); err != nil {
		t.Fatal(err)
	}
	publish(t, h, "a/x", "2")
	got := map[string]int64{}
	for _, tp := range h.Status(t.Context()).Topics {
		for _, p := range tp.Partitions {
			got[tp.Name] += p.End
		}
	}
	if got["one"] != 1 || got["two"] != 1 {
		t.Errorf("records by topic: %v", got)
	}
	if err := h.Reload(load(t, "", "data="+data, "name=other")); err == nil || !strings.Contains(err.Error(), "start the hub again") {
		t.Errorf("another name: %v", err)
	}
}

func TestCannotStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	running := start(t, load(t, "", "data="+t.TempDir()))
	for _, c := range []struct {
		name string
		set  []string
		want []string
	}{
		{"mqtt port", []string{"mqtt.listen=" + taken}, []string{"mqtt.listen", taken, "in use", "another address"}},
		{"kafka port", []string{"kafka.listen=" + taken}, []string{"kafka.listen", taken, "in use"}},
		{"http port", []string{"http.listen=" + taken}, []string{"http.listen", taken, "in use"}},
		{"data is a file", []string{"data=" + file}, []string{file, "not a directory", "another folder"}},
		{"data in use", []string{"data=" + running.cfg.Data}, []string{running.cfg.Data, "in use"}},
		{"core: data is a file", []string{"role=core", "mqtt.listen=off", "data=" + file}, []string{file}},
		{"core: kafka port", []string{"role=core", "mqtt.listen=off", "kafka.listen=" + taken}, []string{"kafka.listen", taken, "in use"}},
		{"core: clients port", []string{"role=core", "mqtt.listen=off", "cluster.clients=" + taken}, []string{taken, "cluster.clients"}},
		{"core: no secret", []string{"role=core", "mqtt.listen=off", "cluster.secret=" + file}, []string{file, "cluster.secret", "empty"}},
		{"core: no sites", []string{"role=core", "mqtt.listen=off", "cluster.sites=/nonexistent/sites.yaml"}, []string{"/nonexistent/sites.yaml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := load(t, "", append([]string{"data=" + t.TempDir(), "cluster.clients=127.0.0.1:0"}, c.set...)...)
			h, err := Start(t.Context(), Options{Config: cfg})
			if err == nil {
				h.Close()
				t.Fatal("it started")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

// A core of one node: ready by itself, topics created, produced and read.
func TestCoreAlone(t *testing.T) {
	h := start(t, load(t, "topics: {events: {partitions: 2}}\n", "role=core", "mqtt.listen=off", "cluster.clients=127.0.0.1:0", "data="+t.TempDir()))
	until := time.Now().Add(30 * time.Second)
	for h.Ready(t.Context()) != nil {
		if time.Now().After(until) {
			t.Fatalf("not ready within 30s: %v", h.Ready(t.Context()))
		}
		time.Sleep(20 * time.Millisecond) // readiness is a poll by contract
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(address(t, h, "kafka")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "events", Partition: 0, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, h, "events", 1); string(got[0].Value) != "x" {
		t.Errorf("read %s", got[0].Value)
	}
	s := h.Status(t.Context())
	if s.Core == nil || s.Core.Ready != "yes" || s.Core.Leads != 2 || s.MQTT != nil {
		t.Errorf("status %+v %+v", s, s.Core)
	}
	if _, body := get(t, h, "/metrics"); !strings.Contains(body, "hub_core_ready 1\n") {
		t.Errorf("metrics say %s", body)
	}
}

// Run ends in order when its context does.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	reload := make(chan *config.Config)
	data := t.TempDir()
	c := load(t, "", "data="+data)
	go func() { done <- Run(ctx, Options{Config: c}, reload) }()
	select {
	case reload <- load(t, "routes: [{match: a, topic: b}]\n", "data="+data): // taken only once it runs
	case err := <-done:
		t.Fatalf("ended before it ran: %v", err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("not ended within 20s")
	}
}

// broken is a role whose log has failed.
type broken struct {
	gone   chan struct{}
	closed bool
}

func (b *broken) start(context.Context, *Hub) error       { return nil }
func (b *broken) close() error                            { b.closed = true; return nil }
func (b *broken) failed() <-chan struct{}                 { return b.gone }
func (b *broken) err() error                              { return errors.New("sync of the journal failed") }
func (b *broken) ready(context.Context) []string          { return []string{"the log failed"} }
func (b *broken) health(context.Context) ([]string, bool) { return []string{"the log failed"}, true }
func (b *broken) status(context.Context, *web.Status)     {}
func (b *broken) scrape(*obs.Scrape)                      {}

// A hub whose log failed closes and ends with an error, so that the service
// manager starts it into recovery.
func TestFailedLogEndsTheHub(t *testing.T) {
	b := &broken{gone: make(chan struct{})}
	h := &Hub{cfg: load(t, ""), role: b, logger: slog.New(slog.DiscardHandler)}
	if got := h.health(t.Context()); got.Status != web.Failing {
		t.Errorf("health is %+v", got)
	}
	close(b.gone)
	err := h.serve(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "sync of the journal failed") || !b.closed {
		t.Errorf("ended with %v, closed: %v", err, b.closed)
	}
}

// What recovery finds damaged stands in health and status, with its offsets.
func TestDamageIsTold(t *testing.T) {
	dir := t.TempDir()
	c := load(t, "", "data="+dir)
	h, err := Start(t.Context(), Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, h, "a", "1", "2", "3")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	segs, err := filepath.Glob(filepath.Join(dir, "topics", "mqtt", "0", "*.seg"))
	if err != nil || len(segs) != 1 {
		t.Fatalf("segments %v, %v", segs, err)
	}
	if err := os.Remove(segs[0]); err != nil {
		t.Fatal(err)
	}
	h = start(t, c)
	const want = "topic mqtt partition 0 offsets 0 to 2"
	if got := h.health(t.Context()); got.Status != web.Degraded || !strings.Contains(strings.Join(got.Problems, "\n"), want) {
		t.Errorf("health %+v, want %q in it", got, want)
	}
	if got := h.Status(t.Context()); !strings.Contains(strings.Join(got.Problems, "\n"), want) {
		t.Errorf("status says %q, want %q in it", got.Problems, want)
	}
}

func TestMemoryLimit(t *testing.T) {
	for in, want := range map[string]int64{"max\n": 0, "268435456\n": 241591904, "9223372036854771712": 0, "": 0, "0": 0} {
		if got := memoryLimit(in); got/10 != want/10 {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	build := builtAfter.UnixMilli()
	for _, c := range []struct {
		name          string
		mode          string
		floor, now    int64
		synced, known bool
		want          bool
	}{
		{"configured", "trusted", 0, 0, false, true, true},
		{"distrusted", "untrusted", 0, build + 1, true, true, false},
		{"synchronised", "auto", build + 100, build + 50, true, true, true},
		{"not synchronised but plausible", "auto", 0, build + 1, false, true, true},
		{"before the build", "auto", 0, build - 1, false, true, false},
		{"before what the log has seen", "auto", build + 100, build + 50, false, true, false},
		{"kernel does not say", "auto", 0, build + 1, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newClock(c.mode, c.floor)
			k.now = func() time.Time { return time.UnixMilli(c.now) }
			k.synced = func() (bool, bool) { return c.synced, c.known }
			if got := k.trusted(); got != c.want {
				t.Errorf("trusted: %v", got)
			}
		})
	}
}

// What the parts find wrong with routes and processes has its place.
func TestLoadConfigPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, []byte(`routes:
  - {match: "a/#/b", topic: t}
  - {match: "a/{x}", topic: t, key: "{y}"}
process:
  - name: p
    from: t
    where: temperature <
    window: tumbling 1m
    compute:
      n: median(x)
    to: u
  - {name: q, from: t, window: tumbling 1m, compute: {n: median(x)}, to: u}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadConfig(file, nil, nil)
	var ce *config.Error
	if !errors.As(err, &ce) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range ce.Problems {
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Path))
	}
	want := "2:13 routes[0].match, 3:37 routes[1].key, 7:12 process[0].where, 12:55 process[1].compute.n"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("problems at %s\nwant %s\n%v", s, want, err)
	}
}
