package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce         = 0
	keyFetch           = 1
	keyListOffsets     = 2
	keyMetadata        = 3
	keyOffsetCommit    = 8
	keyOffsetFetch     = 9
	keyFindCoordinator = 10
	keyApiVersions     = 18
	keyCreateTopics    = 19
	keyDeleteTopics    = 20
	keyInitProducerID  = 22

	// maxKey bounds the tables that are indexed by key.
	maxKey = keyInitProducerID
)

// api is one key that the server speaks.
type api struct {
	key      int16
	name     string
	min, max int16 // advertised and accepted versions
	schema   schema
	request  func() kmsg.Request
	// handle answers; a nil response is not sent (acks=0). An error closes
	// the connection.
	handle func(s *Server, ctx context.Context, c *conn, req kmsg.Request) (kmsg.Response, error)
}

// on adapts a typed handler.
func on[R kmsg.Request](h func(*Server, context.Context, *conn, R) (kmsg.Response, error)) func(*Server, context.Context, *conn, kmsg.Request) (kmsg.Response, error) {
	return func(s *Server, ctx context.Context, c *conn, req kmsg.Request) (kmsg.Response, error) {
		return h(s, ctx, c, req.(R))
	}
}

// apiTable is what the server speaks, in the order of the keys. Minima are
// part of the contract with librdkafka, which derives features from them:
// Produce must begin at 0 (or it sends uncompressed, see 00_produce.go),
// FindCoordinator, Metadata and ListOffsets at 0 or 1.
func apiTable() []api {
	return []api{
		{keyProduce, "Produce", 0, 10, produceSchema(),
			func() kmsg.Request { return kmsg.NewPtrProduceRequest() }, on((*Server).produce)},
		{keyFetch, "Fetch", 4, 12, fetchSchema(),
			func() kmsg.Request { return kmsg.NewPtrFetchRequest() }, on((*Server).fetch)},
		{keyListOffsets, "ListOffsets", 0, 8, listOffsetsSchema(),
			func() kmsg.Request { return kmsg.NewPtrListOffsetsRequest() }, on((*Server).listOffsets)},
		{keyMetadata, "Metadata", 0, 12, metadataSchema(),
			func() kmsg.Request { return kmsg.NewPtrMetadataRequest() }, on((*Server).metadata)},
		{keyOffsetCommit, "OffsetCommit", 0, 9, offsetCommitSchema(),
			func() kmsg.Request { return kmsg.NewPtrOffsetCommitRequest() }, on((*Server).offsetCommit)},
		{keyOffsetFetch, "OffsetFetch", 0, 9, offsetFetchSchema(),
			func() kmsg.Request { return kmsg.NewPtrOffsetFetchRequest() }, on((*Server).offsetFetch)},
		{keyFindCoordinator, "FindCoordinator", 0, 5, findCoordinatorSchema(),
			func() kmsg.Request { return kmsg.NewPtrFindCoordinatorRequest() }, on((*Server).findCoordinator)},
		{keyApiVersions, "ApiVersions", 0, 4, apiVersionsSchema(),
			func() kmsg.Request { return kmsg.NewPtrApiVersionsRequest() }, on((*Server).apiVersions)},
		{keyCreateTopics, "CreateTopics", 0, 7, createTopicsSchema(),
			func() kmsg.Request { return kmsg.NewPtrCreateTopicsRequest() }, on((*Server).createTopics)},
		{keyDeleteTopics, "DeleteTopics", 0, 6, deleteTopicsSchema(),
			func() kmsg.Request { return kmsg.NewPtrDeleteTopicsRequest() }, on((*Server).deleteTopics)},
		{keyInitProducerID, "InitProducerId", 0, 5, initProducerIDSchema(),
			func() kmsg.Request { return kmsg.NewPtrInitProducerIDRequest() }, on((*Server).initProducerID)},
	}
}
