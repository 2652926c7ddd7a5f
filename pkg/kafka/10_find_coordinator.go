package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FindCoordinator (10): which broker keeps a group's offsets.
//
// Versions 0-5. Type 0 is a group, type 1 a transaction: those are not
// served, and TRANSACTIONAL_ID_AUTHORIZATION_FAILED is the answer that clients
// take as final instead of asking for ever.
//
//   - v1 type and message; v3 flexible; v4 many keys.

const coordinatorGroup = 0

func (s *Server) findCoordinator(ctx context.Context, c *conn, req *kmsg.FindCoordinatorRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	if req.Version >= 4 {
		for _, key := range req.CoordinatorKeys {
			resp.Coordinators = append(resp.Coordinators, s.coordinator(ctx, c, req.CoordinatorType, key))
		}
		return resp, nil
	}
	one := s.coordinator(ctx, c, req.CoordinatorType, req.CoordinatorKey)
	resp.ErrorCode, resp.ErrorMessage = one.ErrorCode, one.ErrorMessage
	resp.NodeID, resp.Host, resp.Port = one.NodeID, one.Host, one.Port
	return resp, nil
}

func (s *Server) coordinator(ctx context.Context, c *conn, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	r := kmsg.NewFindCoordinatorResponseCoordinator()
	r.Key, r.NodeID, r.Port = key, -1, -1
	refuse := func(code int16, why string) kmsg.FindCoordinatorResponseCoordinator {
		r.ErrorCode, r.ErrorMessage = s.fail(code), &why
		return r
	}
	switch {
	case kind == 1:
		return refuse(codeTransactionalIDAuth, "transactions are not supported")
	case kind != coordinatorGroup:
		return refuse(codeInvalidRequest, "unknown type of coordinator")
	case key == "":
		return refuse(codeInvalidGroupID, "the group has no name")
	}
	b, err := s.store.Coordinator(ctx, key)
	if err != nil {
		why := err.Error()
		r.ErrorCode, r.ErrorMessage = s.code(groupFamily, err), &why
		return r
	}
	r.NodeID = b.ID
	r.Host, r.Port = c.broker(b.Host, b.Port)
	return r
}
