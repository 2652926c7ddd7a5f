package kafka

import (
	"bytes"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

// Our encoder of Fetch responses writes what kmsg's would, in every version.
func TestFetchEncoder(t *testing.T) {
	data := []byte("aaaabbcc")
	a := &fetchAnswer{
		FetchResponse: kmsg.NewFetchResponse(),
		topics:        []fetchTopic{{"one", 0, 2}, {"none", 2, 2}, {"two", 2, 3}},
		parts: []fetchPart{
			{tp: record.TopicPartition{Topic: "one", Partition: 4}, hw: 10, logStart: 3, bytes: 6, spans: []span{{0, 4}, {6, 8}}},
			{tp: record.TopicPartition{Topic: "one", Partition: 5}, hw: -1, logStart: -1, code: 1},
			{tp: record.TopicPartition{Topic: "two", Partition: 0}, hw: 7, logStart: 0, bytes: 2, spans: []span{{4, 6}}},
		},
		data: data, total: 8,
	}
	want := kmsg.NewFetchResponse()
	for _, ft := range a.topics {
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic = ft.name
		for _, p := range a.parts[ft.from:ft.to] {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.tp.Partition, p.code
			rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = p.hw, p.hw, p.logStart
			rp.RecordBatches = []byte{}
			for _, sp := range p.spans {
				rp.RecordBatches = append(rp.RecordBatches, data[sp.from:sp.to]...)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		want.Topics = append(want.Topics, rt)
	}
	for v := int16(4); v <= 12; v++ {
		a.Version, want.Version = v, v
		e := fetchEncoder{flexible: v >= 12}
		e.encode(a)
		var got []byte
		from := 0
		for _, ct := range e.cuts {
			got = append(append(got, e.head[from:ct.at]...), ct.data...)
			from = ct.at
		}
		got = append(got, e.head[from:]...)
		if diff := cmp.Diff(want.AppendTo(nil), got); diff != "" {
			t.Errorf("v%d: %s", v, diff)
		}
	}
}

func values(t *testing.T, b []byte) []string {
	t.Helper()
	var out []string
	n, err := record.Batches(b, func(_ record.Header, raw []byte) error {
		return record.Records(raw, func(r *record.Record) error {
			out = append(out, string(r.Value))
			return nil
		})
	})
	if err != nil || n != len(b) {
		t.Fatalf("%d of %d bytes are batches: %v", n, len(b), err)
	}
	return out
}

func TestFetchVersions(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 2)
	mustAppend(t, st, "t", 0, "a", "b")
	mustAppend(t, st, "t", 0, "c")
	c := dial(t, s)
	for v := int16(4); v <= 12; v++ {
		req := fetchRequest("t", 0, 1)
		addFetch(req, "t", 1, 0)
		resp := ask[*kmsg.FetchResponse](c, req, v)
		p := resp.Topics[0].Partitions[0]
		// The batch begins before the asked offset: clients skip.
		if got := values(t, p.RecordBatches); p.ErrorCode != 0 || p.HighWatermark != 3 || p.LastStableOffset != 3 || !cmp.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("v%d: %+v %q", v, p, got)
		}
		if p.PreferredReadReplica != -1 || p.AbortedTransactions != nil || p.CurrentLeader.LeaderID != -1 || p.DivergingEpoch.Epoch != -1 {
			t.Errorf("v%d: defaults %+v", v, p)
		}
		if e := resp.Topics[0].Partitions[1]; e.RecordBatches == nil || len(e.RecordBatches) != 0 || e.ErrorCode != 0 {
			t.Errorf("v%d: empty partition %+v", v, e)
		}
	}
}

func TestFetchErrors(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	mustCreate(t, st, "zstd", 1)
	mustAppend(t, st, "t", 0, "a")
	mustAppend(t, st, "t", 0, "b")
	st.DeleteBefore(record.TopicPartition{Topic: "t"}, 1)
	st.SetLeader(record.TopicPartition{Topic: "t"}, kafkatest.Node, 5)
	long := string(bytes.Repeat([]byte("long "), 100))
	st.Append(t.Context(), []record.Append{{TopicPartition: record.TopicPartition{Topic: "zstd"}, Batch: batch(record.Zstd, long)}})
	mustCreate(t, st, "gone", 1)
	st.Fail(func(op string, tp record.TopicPartition) error {
		if tp.Topic == "gone" {
			return record.ErrNotLeader
		}
		return nil
	})
	for _, tc := range []struct {
		name    string
		topic   string
		offset  int64
		epoch   int32
		version int16
		want    int16
	}{
		{"good", "t", 1, 5, 11, 0},
		{"epoch unknown to the client", "t", 1, -1, 11, 0},
		{"at the end", "t", 2, 5, 11, 0},
		{"below the log start", "t", 0, 5, 11, codeOffsetOutOfRange},
		{"above the end", "t", 3, 5, 11, codeOffsetOutOfRange},
		{"negative", "t", -1, 5, 11, codeOffsetOutOfRange},
		{"old epoch", "t", 1, 4, 11, codeFencedLeaderEpoch},
		{"new epoch", "t", 1, 6, 11, codeUnknownLeaderEpoch},
		{"epoch before v9", "t", 1, 4, 8, 0},
		{"unknown topic", "nothing", 0, -1, 11, codeUnknownTopic},
		{"not leader", "gone", 0, -1, 11, codeNotLeader},
		{"zstd v10", "zstd", 0, -1, 10, 0},
		{"zstd v9", "zstd", 0, -1, 9, codeUnsupportedCodec},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := fetchRequest(tc.topic, 0, tc.offset)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = tc.epoch
			if tc.want != 0 {
				req.MaxWaitMillis = 15_000 // an error does not wait
			}
			p := ask[*kmsg.FetchResponse](dial(t, s), req, tc.version).Topics[0].Partitions[0]
			if p.ErrorCode != tc.want || p.RecordBatches == nil {
				t.Errorf("code %d, want %d; batches nil: %v", p.ErrorCode, tc.want, p.RecordBatches == nil)
			}
		})
	}
	t.Run("session", func(t *testing.T) {
		req := fetchRequest("t", 0, 1)
		req.SessionID, req.SessionEpoch = 77, 3
		if resp := ask[*kmsg.FetchResponse](dial(t, s), req, 11); resp.ErrorCode != codeFetchSessionNotFound {
			t.Errorf("code %d", resp.ErrorCode)
		}
		req.SessionEpoch = 0
		if resp := ask[*kmsg.FetchResponse](dial(t, s), req, 11); resp.ErrorCode != 0 || resp.SessionID != 0 {
			t.Errorf("code %d session %d", resp.ErrorCode, resp.SessionID)
		}
	})
}

// KIP-74: at least one whole batch from the first partition that has one,
// above any limit; the others only what fits.
func TestFetchLimits(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 4)
	kb := string(make([]byte, 1000))
	for range 5 {
		mustAppend(t, st, "t", 1, kb)
		mustAppend(t, st, "t", 2, kb)
	}
	size := len(batch(record.None, kb))
	for _, tc := range []struct {
		name         string
		max, partMax int32
		want         [4]int // batches
	}{
		{"everything fits", 1 << 20, 1 << 20, [4]int{0, 5, 5, 0}},
		{"one byte", 1, 1 << 20, [4]int{0, 1, 0, 0}},
		{"zero", 0, 0, [4]int{0, 1, 0, 0}},
		{"one byte of each partition", 1 << 20, 1, [4]int{0, 1, 0, 0}},
		{"two batches of each", 1 << 20, int32(2*size + 5), [4]int{0, 2, 2, 0}},
		{"seven batches", int32(7*size + 5), 1 << 20, [4]int{0, 5, 2, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := fetchRequest("t", 0, 0)
			for p := range int32(3) {
				addFetch(req, "t", p+1, 0)
			}
			req.MaxBytes = tc.max
			for i := range req.Topics[0].Partitions {
				req.Topics[0].Partitions[i].PartitionMaxBytes = tc.partMax
			}
			req.MinBytes, req.MaxWaitMillis = 100_000, 100 // waiting must not change it
			resp := ask[*kmsg.FetchResponse](dial(t, s), req, 11)
			for i, p := range resp.Topics[0].Partitions {
				if got := len(p.RecordBatches) / size; got != tc.want[i] || p.ErrorCode != 0 {
					t.Errorf("partition %d: %d batches, want %d; code %d", i, got, tc.want[i], p.ErrorCode)
				}
			}
		})
	}
}

func TestFetchWaits(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 2)
	fetch := func(offset int64, minBytes, wait int32) (*kmsg.FetchResponse, time.Duration) {
		req := fetchRequest("t", 0, offset)
		addFetch(req, "t", 1, 0)
		req.MinBytes, req.MaxWaitMillis = minBytes, wait
		begin := time.Now()
		resp := ask[*kmsg.FetchResponse](dial(t, s), req, 11)
		return resp, time.Since(begin)
	}
	if _, took := fetch(0, 1, 200); took < 150*time.Millisecond || took > 2*time.Second {
		t.Errorf("max_wait of 200ms took %v", took)
	}
	if _, took := fetch(0, 0, 10_000); took > time.Second {
		t.Errorf("min_bytes 0 took %v", took)
	}
	if _, took := fetch(0, 1, 0); took > time.Second {
		t.Errorf("max_wait 0 took %v", took)
	}

	// Records that come while a fetch waits end it once they are enough, and
	// all of them are in the answer once, in order.
	done := make(chan struct{})
	watching := onWatch(st)
	go func() {
		defer close(done)
		<-watching
		for i := range 30 {
			mustAppend(t, st, "t", int32(i%2), string(rune('a'+i%26)))
			runtime.Gosched()
		}
	}()
	resp, took := fetch(0, int32(20*len(batch(record.None, "a"))), 10_000)
	if took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	n := 0
	for i, p := range resp.Topics[0].Partitions {
		for j, v := range values(t, p.RecordBatches) {
			if want := string(rune('a' + (2*j+i)%26)); v != want {
				t.Fatalf("partition %d record %d is %q, want %q", i, j, v, want)
			}
			n++
		}
	}
	if n < 20 {
		t.Errorf("%d records", n)
	}
	<-done
	if st.Watchers() != 0 {
		t.Error("a watcher is left")
	}
}

// While a fetch waits, retention may pass what it would read next, and
// leadership may go.
func TestFetchWaitEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(st *kafkatest.Store, tp record.TopicPartition)
		want   int16
	}{
		{"leadership moves", func(st *kafkatest.Store, tp record.TopicPartition) { st.SetLeader(tp, 2, 9) }, codeFencedLeaderEpoch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := kafkatest.New()
			s := start(t, st, nil)
			mustCreate(t, st, "t", 1)
			tp := record.TopicPartition{Topic: "t"}
			watching := onWatch(st)
			go func() {
				<-watching
				tc.change(st, tp)
			}()
			req := fetchRequest("t", 0, 0)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = 0
			req.MaxWaitMillis = 10_000
			begin := time.Now()
			p := ask[*kmsg.FetchResponse](dial(t, s), req, 11).Topics[0].Partitions[0]
			if took := time.Since(begin); p.ErrorCode != tc.want || took > 5*time.Second {
				t.Errorf("code %d after %v, want %d", p.ErrorCode, took, tc.want)
			}
		})
	}
}

// A store that fails in the middle of a request fails that partition only.
func TestFetchStoreFails(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 2)
	mustAppend(t, st, "t", 0, "a")
	mustAppend(t, st, "t", 1, "b")
	st.Fail(func(op string, tp record.TopicPartition) error {
		if op == "Fetch" && tp.Partition == 0 {
			return errors.New("ouch")
		}
		return nil
	})
	req := fetchRequest("t", 0, 0)
	addFetch(req, "t", 1, 0)
	resp := ask[*kmsg.FetchResponse](dial(t, s), req, 11)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != codeUnknownServer || len(p.RecordBatches) != 0 {
		t.Errorf("%+v", p)
	}
	if p := resp.Topics[0].Partitions[1]; p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
		t.Errorf("%+v", p)
	}
	if got := s.Stats().Errors[codeUnknownServer]; got != 1 {
		t.Errorf("%d errors counted", got)
	}
}
