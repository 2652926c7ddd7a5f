package core

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A replica that froze is still asked by nodes that have not noticed: reads
// pass it by.
func TestReadsPassSilentReplica(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	}()
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var asked atomic.Int64
	for subject, f := range map[string]nats.MsgHandler{
		"$JS.API.DIRECT.GET.s": func(*nats.Msg) { asked.Add(1) },
		"$JS.API.STREAM.MSG.GET.s": func(m *nats.Msg) { // the leader
			var in struct {
				Seq uint64 `json:"seq"`
			}
			if err := json.Unmarshal(m.Data, &in); err != nil {
				t.Error(err)
			}
			b, err := json.Marshal(map[string]any{"message": map[string]any{"subject": "x", "seq": in.Seq, "data": []byte("v")}})
			if err != nil {
				t.Error(err)
			}
			if err := m.Respond(b); err != nil {
				t.Error(err)
			}
		},
	} {
		if _, err := nc.Subscribe(subject, f); err != nil {
			t.Fatal(err)
		}
	}
	s := newStreams(nc)
	begin := time.Now()
	for seq := uint64(1); seq <= 20; seq++ {
		got, err := s.run(context.Background(), "s", seq, 100, 1000)
		if err != nil || len(got) != 1 || got[0].seq != seq || string(got[0].data) != "v" {
			t.Fatalf("read of sequence %d: %v, %v", seq, got, err)
		}
	}
	if n := asked.Load(); n == 0 {
		t.Error("the silent replica was not asked")
	} else if took := time.Since(begin); took > time.Duration(n+4)*replicaPatience {
		t.Errorf("20 reads beside a silent replica, asked %d times, took %s", n, took)
	} else if took < replicaShunned && n > 1 {
		t.Errorf("the silent replica was asked %d times in %s", n, took)
	}
}
