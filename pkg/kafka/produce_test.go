package kafka

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

// patched is a batch with bytes changed and its CRC made right again.
func patched(b []byte, change func(b []byte)) []byte {
	change(b)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestProduceErrors(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	mustCreate(t, st, "__secret", 1)
	small := record.DefaultTopicConfig()
	small.MaxMessageBytes = 200
	if _, err := st.CreateTopic(t.Context(), "small", small); err != nil {
		t.Fatal(err)
	}
	var fail atomic.Pointer[error]
	st.Fail(func(op string, _ record.TopicPartition) error {
		if e := fail.Load(); e != nil && op == "Append" {
			return *e
		}
		return nil
	})
	good := func() []byte { return batch(record.None, "v", "w") }
	flipped := good()
	flipped[len(flipped)-1] ^= 1
	for _, tc := range []struct {
		name      string
		topic     string
		partition int32
		version   int16
		acks      int16
		batch     []byte
		store     error
		want      int16
	}{
		{"good", "t", 0, 9, -1, good(), nil, 0},
		{"good v3", "t", 0, 3, 1, good(), nil, 0},
		{"good v10", "t", 0, 10, 1, good(), nil, 0},
		{"v0", "t", 0, 0, 1, good(), nil, codeUnsupportedVersion},
		{"v2", "t", 0, 2, 1, good(), nil, codeUnsupportedVersion},
		{"zstd v7", "t", 0, 7, 1, batch(record.Zstd, "a long value that repeats a long value that repeats a long value that repeats"), nil, 0},
		{"zstd v6", "t", 0, 6, 1, batch(record.Zstd, "a long value that repeats a long value that repeats a long value that repeats"), nil, codeUnsupportedCodec},
		{"acks 2", "t", 0, 9, 2, good(), nil, codeInvalidRequiredAcks},
		{"unknown topic", "nothing", 0, 9, 1, good(), nil, codeUnknownTopic},
		{"unknown partition", "t", 1, 9, 1, good(), nil, codeUnknownTopic},
		{"negative partition", "t", -1, 9, 1, good(), nil, codeUnknownTopic},
		{"internal topic", "__secret", 0, 9, 1, good(), nil, codeInvalidTopic},
		{"too large", "small", 0, 9, 1, batch(record.None, string(make([]byte, 300))), nil, codeMessageTooLarge},
		{"flipped bit", "t", 0, 9, 1, flipped, nil, codeCorruptMessage},
		{"cut short", "t", 0, 9, 1, good()[:70], nil, codeCorruptMessage},
		{"nothing", "t", 0, 9, 1, []byte{}, nil, codeCorruptMessage},
		{"null", "t", 0, 9, 1, nil, nil, codeCorruptMessage},
		{"two batches", "t", 0, 9, 1, append(good(), good()...), nil, codeInvalidRecord},
		{"magic 1", "t", 0, 9, 1, patched(good(), func(b []byte) { b[16] = 1 }), nil, codeInvalidRecord},
		{"control batch", "t", 0, 9, 1, patched(good(), func(b []byte) { b[22] |= 0x20 }), nil, codeInvalidRecord},
		{"transactional batch", "t", 0, 9, 1, patched(good(), func(b []byte) { b[22] |= 0x10 }), nil, codeInvalidRecord},
		{"codec 7", "t", 0, 9, 1, patched(good(), func(b []byte) { b[22] |= 7 }), nil, codeInvalidRecord},
		{"count is not the last delta", "t", 0, 9, 1, patched(good(), func(b []byte) { b[26] = 9 }), nil, codeInvalidRecord},
		{"more records than bytes", "t", 0, 9, 1, patched(good(), func(b []byte) { b[24], b[58] = 1, 1 }), nil, codeInvalidRecord},
		{"records without sense", "t", 0, 9, 1, patched(good(), func(b []byte) { b[61] = 0x7f }), nil, codeInvalidRecord},
		{"not leader", "t", 0, 9, 1, good(), record.ErrNotLeader, codeNotLeader},
		{"unavailable", "t", 0, 9, 1, good(), record.ErrUnavailable, codeLeaderNotAvailable},
		{"disk", "t", 0, 9, 1, good(), record.ErrStorage, codeStorage},
		{"unforeseen", "t", 0, 9, 1, good(), errors.New("ouch"), codeUnknownServer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fail.Store(nil)
			if tc.store != nil {
				fail.Store(&tc.store)
			}
			end, _ := st.Offsets(t.Context(), record.TopicPartition{Topic: "t"})
			c := dial(t, s)
			p := ask[*kmsg.ProduceResponse](c, produceRequest(tc.topic, tc.partition, tc.acks, tc.batch), tc.version).Topics[0].Partitions[0]
			if p.ErrorCode != tc.want {
				t.Fatalf("code %d, want %d", p.ErrorCode, tc.want)
			}
			if tc.want == 0 && p.BaseOffset != end.HighWatermark || tc.want != 0 && tc.version > 0 && p.BaseOffset != -1 {
				t.Errorf("base offset %d, high watermark was %d", p.BaseOffset, end.HighWatermark)
			}
			if p.LogAppendTime != -1 {
				t.Errorf("log append time %d", p.LogAppendTime)
			}
			if tc.want > 0 && tc.version >= 8 && p.ErrorMessage == nil && tc.want != codeUnknownTopic && tc.want != codeInvalidRequiredAcks {
				t.Error("no message")
			}
		})
	}
}

// One bad partition does not keep the others of a request from being stored,
// and all go to the store in one call.
func TestProduceManyPartitions(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "a", 2)
	mustCreate(t, st, "b", 1)
	req := produceRequest("a", 0, -1, batch(record.None, "a0"))
	for topic, p := range map[string]int32{"b": 0, "nothing": 0} {
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p, batch(record.None, topic)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = 1, batch(record.None, "a1", "a1")
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, rp)
	resp := ask[*kmsg.ProduceResponse](dial(t, s), req, 9)
	for i, topic := range resp.Topics {
		if topic.Topic != req.Topics[i].Topic {
			t.Fatal("topics in another order")
		}
		for _, p := range topic.Partitions {
			if want := map[bool]int16{true: codeUnknownTopic}[topic.Topic == "nothing"]; p.ErrorCode != want {
				t.Errorf("%s/%d: %d", topic.Topic, p.Partition, p.ErrorCode)
			}
		}
	}
	if st := s.Stats(); st.RecordsIn != 4 || st.BatchesIn != 3 {
		t.Errorf("%d records in %d batches", st.RecordsIn, st.BatchesIn)
	}
}

func TestProduceWithoutAcks(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	c := dial(t, s)
	req := produceRequest("t", 0, 0, batch(record.None, "v"))
	req.SetVersion(9)
	c.send(req)
	c.send(req)
	// The next answer is of the next request.
	if resp := ask[*kmsg.ApiVersionsResponse](c, apiVersionsRequest(), 3); resp.ErrorCode != 0 {
		t.Fatal(resp.ErrorCode)
	}
	if off, _ := st.Offsets(t.Context(), record.TopicPartition{Topic: "t"}); off.HighWatermark != 2 {
		t.Errorf("high watermark %d", off.HighWatermark)
	}
	bad := produceRequest("nothing", 0, 0, batch(record.None, "v"))
	bad.SetVersion(9)
	c.send(bad)
	c.closed()
}

func TestTransactionsAreRefused(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	c := dial(t, s)
	id := "tx"
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID = &id
	if resp := ask[*kmsg.InitProducerIDResponse](c, init, 4); resp.ErrorCode != codeTransactionalIDAuth || resp.ProducerID != -1 {
		t.Errorf("InitProducerId: %+v", resp)
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorType, find.CoordinatorKeys = 1, []string{id}
	if resp := ask[*kmsg.FindCoordinatorResponse](c, find, 4); resp.Coordinators[0].ErrorCode != codeTransactionalIDAuth {
		t.Errorf("FindCoordinator: %+v", resp)
	}
	req := produceRequest("t", 0, -1, batch(record.None, "v"))
	req.TransactionID = &id
	if resp := ask[*kmsg.ProduceResponse](c, req, 9); resp.Topics[0].Partitions[0].ErrorCode != codeTransactionalIDAuth {
		t.Errorf("Produce: %+v", resp)
	}
}
