package kafka

import (
	"context"
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// Metadata (3): who serves, and which topics there are.
//
// Versions 0-12. In v0 an empty list of topics means all; from v1 on null
// means all and empty none.
//
//   - v1 controller (always a listed broker), internal flag; v2 cluster id; v4
//     auto-creation as the client allows, before it always; v7 leader epochs;
//     v9 flexible; v10 topic ids; v12 look-up by topic id.
//   - Internal topics are listed and marked; who lists topics for people
//     leaves them out.
//   - A broker without a host is this one, at the address by which the client
//     came or at Options.Advertise.

func (s *Server) metadata(ctx context.Context, c *conn, req *kmsg.MetadataRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrMetadataResponse()
	cluster, err := s.store.Cluster(ctx)
	if err != nil {
		// Metadata has no error of its own before v13. Naming this server
		// alone lets the client come again.
		s.code(topicFamily, err)
		cluster = record.Cluster{Controller: -1, Brokers: []record.Broker{{ID: 0}}}
	} else if cluster.ID != "" {
		resp.ClusterID = &cluster.ID
	}
	resp.ControllerID = -1
	for i, b := range cluster.Brokers {
		m := kmsg.NewMetadataResponseBroker()
		m.NodeID = b.ID
		m.Host, m.Port = c.broker(b.Host, b.Port)
		resp.Brokers = append(resp.Brokers, m)
		if i == 0 || b.ID == cluster.Controller {
			resp.ControllerID = b.ID
		}
	}

	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		infos, terr := s.store.Topics(ctx, nil)
		if terr != nil {
			s.code(topicFamily, terr)
		}
		for i := range infos {
			resp.Topics = append(resp.Topics, s.describe(&infos[i]))
		}
		return resp, nil
	}
	create := s.o.AutoCreate && (req.Version < 4 || req.AllowAutoTopicCreation)
	s.namedTopics(ctx, req, resp, create)
	return resp, nil
}

// namedTopics answers for the topics that a request names, in its order.
func (s *Server) namedTopics(ctx context.Context, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse, create bool) {
	names := make([]string, 0, len(req.Topics))
	var byID map[record.TopicID]record.TopicInfo
	for i := range req.Topics {
		if req.Topics[i].Topic != nil {
			names = append(names, *req.Topics[i].Topic)
			continue
		}
		if byID == nil {
			byID = map[record.TopicID]record.TopicInfo{}
			infos, err := s.store.Topics(ctx, nil)
			if err != nil {
				s.code(topicFamily, err)
			}
			for _, info := range infos {
				byID[info.ID] = info
			}
		}
	}
	known, err := s.topicsByName(ctx, names)
	for i := range req.Topics {
		rt := kmsg.NewMetadataResponseTopic()
		if req.Topics[i].Topic == nil {
			if info, ok := byID[req.Topics[i].TopicID]; ok && req.Version >= 12 {
				rt = s.describe(&info)
			} else {
				rt.TopicID = req.Topics[i].TopicID
				rt.ErrorCode = s.fail(codeUnknownTopicID)
				if req.Version < 12 {
					rt.Topic = kmsg.StringPtr("")
					rt.ErrorCode = s.fail(codeInvalidRequest)
				}
			}
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		name := *req.Topics[i].Topic
		info, ok := known[name]
		switch {
		case ok:
			rt = s.describe(&info)
		case err != nil:
			rt.Topic, rt.ErrorCode = &name, s.code(topicFamily, err)
		default:
			info, cerr := s.autoCreate(ctx, name, create)
			if cerr == nil {
				rt = s.describe(&info)
			} else {
				rt.Topic, rt.ErrorCode = &name, s.code(topicFamily, cerr)
			}
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

// autoCreate makes a topic that a client asked for, if it may.
func (s *Server) autoCreate(ctx context.Context, name string, allowed bool) (record.TopicInfo, error) {
	if err := record.CheckTopicName(name); err != nil {
		return record.TopicInfo{}, err
	}
	if !allowed || strings.HasPrefix(name, record.InternalPrefix) {
		return record.TopicInfo{}, record.ErrUnknownTopic
	}
	info, err := s.store.CreateTopic(ctx, name, s.o.DefaultTopic)
	if !errors.Is(err, record.ErrTopicExists) {
		return info, err
	}
	// Another client was faster.
	infos, err := s.store.Topics(ctx, []string{name})
	if err == nil && len(infos) == 0 {
		err = record.ErrUnavailable
	}
	if err != nil {
		return record.TopicInfo{}, err
	}
	return infos[0], nil
}

// describe is a topic as Metadata shows it.
func (s *Server) describe(info *record.TopicInfo) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic = &info.Name
	t.TopicID = info.ID
	t.IsInternal = info.Internal
	t.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(info.Partitions))
	for i := range info.Partitions {
		pi := &info.Partitions[i]
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition = int32(i)
		p.Leader, p.LeaderEpoch = pi.Leader, pi.LeaderEpoch
		p.Replicas, p.ISR = pi.Replicas, pi.Replicas
		if pi.Leader < 0 {
			p.ErrorCode = s.fail(codeLeaderNotAvailable)
		}
		t.Partitions[i] = p
	}
	return t
}
