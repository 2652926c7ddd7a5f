package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// ListOffsets (2): offsets by time.
//
// Versions 0-8. -1 latest (the high watermark, which is the last stable
// offset, too), -2 earliest, -3 the record with the highest timestamp (v7),
// -4 the earliest local one (v8: all are local). A time T >= 0 finds the
// FIRST offset whose record has T or later, -1 if there is none.
//
//   - v0 answers a list, which holds the one offset found or, for a time
//     behind all records, the high watermark. v4 leader epochs; v6 flexible.

const (
	timeLatest        = -1
	timeEarliest      = -2
	timeMax           = -3
	timeEarliestLocal = -4
)

func (s *Server) listOffsets(ctx context.Context, _ *conn, req *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrListOffsetsResponse()
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		rt.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition = t.Partitions[j].Partition
			p.Offset, p.Timestamp, p.LeaderEpoch = -1, -1, -1
			s.listOffset(ctx, req.Version, t.Topic, &t.Partitions[j], &p)
			rt.Partitions[j] = p
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (s *Server) listOffset(ctx context.Context, version int16, topic string, req *kmsg.ListOffsetsRequestTopicPartition, p *kmsg.ListOffsetsResponseTopicPartition) {
	ts := req.Timestamp
	if ts < timeEarliestLocal || ts == timeMax && version < 7 || ts == timeEarliestLocal && version < 8 {
		p.ErrorCode = s.fail(codeUnsupportedVersion)
		return
	}
	tp := record.TopicPartition{Topic: topic, Partition: req.Partition}
	off, err := s.store.Offsets(ctx, tp)
	if err != nil {
		p.ErrorCode = s.code(readFamily, err)
		return
	}
	if code := checkEpoch(req.CurrentLeaderEpoch, off.LeaderEpoch); code != 0 {
		p.ErrorCode = s.fail(code)
		return
	}
	found := record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: off.LeaderEpoch}
	switch ts {
	case timeLatest:
		found.Offset = off.HighWatermark
	case timeEarliest, timeEarliestLocal:
		found.Offset = off.LogStart
	case timeMax:
		found, err = s.store.MaxTimestamp(ctx, tp)
	default:
		found, err = s.store.OffsetForTime(ctx, tp, ts)
	}
	if err != nil {
		p.ErrorCode = s.code(readFamily, err)
		return
	}
	if found.Offset < 0 {
		found = record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	}
	if version == 0 {
		if found.Offset < 0 {
			found.Offset = off.HighWatermark
		}
		if req.MaxNumOffsets > 0 {
			p.OldStyleOffsets = []int64{found.Offset}
		}
		return
	}
	p.Offset, p.Timestamp, p.LeaderEpoch = found.Offset, found.Timestamp, found.LeaderEpoch
}
