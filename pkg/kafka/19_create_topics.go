package kafka

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// CreateTopics (19): durable before the answer.
//
// Versions 0-7. Partitions and replication factor -1 mean the default (Kafka
// allows that from v4 on; here in every version). Any replication factor is
// accepted and the store's own is what the topic gets: tools that insist on 3
// (Connect, Streams) work on a single gateway. A replica assignment counts
// for its number of partitions only.
//
//   - v1 validate_only and messages; v5 flexible, and what was made; v7 topic
//     ids.

func (s *Server) createTopics(ctx context.Context, _ *conn, req *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreateTopicsResponse()
	seen := map[string]int{}
	for i := range req.Topics {
		seen[req.Topics[i].Topic]++
	}
	done := map[string]bool{}
	for i := range req.Topics {
		t := &req.Topics[i]
		if done[t.Topic] {
			continue
		}
		done[t.Topic] = true
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic = t.Topic
		rt.NumPartitions, rt.ReplicationFactor = -1, -1
		if seen[t.Topic] > 1 {
			why := "the topic is named more than once in the request"
			rt.ErrorCode, rt.ErrorMessage = s.fail(codeInvalidRequest), &why
		} else if code, err := s.createTopic(ctx, t, req.ValidateOnly, &rt); err != nil {
			why := err.Error()
			rt.ErrorCode, rt.ErrorMessage = code, &why
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (s *Server) createTopic(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool, rt *kmsg.CreateTopicsResponseTopic) (int16, error) {
	if err := record.CheckTopicName(t.Topic); err != nil {
		return s.code(topicFamily, err), err
	}
	if strings.HasPrefix(t.Topic, record.InternalPrefix) {
		return s.fail(codeInvalidTopic), fmt.Errorf("names that begin with %s are the hub's own", record.InternalPrefix)
	}
	cfg := s.o.DefaultTopic
	switch n := t.NumPartitions; {
	case len(t.ReplicaAssignment) > 0:
		if n != -1 || t.ReplicationFactor != -1 {
			return s.fail(codeInvalidRequest), fmt.Errorf("give a replica assignment or numbers, not both")
		}
		cfg.Partitions = int32(len(t.ReplicaAssignment))
	case n == -1:
	case n < 1:
		return s.fail(codeInvalidPartitions), fmt.Errorf("%d partitions: use 1 to %d", n, record.MaxPartitions)
	default:
		cfg.Partitions = n
	}
	if cfg.Partitions > record.MaxPartitions {
		return s.fail(codeInvalidPartitions), fmt.Errorf("%d partitions: use 1 to %d", cfg.Partitions, record.MaxPartitions)
	}
	if t.ReplicationFactor == 0 || t.ReplicationFactor < -1 {
		return s.fail(codeInvalidReplication), fmt.Errorf("replication factor %d: use -1 for the default", t.ReplicationFactor)
	}
	if err := applyConfigs(&cfg, t.Configs, s.o.DefaultTopic.Compression); err != nil {
		return s.fail(codeInvalidConfig), err
	}

	var info record.TopicInfo
	if validateOnly {
		infos, err := s.store.Topics(ctx, []string{t.Topic})
		if err == nil && len(infos) > 0 {
			err = record.ErrTopicExists
		}
		if err != nil {
			return s.code(topicFamily, err), err
		}
		info = record.TopicInfo{Name: t.Topic, Config: cfg}
	} else {
		var err error
		if info, err = s.store.CreateTopic(ctx, t.Topic, cfg); err != nil {
			return s.code(topicFamily, err), err
		}
	}
	rt.TopicID = info.ID
	rt.NumPartitions, rt.ReplicationFactor = cfg.Partitions, 1
	if len(info.Partitions) > 0 {
		rt.NumPartitions = int32(len(info.Partitions))
		rt.ReplicationFactor = int16(max(1, len(info.Partitions[0].Replicas)))
	}
	for _, c := range describeConfigs(&cfg) {
		rc := kmsg.NewCreateTopicsResponseTopicConfig()
		rc.Name, rc.Value, rc.Source = c.name, kmsg.StringPtr(c.value), c.source
		rt.Configs = append(rt.Configs, rc)
	}
	return 0, nil
}
