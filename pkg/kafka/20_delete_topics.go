package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// DeleteTopics (20): durable before the answer. Internal topics stay.
//
// Versions 0-6: v4 flexible, v5 messages, v6 by name or by topic id.

func (s *Server) deleteTopics(ctx context.Context, _ *conn, req *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	targets := req.Topics
	if req.Version < 6 {
		targets = make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
		for i := range req.TopicNames {
			targets[i] = kmsg.NewDeleteTopicsRequestTopic()
			targets[i].Topic = &req.TopicNames[i]
		}
	}
	if len(targets) == 0 {
		return resp, nil
	}
	infos, err := s.store.Topics(ctx, nil)
	for i := range targets {
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = targets[i].Topic, targets[i].TopicID
		code, derr := int16(0), err
		if derr != nil {
			code = s.code(topicFamily, derr)
		} else {
			code, derr = s.deleteTopic(ctx, infos, &targets[i], &rt)
		}
		if code != 0 {
			why := derr.Error()
			rt.ErrorCode, rt.ErrorMessage = code, &why
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (s *Server) deleteTopic(ctx context.Context, infos []record.TopicInfo, target *kmsg.DeleteTopicsRequestTopic, rt *kmsg.DeleteTopicsResponseTopic) (int16, error) {
	for i := range infos {
		info := &infos[i]
		if target.Topic != nil && *target.Topic != info.Name || target.Topic == nil && target.TopicID != info.ID {
			continue
		}
		rt.Topic, rt.TopicID = &info.Name, info.ID
		if info.Internal {
			return s.fail(codeInvalidTopic), errors.New("the topic is internal")
		}
		err := s.store.DeleteTopic(ctx, info.Name)
		return s.code(topicFamily, err), err
	}
	if target.Topic == nil {
		return s.fail(codeUnknownTopicID), errors.New("no topic has this id")
	}
	return s.code(topicFamily, record.ErrUnknownTopic), record.ErrUnknownTopic
}
