package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// Produce (0): appends one RecordBatch v2 per partition.
//
// Versions advertised 0-10, accepted 3-10. 0-2 carry message formats that are
// not stored and answer UNSUPPORTED_VERSION in every partition; they are
// advertised because librdkafka before 2.11.1 takes a minimum of 1 or more to
// mean that the broker cannot compress, and Kafka 4 advertises 0 for the same
// reason.
//
//   - v3 transactional id; v5 log start in the answer; v7 zstd; v8 error
//     message; v9 flexible; v10 leader hints (not given).
//   - acks 0 has no answer: a failure closes the connection, so that the
//     producer refreshes its metadata. acks 1 waits as acks -1 does: a
//     partition has no other state to acknowledge than durable.

// maxUnpacked is how large a batch's records may be decompressed, in bytes,
// where the topic does not accept larger batches anyway. Clients fill batches
// by their size before compression: no honest one comes near.
const maxUnpacked = 16 << 20

// Bounds of the time that a produce request waits for the store, whatever
// the client's timeout.
const (
	minProduceWait = time.Second
	maxProduceWait = 5 * time.Minute
)

func (s *Server) produce(ctx context.Context, _ *conn, req *kmsg.ProduceRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrProduceResponse()
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(req.Topics))
	names := make([]string, len(req.Topics))
	total := 0
	for i := range req.Topics {
		t := &req.Topics[i]
		names[i] = t.Topic
		total += len(t.Partitions)
		resp.Topics[i] = kmsg.NewProduceResponseTopic()
		resp.Topics[i].Topic = t.Topic
		resp.Topics[i].Partitions = make([]kmsg.ProduceResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p := &resp.Topics[i].Partitions[j]
			*p = kmsg.NewProduceResponseTopicPartition()
			p.Partition = t.Partitions[j].Partition
			p.BaseOffset, p.LogAppendTime, p.LogStartOffset = -1, -1, -1
		}
	}

	failed := false
	refuse := func(p *kmsg.ProduceResponseTopicPartition, code int16, why string) {
		failed = true
		p.ErrorCode = s.fail(code)
		if why != "" {
			p.ErrorMessage = &why
		}
	}
	all := func(code int16, why string) (kmsg.Response, error) {
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				refuse(&resp.Topics[i].Partitions[j], code, why)
			}
		}
		if req.Acks == 0 {
			return nil, errSilent
		}
		return resp, nil
	}
	switch {
	case req.Version < 3:
		return all(codeUnsupportedVersion, "")
	case req.Acks < -1 || req.Acks > 1:
		return all(codeInvalidRequiredAcks, "")
	case req.TransactionID != nil:
		return all(codeTransactionalIDAuth, "transactions are not supported")
	}

	topics, err := s.topicsByName(ctx, names)
	if err != nil {
		return all(s.code(produceFamily, err), err.Error())
	}
	in := make([]record.Append, 0, total)
	slots := make([]*kmsg.ProduceResponseTopicPartition, 0, total)
	records := make([]int32, 0, total)
	for i := range req.Topics {
		info, known := topics[req.Topics[i].Topic]
		for j := range req.Topics[i].Partitions {
			rp := &req.Topics[i].Partitions[j]
			p := &resp.Topics[i].Partitions[j]
			switch {
			case !known || rp.Partition < 0 || int(rp.Partition) >= len(info.Partitions):
				refuse(p, codeUnknownTopic, "")
				continue
			case info.Internal:
				refuse(p, codeInvalidTopic, "the topic is internal")
				continue
			case int64(len(rp.Records)) > int64(info.Config.MaxMessageBytes):
				refuse(p, codeMessageTooLarge, fmt.Sprintf("batch of %d bytes, the topic accepts %d", len(rp.Records), info.Config.MaxMessageBytes))
				continue
			}
			h, err := s.check(rp.Records, int(info.Config.MaxMessageBytes))
			if err != nil {
				refuse(p, s.code(produceFamily, err), err.Error())
				continue
			}
			if h.Codec() == record.Zstd && req.Version < 7 {
				refuse(p, codeUnsupportedCodec, "zstd needs Produce version 7")
				continue
			}
			in = append(in, record.Append{
				TopicPartition: record.TopicPartition{Topic: info.Name, Partition: rp.Partition},
				Batch:          rp.Records,
			})
			slots = append(slots, p)
			records = append(records, h.Count)
		}
	}

	if len(in) > 0 {
		wait := min(max(time.Duration(req.TimeoutMillis)*time.Millisecond, minProduceWait), maxProduceWait)
		ctx, cancel := context.WithTimeout(ctx, wait)
		out := s.store.Append(ctx, in)
		cancel()
		for i := range out {
			p := slots[i]
			if out[i].Err != nil {
				refuse(p, s.code(produceFamily, out[i].Err), out[i].Err.Error())
				continue
			}
			p.BaseOffset, p.LogStartOffset = out[i].BaseOffset, out[i].LogStart
			s.stats.batchesIn.Add(1)
			s.stats.recordsIn.Add(uint64(records[i]))
		}
	}
	if req.Acks == 0 {
		if failed {
			return nil, errSilent
		}
		return nil, nil
	}
	return resp, nil
}

// check verifies a produced batch down to its records: one that no reader can
// decode, or that claims more offsets than it has records, must not get into
// the log. Decompressed records are held one batch per processor at a time.
func (s *Server) check(b []byte, maxMessage int) (record.Header, error) {
	h, err := record.CheckProduced(b)
	if err != nil {
		return h, err
	}
	if h.Codec() != record.None {
		s.unpacking <- struct{}{}
		defer func() { <-s.unpacking }()
	}
	return h, record.CheckRecords(b, max(maxUnpacked, maxMessage))
}

// topicsByName asks the store once for all of names.
func (s *Server) topicsByName(ctx context.Context, names []string) (map[string]record.TopicInfo, error) {
	if len(names) == 0 {
		return nil, nil
	}
	infos, err := s.store.Topics(ctx, names)
	if err != nil {
		return nil, err
	}
	m := make(map[string]record.TopicInfo, len(infos))
	for _, info := range infos {
		m[info.Name] = info
	}
	return m, nil
}
