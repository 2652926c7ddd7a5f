package kafka

import (
	"context"
	"sort"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// OffsetFetch (9): a group's positions.
//
// Versions 0-9. A partition without a position answers offset -1 and no
// error, whether it exists or not, as in Kafka.
//
//   - v2 null topics mean all, and an error for the whole group; v5 leader
//     epoch; v6 flexible; v7 require-stable (nothing is ever unstable: there
//     are no transactions); v8 many groups in a request; v9 members, of which
//     there are none.

func (s *Server) offsetFetch(ctx context.Context, _ *conn, req *kmsg.OffsetFetchRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrOffsetFetchResponse()
	if req.Version < 8 {
		topics := make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
		for i := range req.Topics {
			topics[i] = kmsg.NewOffsetFetchRequestGroupTopic()
			topics[i].Topic, topics[i].Partitions = req.Topics[i].Topic, req.Topics[i].Partitions
		}
		if req.Topics == nil && req.Version >= 2 {
			topics = nil
		}
		g := s.groupOffsets(ctx, req.Group, topics)
		resp.ErrorCode = g.ErrorCode
		for _, t := range g.Topics {
			rt := kmsg.NewOffsetFetchResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewOffsetFetchResponseTopicPartition()
				rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	for i := range req.Groups {
		g := &req.Groups[i]
		if g.MemberID != nil && *g.MemberID != "" && g.MemberEpoch >= 0 {
			rg := kmsg.NewOffsetFetchResponseGroup()
			rg.Group, rg.ErrorCode = g.Group, s.fail(codeUnknownMember)
			resp.Groups = append(resp.Groups, rg)
			continue
		}
		resp.Groups = append(resp.Groups, s.groupOffsets(ctx, g.Group, g.Topics))
	}
	return resp, nil
}

// groupOffsets answers for one group; topics nil: all that it has.
func (s *Server) groupOffsets(ctx context.Context, group string, topics []kmsg.OffsetFetchRequestGroupTopic) kmsg.OffsetFetchResponseGroup {
	g := kmsg.NewOffsetFetchResponseGroup()
	g.Group = group
	offs, err := s.store.GroupOffsets(ctx, group)
	if err != nil {
		g.ErrorCode = s.code(groupFamily, err)
		if g.ErrorCode == codeCoordinatorNotAvail {
			g.ErrorCode = codeCoordinatorLoading // the one that every client retries here
		}
	}
	if topics == nil {
		topics = topicsOf(offs)
	}
	at := make(map[record.TopicPartition]*record.GroupOffset, len(offs))
	for i := range offs {
		at[offs[i].TopicPartition] = &offs[i]
	}
	for i := range topics {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic = topics[i].Topic
		rt.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(topics[i].Partitions))
		for j, partition := range topics[i].Partitions {
			p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, -1, -1, kmsg.StringPtr("")
			p.ErrorCode = g.ErrorCode // v0 and v1 have it here only
			if o := at[record.TopicPartition{Topic: rt.Topic, Partition: partition}]; o != nil {
				p.Offset, p.LeaderEpoch, p.Metadata = o.Offset, o.LeaderEpoch, &o.Metadata
			}
			rt.Partitions[j] = p
		}
		g.Topics = append(g.Topics, rt)
	}
	return g
}

// topicsOf lists the partitions of offs in order.
func topicsOf(offs []record.GroupOffset) []kmsg.OffsetFetchRequestGroupTopic {
	sort.Slice(offs, func(i, j int) bool {
		if offs[i].Topic != offs[j].Topic {
			return offs[i].Topic < offs[j].Topic
		}
		return offs[i].Partition < offs[j].Partition
	})
	var topics []kmsg.OffsetFetchRequestGroupTopic
	for i := range offs {
		if len(topics) == 0 || topics[len(topics)-1].Topic != offs[i].Topic {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic = offs[i].Topic
			topics = append(topics, t)
		}
		t := &topics[len(topics)-1]
		t.Partitions = append(t.Partitions, offs[i].Partition)
	}
	return topics
}
