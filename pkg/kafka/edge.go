package kafka

import (
	"context"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

// EdgeNode is the broker id of an edge hub, which is alone in its cluster. The
// log names it as the leader of its partitions.
const EdgeNode = 1

// edgeStore serves one hub's log as a cluster of one broker.
type edgeStore struct {
	l    *log.Log
	id   string
	port func() int32
}

// NewEdgeStore is a Store over a hub's log. clusterID is what Metadata tells
// (by the contract "<site>/<log id, 32 hex digits>"). The broker has no host:
// clients are sent to the address by which they came, or to
// Options.Advertise; port, which may be nil, is only for readers of Cluster.
// The log stays the caller's to close, after the server.
func NewEdgeStore(l *log.Log, clusterID string, port func() int32) Store {
	return &edgeStore{l: l, id: clusterID, port: port}
}

func (e *edgeStore) broker() record.Broker {
	b := record.Broker{ID: EdgeNode}
	if e.port != nil {
		b.Port = e.port()
	}
	return b
}

func (e *edgeStore) Cluster(context.Context) (record.Cluster, error) {
	return record.Cluster{ID: e.id, Controller: EdgeNode, Brokers: []record.Broker{e.broker()}}, nil
}

func (e *edgeStore) Topics(_ context.Context, names []string) ([]record.TopicInfo, error) {
	if names == nil {
		return e.l.Topics(), nil
	}
	infos := make([]record.TopicInfo, 0, len(names))
	for _, n := range names {
		if info, err := e.l.Topic(n); err == nil {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (e *edgeStore) CreateTopic(_ context.Context, name string, cfg record.TopicConfig) (record.TopicInfo, error) {
	return e.l.CreateTopic(name, cfg)
}

func (e *edgeStore) DeleteTopic(_ context.Context, name string) error { return e.l.DeleteTopic(name) }

// Append is true to P1: an answer without an error is on the device.
func (e *edgeStore) Append(ctx context.Context, in []record.Append) []record.Appended {
	out, lsn := e.l.AppendBatches(in)
	if err := e.l.Wait(ctx, lsn); err != nil {
		for i := range out {
			if out[i].Err == nil {
				out[i] = record.Appended{BaseOffset: -1, LogStart: out[i].LogStart, Err: err}
			}
		}
	}
	return out
}

func (e *edgeStore) Fetch(_ context.Context, tp record.TopicPartition, offset int64, maxBytes int, dst []byte) (record.Fetched, error) {
	p, err := e.l.Partition(tp.Topic, tp.Partition)
	if err != nil {
		return record.Fetched{Batches: dst}, err
	}
	return p.Fetch(offset, maxBytes, dst)
}

func (e *edgeStore) Offsets(_ context.Context, tp record.TopicPartition) (record.Offsets, error) {
	p, err := e.l.Partition(tp.Topic, tp.Partition)
	if err != nil {
		return record.Offsets{}, err
	}
	return p.Offsets(), nil
}

func (e *edgeStore) Watch(tps []record.TopicPartition, wake chan<- struct{}) func() {
	stops := make([]func(), 0, len(tps))
	for _, tp := range tps {
		if p, err := e.l.Partition(tp.Topic, tp.Partition); err == nil {
			stops = append(stops, p.Watch(wake))
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

func (e *edgeStore) OffsetForTime(_ context.Context, tp record.TopicPartition, ts int64) (record.OffsetTime, error) {
	p, err := e.l.Partition(tp.Topic, tp.Partition)
	if err != nil {
		return record.OffsetTime{}, err
	}
	return p.OffsetForTime(ts)
}

func (e *edgeStore) MaxTimestamp(_ context.Context, tp record.TopicPartition) (record.OffsetTime, error) {
	p, err := e.l.Partition(tp.Topic, tp.Partition)
	if err != nil {
		return record.OffsetTime{}, err
	}
	return p.MaxTimestamp()
}

func (e *edgeStore) NewProducerID(context.Context) (int64, int16, error) {
	id, err := e.l.NewProducerID()
	return id, 0, err
}

func (e *edgeStore) Coordinator(context.Context, string) (record.Broker, error) {
	return e.broker(), nil
}

func (e *edgeStore) CommitOffsets(ctx context.Context, group string, offs []record.GroupOffset) error {
	lsn, err := e.l.CommitOffsets(group, offs)
	if err != nil {
		return err
	}
	return e.l.Wait(ctx, lsn)
}

func (e *edgeStore) GroupOffsets(_ context.Context, group string) ([]record.GroupOffset, error) {
	return e.l.GroupOffsets(group), nil
}
