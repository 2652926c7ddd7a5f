package core

import (
	"context"
	"fmt"
	"testing"

	"edgehub/pkg/log/record"
)

func TestSingleNodeAppendAndFetch(t *testing.T) {
	tc := startCluster(t, 1)
	tc.create("a.b", 2)
	tp := record.TopicPartition{Topic: "a.b", Partition: 1}
	var want []string
	for i := range 20 {
		got := tc.produce(tp, func() []byte { return batch("x", i*3, 3) })
		if got.BaseOffset != int64(i*3) {
			t.Fatalf("batch %d got offset %d", i, got.BaseOffset)
		}
		for j := range 3 {
			want = append(want, fmt.Sprintf("x-%d", i*3+j))
		}
	}
	if got := tc.read(tp); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("read %v", got)
	}
	cl, err := tc.nodes[0].Cluster(context.Background())
	if err != nil || len(cl.Brokers) != 1 || cl.Brokers[0].Port != 19092 {
		t.Fatalf("cluster %+v, %v", cl, err)
	}
}

func TestClusterProduceAndConsumeAtEveryNode(t *testing.T) {
	tc := startCluster(t, 3)
	info := tc.create("telemetry", 3)
	for p := range int32(3) {
		tp := record.TopicPartition{Topic: "telemetry", Partition: p}
		for i := range 5 {
			tc.produce(tp, func() []byte { return batch("r", i, 1) })
		}
		if got := tc.read(tp); len(got) != 5 {
			t.Fatalf("%s: %v", tp, got)
		}
	}
	// Every node knows every leader.
	for _, c := range tc.nodes {
		tc.eventually(5e9, func() error {
			infos, err := c.Topics(context.Background(), []string{"telemetry"})
			if err != nil || len(infos) != 1 || infos[0].ID != info.ID {
				return fmt.Errorf("%+v, %v", infos, err)
			}
			for p, pi := range infos[0].Partitions {
				if pi.Leader < 1 || len(pi.Replicas) != 3 {
					return fmt.Errorf("partition %d: %+v", p, pi)
				}
			}
			return nil
		})
		cl, err := c.Cluster(context.Background())
		if err != nil || len(cl.Brokers) != 3 {
			t.Fatalf("cluster %+v, %v", cl, err)
		}
	}
}

func TestClusterOfOne(t *testing.T) {
	tc := &testCluster{t: t, dir: t.TempDir(), nodes: make([]*Core, 1), routes: freePorts(t, 1)}
	o := tc.options(0)
	o.RouteListen, o.Routes, o.Replicas = tc.routes[0], tc.routes, 1
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	tc.nodes[0] = c
	t.Cleanup(func() { tc.nodes[0].Close() })
	tc.ready(0)
	tc.create("t", 1)
	tc.produce(record.TopicPartition{Topic: "t"}, func() []byte { return batch("x", 0, 1) })
}
