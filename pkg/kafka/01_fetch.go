package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// Fetch (1): whole batches from each partition, as they are stored.
//
// Versions 4-12; older ones cannot carry RecordBatch v2, 13 brings topic ids.
//
//   - v5 log start; v7 sessions (none are given: session id 0 in the answer);
//     v9 current leader epoch; v10 zstd: below, a partition whose batches are
//     zstd answers UNSUPPORTED_COMPRESSION_TYPE; v11 preferred replica (-1);
//     v12 flexible, diverging epochs (for replicas only).
//   - The first partition that has anything gives at least one whole batch,
//     even above max_bytes and its own limit (KIP-74); later ones only what
//     fits.
//   - Nothing to give and no error: the request waits for min_bytes until
//     max_wait is over. What has been read by then stays and is only added
//     to, so waiting does not read a partition twice.
//   - The last stable offset is the high watermark: there are no
//     transactions.

const (
	// maxFetchWait bounds a client's max_wait: a client that is gone is
	// noticed only when it is answered.
	maxFetchWait = time.Minute
	// fetchFloor is what a response may hold when the common memory for
	// responses is used up, in bytes.
	fetchFloor = 64 << 10
)

// fetchPart is one partition of a request and what was read for it.
type fetchPart struct {
	tp       record.TopicPartition
	offset   int64 // asked
	next     int64 // to read from
	epoch    int32 // that the client believes in; -1: none
	maxBytes int
	bytes    int
	spans    []span // of fetchAnswer.data
	full     bool   // has more than it may give now
	code     int16
	hw       int64
	logStart int64
}

type span struct{ from, to int }

// fetchAnswer collects one response. It is a kmsg.Response in name only:
// fetch_encode.go writes it without copying the batches.
type fetchAnswer struct {
	kmsg.FetchResponse
	s      *Server
	topics []fetchTopic
	parts  []fetchPart // all partitions, in the order of the request
	data   []byte      // batches of all partitions as read
	total  int         // bytes in spans
	limit  int         // of total; 0: nothing reserved yet
	taken  int64       // of Server.answers
}

type fetchTopic struct {
	name     string
	from, to int // of parts
}

// done gives the memory of the answer back.
func (a *fetchAnswer) done() {
	if a.data != nil {
		a.s.buffers.put(a.data)
		a.data = nil
	}
	a.s.answers.release(a.taken)
	a.taken = 0
}

func (s *Server) fetch(ctx context.Context, _ *conn, req *kmsg.FetchRequest) (kmsg.Response, error) {
	a := &fetchAnswer{FetchResponse: kmsg.NewFetchResponse(), s: s}
	if req.Version >= 7 && req.SessionEpoch > 0 {
		a.ErrorCode = s.fail(codeFetchSessionNotFound)
		return a, nil
	}
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	a.parts = make([]fetchPart, 0, n)
	a.topics = make([]fetchTopic, 0, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		from := len(a.parts)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			a.parts = append(a.parts, fetchPart{
				tp:     record.TopicPartition{Topic: t.Topic, Partition: p.Partition},
				offset: p.FetchOffset, next: p.FetchOffset,
				epoch: p.CurrentLeaderEpoch, maxBytes: int(p.PartitionMaxBytes),
				hw: -1, logStart: -1,
			})
		}
		a.topics = append(a.topics, fetchTopic{t.Topic, from, len(a.parts)})
	}

	maxBytes := min(max(int(req.MaxBytes), 1), s.o.MaxFetchBytes)
	enough := a.read(ctx, req.Version, maxBytes, int(req.MinBytes))
	wait := min(time.Duration(req.MaxWaitMillis)*time.Millisecond, maxFetchWait)
	if enough || wait <= 0 || len(a.parts) == 0 {
		return a, nil
	}

	tps := make([]record.TopicPartition, len(a.parts))
	for i := range a.parts {
		tps[i] = a.parts[i].tp
	}
	wake := make(chan struct{}, 1)
	stop := s.store.Watch(tps, wake)
	defer stop()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	// Read again first: what came between the read above and Watch woke
	// nobody.
	for !a.read(ctx, req.Version, maxBytes, int(req.MinBytes)) {
		select {
		case <-wake:
		case <-timer.C:
			return a, nil
		case <-ctx.Done():
			return a, nil
		}
	}
	return a, nil
}

// read adds what the partitions have by now and tells whether that is reason
// to answer: min bytes reached, an error, or more data than may be given.
func (a *fetchAnswer) read(ctx context.Context, version int16, maxBytes, minBytes int) bool {
	enough := false
	for i := range a.parts {
		p := &a.parts[i]
		if p.code == 0 && !p.full {
			a.readPart(ctx, p, version, maxBytes)
		}
		enough = enough || p.code != 0 || p.full
	}
	return enough || a.total >= min(minBytes, maxBytes)
}

// readPart reads on in one partition.
func (a *fetchAnswer) readPart(ctx context.Context, p *fetchPart, version int16, maxBytes int) {
	s := a.s
	off, err := s.store.Offsets(ctx, p.tp)
	if err != nil {
		a.drop(p, s.code(readFamily, err))
		return
	}
	p.hw, p.logStart = off.HighWatermark, off.LogStart
	if code := checkEpoch(p.epoch, off.LeaderEpoch); code != 0 {
		a.drop(p, s.fail(code))
		return
	}
	if p.next < off.LogStart || p.next > off.HighWatermark {
		if len(p.spans) == 0 {
			p.code = s.fail(codeOffsetOutOfRange)
		}
		p.full = true // the log was cut behind what is read: give that
		return
	}
	if p.next == off.HighWatermark {
		return
	}
	a.reserve(maxBytes)
	limit := min(p.maxBytes-p.bytes, a.limit-a.total)
	first := a.total == 0
	if limit <= 0 && !first {
		p.full = true
		return
	}
	if a.data == nil {
		// A guess from the backlog spares growing; append corrects it.
		a.data = s.buffers.get(int(min(int64(a.limit), 256*(off.HighWatermark-p.next))))
	}
	from := len(a.data)
	got, err := s.store.Fetch(ctx, p.tp, p.next, max(limit, 1), a.data)
	if err != nil {
		if errors.Is(err, record.ErrOffsetOutOfRange) && len(p.spans) > 0 {
			p.full = true
			return
		}
		a.drop(p, s.code(readFamily, err))
		return
	}
	p.hw, p.logStart = got.HighWatermark, got.LogStart
	if cap(got.Batches) != cap(a.data) {
		s.buffers.put(a.data)
	}
	a.data = got.Batches
	n := len(a.data) - from
	if n == 0 {
		return
	}
	if n > limit && !first {
		a.data = a.data[:from]
		p.full = true
		return
	}
	zstd, base, next := false, int64(-1), p.next
	whole, err := record.Batches(a.data[from:], func(h record.Header, _ []byte) error {
		if base < 0 {
			base = h.BaseOffset
		}
		zstd = zstd || h.Codec() == record.Zstd
		next = h.NextOffset()
		return nil
	})
	if err != nil || whole != n || next <= p.next {
		s.limited.warn(s.logger, "kafka: store returned no whole batches", "topic", p.tp.Topic, "partition", p.tp.Partition, "offset", p.next, "err", err)
		a.data = a.data[:from]
		a.drop(p, s.fail(codeUnknownServer))
		return
	}
	if zstd && version < 10 {
		a.data = a.data[:from]
		a.drop(p, s.fail(codeUnsupportedCodec))
		return
	}
	if base < p.next && len(p.spans) > 0 {
		// The store has merged batches since the last read: what begins here
		// repeats records already read. End before it.
		a.data = a.data[:from]
		p.full = true
		return
	}
	p.spans = append(p.spans, span{from, len(a.data)})
	p.bytes += n
	a.total += n
	p.next = next
	if next < p.hw && (p.bytes >= p.maxBytes || a.total >= a.limit) {
		p.full = true
	}
}

// drop answers an error in place of a partition's batches.
func (a *fetchAnswer) drop(p *fetchPart, code int16) {
	a.total -= p.bytes
	p.code, p.spans, p.bytes = code, nil, 0
}

// reserve takes memory for the answer once there is something to read: idle
// long polls hold none. When all is in use the answer is small, so readers
// that are slow to take theirs delay nobody.
func (a *fetchAnswer) reserve(maxBytes int) {
	switch {
	case a.limit > 0:
	case a.s.answers.tryAcquire(int64(maxBytes), 0):
		a.limit, a.taken = maxBytes, int64(maxBytes)
	default:
		a.limit = min(maxBytes, fetchFloor)
	}
}

// checkEpoch compares the leader epoch that a client believes in (KIP-320)
// with the one that leads.
func checkEpoch(client, leader int32) int16 {
	switch {
	case client < 0 || leader < 0 || client == leader:
		return 0
	case client < leader:
		return codeFencedLeaderEpoch
	default:
		return codeUnknownLeaderEpoch
	}
}
