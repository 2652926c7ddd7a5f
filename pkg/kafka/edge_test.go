package kafka

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

// A hub that starts again answers as before: a batch sent again gets its
// first offset, a group its offsets, ListOffsets the same numbers, and a
// consumer that knew the old epoch goes on.
func TestEdgeRestart(t *testing.T) {
	dir := t.TempDir()
	open := func() *log.Log {
		l, err := log.Open(log.Options{Dir: dir, JournalBytes: 32 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ctx := timeout(t, 40*time.Second)
	l := open()
	id := l.ID()
	clusterID := "site/" + hex.EncodeToString(id[:])
	s := start(t, NewEdgeStore(l, clusterID, nil), nil)
	addr := s.Addr().String()
	mustCreate(t, NewEdgeStore(l, clusterID, nil), "t", 1)
	consumer := newClient(t, s, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxWait(200*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))
	next := int64(0)
	consume := func(end int64) {
		for next < end {
			fs := consumer.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			fs.EachRecord(func(r *kgo.Record) {
				if r.Offset != next || string(r.Value) != fmt.Sprint("v", next) {
					t.Fatalf("offset %d %q, want %d", r.Offset, r.Value, next)
				}
				next++
			})
		}
	}

	var pid int64
	var epoch int32
	send := func(c *raw, seq int32) (int64, int16) {
		var b record.Builder
		b.Append(&record.Record{Timestamp: 1000 + int64(seq), Value: []byte(fmt.Sprint("v", seq))})
		raw := b.BuildIdempotent(nil, record.None, pid, 0, seq)
		p := ask[*kmsg.ProduceResponse](c, produceRequest("t", 0, -1, raw), 9).Topics[0].Partitions[0]
		return p.BaseOffset, p.ErrorCode
	}
	for round := range int32(4) {
		c := dial(t, s)
		if round == 0 {
			pid = ask[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 4).ProducerID
		} else {
			if got := ask[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 4).ProducerID; got <= pid {
				t.Errorf("producer id %d given after %d", got, pid)
			}
			if offset, code := send(c, round*10-1); code != 0 || offset != int64(round*10-1) {
				t.Errorf("round %d: sent again: offset %d code %d", round, offset, code)
			}
			if got := fetchOffsets(c, 9, "g", true); !cmp.Equal(got, map[int32]int64{0: int64(round * 10)}) {
				t.Errorf("round %d: group has %v", round, got)
			}
		}
		for i := range int32(10) {
			if offset, code := send(c, round*10+i); code != 0 || offset != int64(round*10+i) {
				t.Fatalf("offset %d code %d", offset, code)
			}
		}
		consume(int64(round+1) * 10)

		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group = "g"
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset = next
		rt.Partitions = append(rt.Partitions, rp)
		commit.Topics = append(commit.Topics, rt)
		if resp := ask[*kmsg.OffsetCommitResponse](c, commit, 8); resp.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Fatal(resp.Topics)
		}
		md := ask[*kmsg.MetadataResponse](c, metadataRequest("t", record.EpochsTopic), 12)
		if p := md.Topics[0].Partitions[0]; p.LeaderEpoch <= epoch && round > 0 || p.Leader != EdgeNode || *md.ClusterID != clusterID {
			t.Errorf("round %d: epoch %d after %d, leader %d", round, p.LeaderEpoch, epoch, p.Leader)
		} else {
			epoch = p.LeaderEpoch
		}
		if !md.Topics[1].IsInternal || md.Topics[1].ErrorCode != 0 {
			t.Errorf("epochs topic: %+v", md.Topics[1])
		}

		s.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open()
		s = start(t, NewEdgeStore(l, clusterID, nil), func(o *Options) { o.Listen = addr })
	}
	consumer.Close()
	s.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Requests to a log that is closed under the server get answers that clients
// retry.
func TestEdgeLogClosed(t *testing.T) {
	l, err := log.Open(log.Options{Dir: t.TempDir(), JournalBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	st := NewEdgeStore(l, "x", nil)
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	c := dial(t, s)
	if p := ask[*kmsg.ProduceResponse](c, produceRequest("t", 0, -1, batch(record.None, "v")), 9).Topics[0].Partitions[0]; p.ErrorCode != 0 {
		t.Fatal(p.ErrorCode)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if p := ask[*kmsg.ProduceResponse](c, produceRequest("t", 0, -1, batch(record.None, "v")), 9).Topics[0].Partitions[0]; p.ErrorCode != codeNotLeader {
		t.Errorf("produce: code %d %v", p.ErrorCode, p.ErrorMessage)
	}
	if resp := ask[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 4); resp.ErrorCode == 0 {
		t.Error("a producer id of a closed log")
	}
}

// What a consumer reads is what was stored, whether it still lies in the head
// or already in segments.
func TestEdgeReadBack(t *testing.T) {
	l := openLog(t, t.TempDir())
	st := NewEdgeStore(l, "x", nil)
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	var want [][]byte
	for i := range 200 {
		value := bytes.Repeat([]byte{byte(i)}, 5000+i)
		want = append(want, value)
		mustAppend(t, st, "t", 0, string(value))
	}
	c := dial(t, s)
	next := int64(0)
	for next < int64(len(want)) {
		req := fetchRequest("t", 0, next)
		req.MaxBytes = 20_000
		p := ask[*kmsg.FetchResponse](c, req, 11).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.HighWatermark != int64(len(want)) {
			t.Fatalf("%d at %d, high watermark %d", p.ErrorCode, next, p.HighWatermark)
		}
		_, err := record.Batches(p.RecordBatches, func(_ record.Header, raw []byte) error {
			if _, err := record.Check(raw); err != nil {
				return err
			}
			return record.Records(raw, func(r *record.Record) error {
				if r.Offset == next {
					if !bytes.Equal(r.Value, want[next]) {
						t.Fatalf("offset %d differs", next)
					}
					next++
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
