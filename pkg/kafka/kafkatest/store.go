// Package kafkatest has an in-memory store of topics for tests of the Kafka
// server and of whatever talks to one.
//
// A Store keeps batches as they are appended, follows Kafka's rule for
// idempotent producers, and can be made to fail, to stall and to forget.
package kafkatest

import (
	"context"
	"crypto/rand"
	"math"
	"sort"
	"strings"
	"sync"

	"edgehub/pkg/log/record"
)

// What Cluster answers by default: one broker, without a host, which means the
// server itself.
const (
	Node      = 1
	ClusterID = "kafkatest/00000000000000000000000000000000"
)

// Store has the methods of kafka.Store. The zero Store is not ready: use New.
// It is safe for concurrent use.
type Store struct {
	mu       sync.Mutex
	topics   map[string]*topic
	groups   map[string]map[record.TopicPartition]record.GroupOffset
	nextPID  int64
	watchers map[*watcher]struct{}
	cluster  record.Cluster
	failing  func(op string, tp record.TopicPartition) error
}

type topic struct {
	info  record.TopicInfo
	parts []*partition
}

type partition struct {
	batches   [][]byte
	headers   []record.Header
	logStart  int64
	next      int64
	epoch     int32
	producers map[int64]*producer
}

// producer is Kafka's state of an idempotent producer: the last five batches.
type producer struct {
	epoch int16
	last  []sequence
}

type sequence struct {
	first, last int32
	offset      int64
}

type watcher struct {
	tps  map[record.TopicPartition]bool
	wake chan<- struct{}
}

// New is an empty store.
func New() *Store {
	return &Store{
		topics:   map[string]*topic{},
		groups:   map[string]map[record.TopicPartition]record.GroupOffset{},
		nextPID:  1000,
		watchers: map[*watcher]struct{}{},
		cluster:  record.Cluster{ID: ClusterID, Controller: Node, Brokers: []record.Broker{{ID: Node}}},
	}
}

func (s *Store) fail(ctx context.Context, op string, tp record.TopicPartition) error {
	s.mu.Lock()
	failing := s.failing
	s.mu.Unlock()
	if failing != nil {
		if err := failing(op, tp); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Fail has f asked before each operation, which is named like its method; an
// error is the operation's answer. f may call the Store. nil: nothing fails.
// Watch cannot fail and asks once it has begun, which tells a test that a
// fetch waits.
func (s *Store) Fail(f func(op string, tp record.TopicPartition) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = f
}

// SetCluster changes what Cluster answers; the first broker coordinates every
// group.
func (s *Store) SetCluster(c record.Cluster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster = c
}

// Cluster implements kafka.Store.
func (s *Store) Cluster(ctx context.Context) (record.Cluster, error) {
	if err := s.fail(ctx, "Cluster", record.TopicPartition{}); err != nil {
		return record.Cluster{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster, nil
}

// Topics implements kafka.Store.
func (s *Store) Topics(ctx context.Context, names []string) ([]record.TopicInfo, error) {
	if err := s.fail(ctx, "Topics", record.TopicPartition{}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []record.TopicInfo
	if names == nil {
		for _, t := range s.topics {
			out = append(out, t.info)
		}
		sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	}
	seen := map[string]bool{}
	for _, n := range names {
		if t := s.topics[n]; t != nil && !seen[n] {
			seen[n] = true
			out = append(out, t.info)
		}
	}
	for i := range out {
		out[i].Partitions = append([]record.PartitionInfo(nil), out[i].Partitions...)
	}
	return out, nil
}

// CreateTopic implements kafka.Store.
func (s *Store) CreateTopic(ctx context.Context, name string, cfg record.TopicConfig) (record.TopicInfo, error) {
	if err := s.fail(ctx, "CreateTopic", record.TopicPartition{Topic: name}); err != nil {
		return record.TopicInfo{}, err
	}
	if err := record.CheckTopicName(name); err != nil {
		return record.TopicInfo{}, err
	}
	cfg.EnsureDefaults()
	if cfg.Partitions < 1 || cfg.Partitions > record.MaxPartitions {
		return record.TopicInfo{}, record.ErrInvalidPartitions
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[name] != nil {
		return record.TopicInfo{}, record.ErrTopicExists
	}
	t := &topic{info: record.TopicInfo{Name: name, Internal: strings.HasPrefix(name, record.InternalPrefix), Config: cfg}}
	rand.Read(t.info.ID[:])
	for range cfg.Partitions {
		t.info.Partitions = append(t.info.Partitions, record.PartitionInfo{Leader: Node, Replicas: []int32{Node}})
		t.parts = append(t.parts, &partition{producers: map[int64]*producer{}})
	}
	s.topics[name] = t
	return t.info, nil
}

// DeleteTopic implements kafka.Store.
func (s *Store) DeleteTopic(ctx context.Context, name string) error {
	if err := s.fail(ctx, "DeleteTopic", record.TopicPartition{Topic: name}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[name] == nil {
		return record.ErrUnknownTopic
	}
	delete(s.topics, name)
	return nil
}

func (s *Store) partition(tp record.TopicPartition) (*topic, *partition, error) {
	t := s.topics[tp.Topic]
	if t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.parts) {
		return nil, nil, record.ErrUnknownTopic
	}
	return t, t.parts[tp.Partition], nil
}

// Append implements kafka.Store.
func (s *Store) Append(ctx context.Context, in []record.Append) []record.Appended {
	out := make([]record.Appended, len(in))
	for i := range in {
		if err := s.fail(ctx, "Append", in[i].TopicPartition); err != nil {
			out[i] = record.Appended{BaseOffset: -1, Err: err}
			continue
		}
		out[i] = s.append(in[i])
	}
	return out
}

func (s *Store) append(in record.Append) record.Appended {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p, err := s.partition(in.TopicPartition)
	if err != nil {
		return record.Appended{BaseOffset: -1, Err: err}
	}
	h, err := record.CheckProduced(in.Batch)
	if err == nil && len(in.Batch) > int(t.info.Config.MaxMessageBytes) {
		err = record.ErrTooLarge
	}
	if err != nil {
		return record.Appended{BaseOffset: -1, Err: err}
	}
	if h.Idempotent() {
		offset, dup, err := p.admit(&h)
		if err != nil || dup {
			return record.Appended{BaseOffset: offset, LogStart: p.logStart, Duplicate: dup, Err: err}
		}
	}
	base := p.next
	record.Stamp(in.Batch, base, p.epoch)
	raw := append([]byte(nil), in.Batch...)
	h, _ = record.ParseHeader(raw)
	p.batches, p.headers = append(p.batches, raw), append(p.headers, h)
	p.next = h.NextOffset()
	s.wake(in.TopicPartition)
	return record.Appended{BaseOffset: base, LogStart: p.logStart}
}

// admit applies Kafka's rule for sequences and remembers the batch.
func (p *partition) admit(h *record.Header) (offset int64, duplicate bool, err error) {
	end := int32((int64(h.BaseSequence) + int64(h.LastOffsetDelta)) % (1 << 31))
	st := p.producers[h.ProducerID]
	switch {
	case st == nil:
		st = &producer{epoch: h.ProducerEpoch}
	case h.ProducerEpoch < st.epoch:
		return -1, false, record.ErrProducerFenced
	case h.ProducerEpoch > st.epoch:
		if h.BaseSequence != 0 {
			return -1, false, record.ErrOutOfOrderSeq
		}
		st = &producer{epoch: h.ProducerEpoch}
	default:
		for _, b := range st.last {
			if b.first == h.BaseSequence && b.last == end {
				return b.offset, true, nil
			}
		}
		prev := st.last[len(st.last)-1].last
		if want := int32((int64(prev) + 1) % (1 << 31)); h.BaseSequence != want {
			return -1, false, record.ErrOutOfOrderSeq
		}
	}
	st.last = append(st.last, sequence{h.BaseSequence, end, p.next})
	if len(st.last) > 5 {
		st.last = st.last[1:]
	}
	p.producers[h.ProducerID] = st
	return p.next, false, nil
}

// Fetch implements kafka.Store.
func (s *Store) Fetch(ctx context.Context, tp record.TopicPartition, offset int64, maxBytes int, dst []byte) (record.Fetched, error) {
	f := record.Fetched{Batches: dst}
	if err := s.fail(ctx, "Fetch", tp); err != nil {
		return f, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, p, err := s.partition(tp)
	if err != nil {
		return f, err
	}
	f.HighWatermark, f.LogStart, f.LeaderEpoch = p.next, p.logStart, p.epoch
	if offset < p.logStart || offset > p.next {
		return f, record.ErrOffsetOutOfRange
	}
	i := sort.Search(len(p.headers), func(i int) bool { return p.headers[i].NextOffset() > offset })
	for first := true; i < len(p.batches); i++ {
		if !first && len(p.batches[i]) > maxBytes {
			break
		}
		f.Batches = append(f.Batches, p.batches[i]...)
		maxBytes -= len(p.batches[i])
		first = false
	}
	return f, nil
}

// Offsets implements kafka.Store.
func (s *Store) Offsets(ctx context.Context, tp record.TopicPartition) (record.Offsets, error) {
	if err := s.fail(ctx, "Offsets", tp); err != nil {
		return record.Offsets{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, p, err := s.partition(tp)
	if err != nil {
		return record.Offsets{}, err
	}
	return record.Offsets{LogStart: p.logStart, HighWatermark: p.next, LeaderEpoch: p.epoch}, nil
}

// Watch implements kafka.Store.
func (s *Store) Watch(tps []record.TopicPartition, wake chan<- struct{}) func() {
	w := &watcher{tps: map[record.TopicPartition]bool{}, wake: wake}
	for _, tp := range tps {
		w.tps[tp] = true
	}
	s.mu.Lock()
	s.watchers[w] = struct{}{}
	s.mu.Unlock()
	s.fail(context.Background(), "Watch", record.TopicPartition{}) // for its side effect
	return func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
	}
}

// Watchers is the number of Watches that have not been stopped.
func (s *Store) Watchers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers)
}

func (s *Store) wake(tp record.TopicPartition) {
	for w := range s.watchers {
		if w.tps[tp] {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}

// OffsetForTime implements kafka.Store.
func (s *Store) OffsetForTime(ctx context.Context, tp record.TopicPartition, ts int64) (record.OffsetTime, error) {
	found := record.OffsetTime{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	err := s.scan(ctx, "OffsetForTime", tp, func(r *record.Record, epoch int32) {
		if found.Offset < 0 && r.Timestamp >= ts {
			found = record.OffsetTime{Offset: r.Offset, Timestamp: r.Timestamp, LeaderEpoch: epoch}
		}
	})
	return found, err
}

// MaxTimestamp implements kafka.Store.
func (s *Store) MaxTimestamp(ctx context.Context, tp record.TopicPartition) (record.OffsetTime, error) {
	found := record.OffsetTime{Offset: -1, Timestamp: math.MinInt64, LeaderEpoch: -1}
	err := s.scan(ctx, "MaxTimestamp", tp, func(r *record.Record, epoch int32) {
		if r.Timestamp > found.Timestamp {
			found = record.OffsetTime{Offset: r.Offset, Timestamp: r.Timestamp, LeaderEpoch: epoch}
		}
	})
	return found, err
}

func (s *Store) scan(ctx context.Context, op string, tp record.TopicPartition, f func(*record.Record, int32)) error {
	if err := s.fail(ctx, op, tp); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, p, err := s.partition(tp)
	if err != nil {
		return err
	}
	for i, raw := range p.batches {
		err := record.Records(raw, func(r *record.Record) error {
			if r.Offset >= p.logStart {
				f(r, p.headers[i].LeaderEpoch)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// NewProducerID implements kafka.Store.
func (s *Store) NewProducerID(ctx context.Context) (int64, int16, error) {
	if err := s.fail(ctx, "NewProducerID", record.TopicPartition{}); err != nil {
		return -1, -1, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextPID++
	return s.nextPID, 0, nil
}

// Coordinator implements kafka.Store.
func (s *Store) Coordinator(ctx context.Context, _ string) (record.Broker, error) {
	c, err := s.Cluster(ctx)
	if err != nil {
		return record.Broker{}, err
	}
	return c.Brokers[0], nil
}

// CommitOffsets implements kafka.Store.
func (s *Store) CommitOffsets(ctx context.Context, group string, offs []record.GroupOffset) error {
	if err := s.fail(ctx, "CommitOffsets", record.TopicPartition{}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group]
	if g == nil {
		g = map[record.TopicPartition]record.GroupOffset{}
		s.groups[group] = g
	}
	for _, o := range offs {
		g[o.TopicPartition] = o
	}
	return nil
}

// GroupOffsets implements kafka.Store.
func (s *Store) GroupOffsets(ctx context.Context, group string) ([]record.GroupOffset, error) {
	if err := s.fail(ctx, "GroupOffsets", record.TopicPartition{}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []record.GroupOffset
	for _, o := range s.groups[group] {
		out = append(out, o)
	}
	return out, nil
}

// Batches returns copies of the batches of a partition as they are stored,
// for a test to look into; nil if there is no such partition.
func (s *Store) Batches(tp record.TopicPartition) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, p, err := s.partition(tp)
	if err != nil {
		return nil
	}
	var out [][]byte
	for _, b := range p.batches {
		out = append(out, append([]byte(nil), b...))
	}
	return out
}

// DeleteBefore moves the log start of a partition, as retention does.
func (s *Store) DeleteBefore(tp record.TopicPartition, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, p, err := s.partition(tp)
	if err != nil || offset <= p.logStart || offset > p.next {
		return
	}
	p.logStart = offset
	for len(p.headers) > 0 && p.headers[0].NextOffset() <= offset {
		p.headers, p.batches = p.headers[1:], p.batches[1:]
	}
	s.wake(tp)
}

// SetLeader changes who leads a partition, and its epoch. Only Metadata
// shows it; make Fail answer record.ErrNotLeader to match.
func (s *Store) SetLeader(tp record.TopicPartition, leader, epoch int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p, err := s.partition(tp)
	if err != nil {
		return
	}
	t.info.Partitions[tp.Partition].Leader = leader
	t.info.Partitions[tp.Partition].LeaderEpoch = epoch
	p.epoch = epoch
	s.wake(tp)
}
