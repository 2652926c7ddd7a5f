package uplink

import (
	"context"
	"errors"
	"fmt"

	"edgehub/pkg/log/record"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaReader reads one partition over a connection of its own.
type kafkaReader struct {
	addr string
	part Partition
	conn *kafkaConn // nil: not made yet
}

// Read implements Source.
func (s *KafkaSource) Read(p Partition) Reader { return &kafkaReader{addr: s.addr, part: p} }

// Close implements Reader.
func (r *kafkaReader) Close() {
	if r.conn != nil {
		r.conn.client.Close()
		r.conn = nil
	}
}

func (r *kafkaReader) dial() (err error) {
	if r.conn == nil {
		r.conn, err = dialKafka(r.addr)
	}
	return err
}

// same checks that the topic still has the id that the reader reads: by name
// alone a topic deleted and created again would pass for the former. Ids are
// never used twice, so what was read before the check is of this topic, too.
func (r *kafkaReader) same(ctx context.Context) error {
	resp, err := metadata(ctx, r.conn, []string{r.part.Topic})
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 || resp.Topics[0].TopicID != r.part.ID {
		return fmt.Errorf("%w: topic %s with the id %s", record.ErrUnknownTopic, r.part.Topic, r.part.ID)
	}
	return nil
}

// Offsets implements Reader.
func (r *kafkaReader) Offsets(ctx context.Context) (o record.Offsets, err error) {
	if err := r.dial(); err != nil {
		return o, err
	}
	const earliest, latest = -2, -1
	if o.LogStart, o.LeaderEpoch, err = r.list(ctx, earliest); err != nil {
		return o, err
	}
	if o.HighWatermark, o.LeaderEpoch, err = r.list(ctx, latest); err != nil {
		return o, err
	}
	return o, r.same(ctx)
}

func (r *kafkaReader) list(ctx context.Context, timestamp int64) (offset int64, epoch int32, err error) {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = r.part.Topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = r.part.Partition, timestamp
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.ListOffsetsResponse](ctx, r.conn, req)
	if err != nil {
		return 0, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, 0, errors.New("list offsets: the answer does not hold the one partition asked for")
	}
	got := resp.Topics[0].Partitions[0]
	return got.Offset, got.LeaderEpoch, kafkaError("list offsets of "+r.part.String(), got.ErrorCode)
}

// Fetch implements Reader.
func (r *kafkaReader) Fetch(ctx context.Context, offset int64, o FetchOptions) (Fetched, error) {
	if err := r.dial(); err != nil {
		return Fetched{}, err
	}
	p, err := fetchPartition(ctx, r.conn, r.part.Topic, r.part.ID, r.part.Partition, offset, o)
	if err != nil {
		return Fetched{}, err
	}
	// Read after the answer: the connection it came over is among those
	// counted, so a later answer with the same count comes over a connection
	// that was there by now, from a hub that did not end in between.
	session := r.conn.dialed.Load()
	if len(p.RecordBatches) > 0 {
		if err := r.same(ctx); err != nil {
			return Fetched{}, err
		}
		session = max(session, 1)
	}
	return Fetched{Batches: p.RecordBatches, HighWatermark: p.HighWatermark, LogStart: p.LogStartOffset, Session: session}, nil
}

// Cursors implements Source.
func (s *KafkaSource) Cursors(ctx context.Context, group string) ([]record.GroupOffset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group // versions below 8
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	req.Groups = append(req.Groups, g)
	resp, err := request[*kmsg.OffsetFetchResponse](ctx, s.ctl, req)
	if err != nil {
		return nil, err
	}
	if err := kafkaError("fetch the cursor of group "+group, resp.ErrorCode); err != nil {
		return nil, err
	}
	var offs []record.GroupOffset
	add := func(topic string, partition int32, offset int64, epoch int32, code int16) {
		if code == 0 && offset >= 0 {
			offs = append(offs, record.GroupOffset{
				TopicPartition: record.TopicPartition{Topic: topic, Partition: partition}, Offset: offset, LeaderEpoch: epoch})
		}
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			add(t.Topic, p.Partition, p.Offset, p.LeaderEpoch, p.ErrorCode)
		}
	}
	for _, g := range resp.Groups {
		if err := kafkaError("fetch the cursor of group "+group, g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				add(t.Topic, p.Partition, p.Offset, p.LeaderEpoch, p.ErrorCode)
			}
		}
	}
	return offs, nil
}

// Commit implements Source. It commits as a consumer without membership:
// generation -1, no member id.
func (s *KafkaSource) Commit(ctx context.Context, group string, offs []record.GroupOffset) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	at := map[string]int{}
	for _, o := range offs {
		i, ok := at[o.Topic]
		if !ok {
			i = len(req.Topics)
			at[o.Topic] = i
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = o.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch = o.Partition, o.Offset, o.LeaderEpoch
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := request[*kmsg.OffsetCommitResponse](ctx, s.ctl, req)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kafkaError(fmt.Sprintf("commit %s/%d", t.Topic, p.Partition), p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}
