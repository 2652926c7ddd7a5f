package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log/record"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// KafkaSource is a hub over the Kafka protocol. It talks to the configured
// address alone, whatever the hub advertises. Partitions have connections of
// their own, so that one that waits for records holds nobody up.
type KafkaSource struct {
	addr string
	ctl  *kafkaConn

	mu     sync.Mutex // epochs as read so far, of the log they are of
	log    [16]byte
	epochs []record.EpochStart
	next   int64 // offset in record.EpochsTopic behind the last of them
}

// kafkaConn is a client that talks to one address, and counts its
// connections.
type kafkaConn struct {
	client *kgo.Client
	dialed atomic.Uint64
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c *kafkaConn) OnBrokerConnect(kgo.BrokerMetadata, time.Duration, net.Conn, error) {
	c.dialed.Add(1)
}

// What the client of a hub may take.
const (
	hubDialTimeout = 5 * time.Second
	hubTimeout     = 10 * time.Second // of a request, beside the time a fetch waits
)

func dialKafka(addr string) (*kafkaConn, error) {
	c := &kafkaConn{}
	var err error
	c.client, err = kgo.NewClient(
		kgo.SeedBrokers(addr),
		kgo.ClientID("uplink"),
		kgo.WithHooks(c),
		kgo.RequestTimeoutOverhead(hubTimeout),
		kgo.BrokerMaxReadBytes(record.MaxBatchBytes+fetchBytes),
		kgo.DisableClientMetrics(),
		kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
			// Never an address that Metadata told.
			c.dialed.Add(1)
			return (&net.Dialer{Timeout: hubDialTimeout}).DialContext(ctx, network, addr)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("hub %s: %w", addr, err)
	}
	return c, nil
}

// request sends a request to the hub and returns its answer.
func request[R kmsg.Response](ctx context.Context, c *kafkaConn, req kmsg.Request) (R, error) {
	var none R
	resp, err := c.client.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return none, err
	}
	r, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("unexpected %T", resp)
	}
	return r, nil
}

// kafkaError turns an error code into the errors that a Reader promises.
func kafkaError(what string, code int16) error {
	if code == 0 {
		return nil
	}
	err := kerr.ErrorForCode(code)
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		err = record.ErrOffsetOutOfRange
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		err = record.ErrUnknownTopic
	}
	return fmt.Errorf("%s: %w", what, err)
}

// NewKafkaSource makes the source of the hub at addr, "host:port". It does
// not connect yet.
func NewKafkaSource(addr string) (*KafkaSource, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("hub %q: %w: write host:port, for example 127.0.0.1:9092", addr, err)
	}
	ctl, err := dialKafka(addr)
	if err != nil {
		return nil, err
	}
	return &KafkaSource{addr: addr, ctl: ctl}, nil
}

// Close implements Source.
func (s *KafkaSource) Close() error {
	s.ctl.client.Close()
	return nil
}

// metadata asks for topics by name, which internal ones need.
func metadata(ctx context.Context, c *kafkaConn, topics []string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := request[*kmsg.MetadataResponse](ctx, c, req)
	if err != nil {
		return nil, err
	}
	if resp.Version < 10 {
		return nil, fmt.Errorf("metadata of version %d has no topic ids, 10 is needed: is it an edge hub?", resp.Version)
	}
	return resp, nil
}

// Describe implements Source.
func (s *KafkaSource) Describe(ctx context.Context, topics []string) (*Hub, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		resp, err := metadata(ctx, s.ctl, topics)
		if err != nil {
			return nil, err
		}
		if resp.ClusterID == nil {
			return nil, errors.New("the hub has no cluster id: is it an edge hub?")
		}
		hub := &Hub{}
		if hub.Site, hub.Log, err = ParseClusterID(*resp.ClusterID); err != nil {
			return nil, err
		}
		for _, t := range resp.Topics {
			if t.Topic == nil || t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
				continue
			}
			if err := kafkaError("topic "+*t.Topic, t.ErrorCode); err != nil {
				return nil, err
			}
			hub.Topics = append(hub.Topics, HubTopic{Name: *t.Topic, ID: t.TopicID, Partitions: int32(len(t.Partitions))})
		}
		if hub.Log != s.log {
			s.log, s.epochs, s.next = hub.Log, nil, 0
		}
		if err := s.readEpochs(ctx); err != nil {
			return nil, fmt.Errorf("read %s: %w", record.EpochsTopic, err)
		}
		hub.Epochs = s.epochs[:len(s.epochs):len(s.epochs)]
		// Another hub may have taken the address meanwhile: its epochs would
		// stand under the former's name.
		again, err := metadata(ctx, s.ctl, nil)
		if err != nil {
			return nil, err
		}
		if again.ClusterID != nil && *again.ClusterID == *resp.ClusterID {
			return hub, nil
		}
	}
}

// readEpochs brings s.epochs up to date. The last one known is read again:
// where it is another, all of them are.
func (s *KafkaSource) readEpochs(ctx context.Context) error {
	known := s.epochs
	from := s.next
	if n := len(known); n > 0 {
		known, from = known[:n-1:n-1], s.next-1
	}
	got, next, err := readEpochsFrom(ctx, s.ctl, from)
	if err != nil && !errors.Is(err, record.ErrOffsetOutOfRange) {
		return err
	}
	if n := len(s.epochs); n > 0 && (err != nil || len(got) == 0 || got[0].ID != s.epochs[n-1].ID) {
		known = nil
		got, next, err = readEpochsFrom(ctx, s.ctl, 0)
	}
	if err != nil {
		return err
	}
	s.epochs, s.next = append(known, got...), next
	return nil
}

// readEpochsFrom reads the epoch records from an offset to the end.
func readEpochsFrom(ctx context.Context, c *kafkaConn, from int64) (got []record.EpochStart, next int64, err error) {
	next = from
	for {
		p, err := fetchPartition(ctx, c, record.EpochsTopic, record.TopicID{}, 0, next, FetchOptions{MinBytes: 1, MaxBytes: fetchBytes})
		if err != nil {
			return nil, next, err
		}
		at := next
		_, err = record.Batches(p.RecordBatches, func(h record.Header, raw []byte) error {
			if _, err := record.Check(raw); err != nil {
				return fmt.Errorf("offset %d: %w", h.BaseOffset, err)
			}
			return record.Records(raw, func(r *record.Record) error {
				if r.Offset < next {
					return nil
				}
				e, err := record.ParseEpochStart(r.Value)
				if err != nil {
					return fmt.Errorf("offset %d: %w", r.Offset, err)
				}
				got = append(got, e)
				next = r.Offset + 1
				return nil
			})
		})
		if err != nil {
			return nil, next, err
		}
		if next >= p.HighWatermark || next == at {
			return got, next, nil
		}
	}
}

// fetchPartition sends one Fetch of one partition. id is used where the hub
// speaks a version that knows topics by id.
func fetchPartition(ctx context.Context, c *kafkaConn, topic string, id record.TopicID, partition int32, offset int64, o FetchOptions) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MinBytes = int32(o.MinBytes)
	req.MaxBytes = int32(o.MaxBytes)
	req.MaxWaitMillis = int32(o.Wait.Milliseconds())
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition = partition
	p.FetchOffset = offset
	p.PartitionMaxBytes = int32(o.MaxBytes)
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.FetchResponse](ctx, c, req)
	if err != nil {
		return nil, err
	}
	if err := kafkaError("fetch", resp.ErrorCode); err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != partition {
		return nil, errors.New("fetch: the answer does not hold the one partition asked for")
	}
	got := &resp.Topics[0].Partitions[0]
	return got, kafkaError(fmt.Sprintf("fetch %s/%d at %d", topic, partition, offset), got.ErrorCode)
}
