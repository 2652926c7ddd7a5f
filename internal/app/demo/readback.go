package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// record is a record as a Kafka client reads it, without its offset.
type record struct {
	key, value []byte
	headers    []kgo.RecordHeader
	ts         int64
}

func (r *record) same(o *record) bool {
	return r.ts == o.ts && bytes.Equal(r.key, o.key) && bytes.Equal(r.value, o.value) &&
		slices.EqualFunc(r.headers, o.headers, func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) })
}

// digest is equal for records that are the same.
func (r *record) digest() string {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part(binary.BigEndian.AppendUint64(nil, uint64(r.ts)))
	part(r.key)
	part(r.value)
	for _, x := range r.headers {
		part([]byte(x.Key))
		part(x.Value)
	}
	return string(h.Sum(nil))
}

// readAll reads a topic from its start to its end, by partition. Offsets must
// be dense.
func readAll(ctx context.Context, servers []string, topic string) ([][]record, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(servers...), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.MetadataMinAge(250*time.Millisecond), kgo.RetryTimeout(30*time.Second))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, err
	}
	n := len(ends[topic])
	if n == 0 {
		return nil, fmt.Errorf("topic %s does not exist", topic)
	}
	out, next, left := make([][]record, n), make([]int64, n), int64(0)
	at := map[int32]kgo.Offset{}
	for p, o := range ends[topic] {
		s := starts[topic][p]
		next[p] = s.Offset
		at[p] = kgo.NewOffset().At(s.Offset)
		left += o.Offset - s.Offset
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: at})
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d records are still missing: %w", left, context.Cause(ctx))
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("partition %d: %w", e.Partition, e.Err)
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset != next[r.Partition] {
				return nil, fmt.Errorf("partition %d: offset %d where %d was next", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition]++
			left--
			out[r.Partition] = append(out[r.Partition], record{key: r.Key, value: r.Value, headers: r.Headers, ts: r.Timestamp.UnixMilli()})
		}
	}
	return out, nil
}
