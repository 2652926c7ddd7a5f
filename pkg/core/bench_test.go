package core

import (
	"context"
	"fmt"
	"testing"

	"edgehub/pkg/log/record"
)

// BenchmarkAppend is one producer's batches of 10 KB, 64 appends in flight,
// on three nodes of one process and disk; MB/s of batches.
func BenchmarkAppend(b *testing.B) {
	t := &testing.T{}
	tc := &testCluster{t: t, dir: b.TempDir(), nodes: make([]*Core, 3), routes: nil}
	tc.routes = freePorts(t, 3)
	for i := range tc.nodes {
		tc.start(i)
	}
	defer func() {
		for _, c := range tc.nodes {
			c.Close()
		}
	}()
	for i := range tc.nodes {
		tc.ready(i)
	}
	tc.create("t", 1)
	tp := record.TopicPartition{Topic: "t"}
	tc.produce(tp, func() []byte { return batch("x", 0, 1) })
	var rb record.Builder
	for i := range 100 {
		rb.Append(&record.Record{Value: fmt.Appendf(nil, "%0100d", i)})
	}
	raw := rb.Build(nil, 0, 0, record.None)
	b.SetBytes(int64(len(raw)))
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l := tc.leader(tp)
			if l == nil {
				continue
			}
			mine := append([]byte(nil), raw...)
			if a := l.Append(context.Background(), []record.Append{{TopicPartition: tp, Batch: mine}})[0]; a.Err != nil {
				b.Log(a.Err)
			}
		}
	})
	b.StopTimer()
	if l := tc.leader(tp); l != nil {
		s := l.Stats()
		b.ReportMetric(float64(s.FrameBytes)/float64(max(s.Frames, 1)), "bytes/frame")
		b.ReportMetric(s.AckSeconds/float64(max(s.Frames, 1))*1000, "ms/frame")
	}
}
