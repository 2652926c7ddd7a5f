package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// OffsetCommit (8): a group's positions, durable before the answer.
//
// Versions 0-9. Groups with members are not served yet, so only simple
// consumers may commit: generation -1 and no member id. Anything else is
// ILLEGAL_GENERATION or UNKNOWN_MEMBER_ID, as Kafka answers for a group that
// it does not know.
//
//   - v0 has no generation; v1 a time, v2-4 a retention: both ignored,
//     offsets do not expire. v6 leader epoch; v7 static members; v8 flexible.
//   - Partitions that do not exist, negative offsets and metadata above 4096
//     bytes are refused one by one; the others are stored together.

func (s *Server) offsetCommit(ctx context.Context, _ *conn, req *kmsg.OffsetCommitRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrOffsetCommitResponse()
	names := make([]string, len(req.Topics))
	for i := range req.Topics {
		names[i] = req.Topics[i].Topic
	}
	var group int16
	var topics map[string]record.TopicInfo
	switch {
	case req.Group == "":
		group = codeInvalidGroupID
	case req.Version >= 1 && req.Generation >= 0:
		group = codeIllegalGeneration
	case req.Version >= 1 && (req.MemberID != "" || req.InstanceID != nil):
		group = codeUnknownMember
	default:
		var err error
		if topics, err = s.topicsByName(ctx, names); err != nil {
			group = s.code(groupFamily, err)
		}
	}

	var offs []record.GroupOffset
	var stored []*kmsg.OffsetCommitResponseTopicPartition
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	for i := range req.Topics {
		t, rt := &req.Topics[i], &resp.Topics[i]
		*rt = kmsg.NewOffsetCommitResponseTopic()
		rt.Topic = t.Topic
		rt.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p, rp := &t.Partitions[j], &rt.Partitions[j]
			*rp = kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition = p.Partition
			meta := ""
			if p.Metadata != nil {
				meta = *p.Metadata
			}
			switch {
			case group != 0:
				rp.ErrorCode = s.fail(group)
			case p.Partition < 0 || int(p.Partition) >= len(topics[t.Topic].Partitions):
				rp.ErrorCode = s.fail(codeUnknownTopic)
			case len(meta) > record.MaxOffsetMetadata:
				rp.ErrorCode = s.fail(codeMetadataTooLarge)
			case p.Offset < 0:
				rp.ErrorCode = s.fail(codeInvalidRequest)
			default:
				offs = append(offs, record.GroupOffset{
					TopicPartition: record.TopicPartition{Topic: t.Topic, Partition: p.Partition},
					Offset:         p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: meta,
				})
				stored = append(stored, rp)
			}
		}
	}
	if len(offs) > 0 {
		code := s.code(groupFamily, s.store.CommitOffsets(ctx, req.Group, offs))
		for _, rp := range stored {
			rp.ErrorCode = code
		}
	}
	return resp, nil
}
