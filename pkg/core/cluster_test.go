package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"edgehub/pkg/log/record"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testCluster is nodes of one process on loopback.
type testCluster struct {
	t      *testing.T
	dir    string
	routes []string
	nodes  []*Core
	sites  []Site
}

// freePorts finds n addresses that nobody listens on, with ports below those
// that the system gives out by itself, so that none is taken meanwhile.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func startCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	tc := &testCluster{t: t, dir: t.TempDir(), nodes: make([]*Core, n)}
	if n > 1 {
		tc.routes = freePorts(t, n)
	}
	for i := range tc.nodes {
		tc.start(i)
	}
	t.Cleanup(func() {
		for _, c := range tc.nodes {
			c.Close()
		}
	})
	for i := range tc.nodes {
		tc.ready(i)
	}
	return tc
}

func testLogger(t *testing.T) *slog.Logger {
	level := slog.LevelError
	if os.Getenv("CORE_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func (tc *testCluster) options(i int) Options {
	o := Options{
		Node: fmt.Sprintf("core-%d", i+1), Dir: filepath.Join(tc.dir, fmt.Sprint(i)),
		ClientListen: "127.0.0.1:0", Secret: "s3cret/with@odd:characters",
		Sites: tc.sites, Advertise: func() string { return fmt.Sprintf("127.0.0.1:%d", 19092+i) },
		Logger: testLogger(tc.t),
	}
	if len(tc.nodes) > 1 {
		o.RouteListen, o.Routes = tc.routes[i], tc.routes
	}
	return o
}

func (tc *testCluster) start(i int) {
	tc.t.Helper()
	c, err := Start(tc.options(i))
	if err != nil {
		tc.t.Fatal(err)
	}
	tc.nodes[i] = c
}

func (tc *testCluster) ready(i int) {
	tc.t.Helper()
	tc.eventually(30*time.Second, func() error { return tc.nodes[i].Ready() })
}

// eventually tries f until it has no error.
func (tc *testCluster) eventually(d time.Duration, f func() error) {
	tc.t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tc.t.Fatalf("after %s: %v", d, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leader is the node that serves a partition, as node any of them says.
func (tc *testCluster) leader(tp record.TopicPartition) *Core {
	for _, c := range tc.nodes {
		if c.closing.Load() {
			continue
		}
		if p, err := c.partition(context.Background(), tp); err == nil {
			if _, err := p.bounds(); err == nil {
				return c
			}
		}
	}
	return nil
}

func (tc *testCluster) create(name string, partitions int32) record.TopicInfo {
	tc.t.Helper()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = partitions
	var info record.TopicInfo
	tc.eventually(20*time.Second, func() (err error) {
		info, err = tc.nodes[0].CreateTopic(context.Background(), name, cfg)
		if errors.Is(err, record.ErrTopicExists) {
			err = nil
		}
		return err
	})
	return info
}

// batch is one batch of n records whose values are "<prefix>-<i>".
func batch(prefix string, first, n int) []byte {
	var b record.Builder
	for i := range n {
		b.Append(&record.Record{Timestamp: 1_700_000_000_000 + int64(first+i), Value: fmt.Appendf(nil, "%s-%d", prefix, first+i)})
	}
	return b.Build(nil, 0, 0, record.None)
}

// produce appends one batch at the leader, trying until it has an answer.
func (tc *testCluster) produce(tp record.TopicPartition, raw func() []byte) record.Appended {
	tc.t.Helper()
	var out record.Appended
	tc.eventually(25*time.Second, func() error {
		c := tc.leader(tp)
		if c == nil {
			return errors.New("no leader")
		}
		out = c.Append(context.Background(), []record.Append{{TopicPartition: tp, Batch: raw()}})[0]
		return out.Err
	})
	return out
}

// read returns all records of a partition, and fails on a hole.
func (tc *testCluster) read(tp record.TopicPartition) []string {
	tc.t.Helper()
	var values []string
	var at int64
	tc.eventually(25*time.Second, func() error {
		c := tc.leader(tp)
		if c == nil {
			return errors.New("no leader")
		}
		off, err := c.Offsets(context.Background(), tp)
		if err != nil {
			return err
		}
		at = max(at, off.LogStart)
		for at < off.HighWatermark {
			f, err := c.Fetch(context.Background(), tp, at, 100_000, nil)
			if err != nil {
				return err
			}
			from := at
			if _, err := record.Batches(f.Batches, func(h record.Header, raw []byte) error {
				if _, err := record.Check(raw); err != nil {
					return err
				}
				return record.Records(raw, func(r *record.Record) error {
					if r.Offset < at {
						return nil
					}
					if r.Offset != at {
						return fmt.Errorf("offset %d where %d was due", r.Offset, at)
					}
					values = append(values, string(r.Value))
					at++
					return nil
				})
			}); err != nil {
				return err
			}
			if at == from {
				return fmt.Errorf("fetch at %d below %d gave nothing", at, off.HighWatermark)
			}
		}
		return nil
	})
	return values
}
