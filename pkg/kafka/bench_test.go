package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

// sink is a store that forgets what it appends: what a Produce costs beside
// the log.
type sink struct{ *kafkatest.Store }

func (sink) Append(_ context.Context, in []record.Append) []record.Appended {
	return make([]record.Appended, len(in))
}

// roundTrip sends a frame and throws its answer away.
func roundTrip(b *testing.B, c *raw, frame []byte) {
	if _, err := c.Write(frame); err != nil {
		b.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, c.Conn, int64(binary.BigEndian.Uint32(head[:]))); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkProduce(b *testing.B) {
	for _, codec := range []record.Codec{record.None, record.Zstd} {
		for _, records := range []int{1, 100, 5000} {
			b.Run(fmt.Sprintf("%s/%d", codec, records), func(b *testing.B) {
				st := sink{kafkatest.New()}
				s := start(b, st, nil)
				mustCreate(b, st, "t", 1)
				var bb record.Builder
				for i := range records {
					bb.Append(&record.Record{Timestamp: int64(i), Value: append([]byte(fmt.Sprint("reading ", i*7919%1000)), bytes.Repeat([]byte("x"), 85)...)})
				}
				req := produceRequest("t", 0, -1, bb.Build(nil, 0, 0, codec))
				req.SetVersion(9)
				frame := encodeRequest(req, 1)
				c := dial(b, s)
				b.SetBytes(int64(bb.Size()))
				b.ReportAllocs()
				for b.Loop() {
					roundTrip(b, c, frame)
				}
				b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, size := range []int{1000, 100_000, 3_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			st := kafkatest.New()
			s := start(b, st, nil)
			mustCreate(b, st, "t", 1)
			value := string(make([]byte, 900))
			for range 4 {
				var vs []string
				for range size / 4000 {
					vs = append(vs, value)
				}
				mustAppend(b, st, "t", 0, append(vs, value[:1])...)
			}
			req := fetchRequest("t", 0, 0)
			req.Topics[0].Partitions[0].PartitionMaxBytes, req.MaxBytes = 8<<20, 8<<20
			req.SetVersion(11)
			frame := encodeRequest(req, 1)
			c := dial(b, s)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, c, frame)
			}
		})
	}
}

func BenchmarkWalk(b *testing.B) {
	req := fetchRequest("topic", 0, 0)
	for p := range int32(100) {
		addFetch(req, "topic", p+1, 0)
	}
	req.SetVersion(12)
	body := req.AppendTo(nil)
	sc := fetchSchema()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sc.walk(12, body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEdge is franz-go against a hub's log on disk: every record is
// durable before it counts.
func BenchmarkEdge(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprint("produce/", size), func(b *testing.B) {
			st := NewEdgeStore(openLog(b, b.TempDir()), "bench", nil)
			s := start(b, st, nil)
			mustCreate(b, st, "t", 3)
			cl := newClient(b, s, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
			value := bytes.Repeat([]byte("0123456789"), size/10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				cl.Produce(b.Context(), &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
			if err := cl.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
