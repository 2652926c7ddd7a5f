package kafka

import (
	"context"

	"edgehub/pkg/log/record"
)

// Store is what the server serves. All methods are safe for concurrent use.
// Errors are those of package record (errors.Is); errors.go maps them to
// Kafka's codes.
type Store interface {
	// Cluster tells who serves. A broker with an empty Host is this server
	// itself, at the address by which the client came. Brokers are listed in
	// a stable order; Controller is one of them.
	Cluster(ctx context.Context) (record.Cluster, error)
	// Topics returns the named topics in any order and leaves unknown ones
	// out; nil names: all, internal ones too, sorted by name.
	Topics(ctx context.Context, names []string) ([]record.TopicInfo, error)
	// CreateTopic is durable on return.
	CreateTopic(ctx context.Context, name string, cfg record.TopicConfig) (record.TopicInfo, error)
	// DeleteTopic is durable on return.
	DeleteTopic(ctx context.Context, name string) error
	// Append appends batches that passed record.CheckProduced and blocks
	// until all of them are as durable as their topics promise. The answer
	// has the length and order of in. The batches' bytes belong to the Store
	// from the call to its return, and to the caller again behind it.
	Append(ctx context.Context, in []record.Append) []record.Appended
	// Fetch appends to dst whole batches from the one that holds offset on,
	// not more than maxBytes but at least one if there is any below the high
	// watermark; none at the high watermark. It does not wait. With
	// ErrOffsetOutOfRange the marks in Fetched are set all the same.
	Fetch(ctx context.Context, tp record.TopicPartition, offset int64, maxBytes int, dst []byte) (record.Fetched, error)
	// Offsets is the range of a partition.
	Offsets(ctx context.Context, tp record.TopicPartition) (record.Offsets, error)
	// Watch sends to wake, without blocking, whenever the high watermark or
	// log start of one of the partitions moves or its leadership changes,
	// until stop is called. Unknown partitions are ignored. Nothing is sent
	// after stop has returned.
	Watch(tps []record.TopicPartition, wake chan<- struct{}) (stop func())
	// OffsetForTime finds the first offset whose record has timestamp ts (ms)
	// or a later one; Offset -1: none has.
	OffsetForTime(ctx context.Context, tp record.TopicPartition, ts int64) (record.OffsetTime, error)
	// MaxTimestamp finds the record with the highest timestamp; Offset -1:
	// the partition is empty.
	MaxTimestamp(ctx context.Context, tp record.TopicPartition) (record.OffsetTime, error)
	// NewProducerID returns an id that this Store never gave before.
	NewProducerID(ctx context.Context) (id int64, epoch int16, err error)
	// Coordinator is the broker that keeps the group's offsets.
	Coordinator(ctx context.Context, group string) (record.Broker, error)
	// CommitOffsets is durable on return. All of offs or none is stored.
	CommitOffsets(ctx context.Context, group string, offs []record.GroupOffset) error
	// GroupOffsets returns all offsets of a group; none if it is unknown.
	GroupOffsets(ctx context.Context, group string) ([]record.GroupOffset, error)
}
