package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId (22): an id for an idempotent producer.
//
// Versions 0-5. Java's producer asks for one by default since 3.0. Each
// answer is a new id with epoch 0, also when the producer names the id that
// it has (v3, KIP-360), as Kafka does without a transactional id.
//
//   - A transactional id is refused: transactions are not served.

func (s *Server) initProducerID(ctx context.Context, _ *conn, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.TransactionalID != nil {
		resp.ErrorCode = s.fail(codeTransactionalIDAuth)
		return resp, nil
	}
	id, epoch, err := s.store.NewProducerID(ctx)
	if err != nil {
		resp.ErrorCode = s.code(groupFamily, err)
		return resp, nil
	}
	resp.ProducerID, resp.ProducerEpoch = id, epoch
	return resp, nil
}
