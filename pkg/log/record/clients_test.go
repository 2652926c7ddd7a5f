package record_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"edgehub/pkg/log/record"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestKmsgReadsOurs: an independent decoder of the format finds in our
// batches what went in.
func TestKmsgReadsOurs(t *testing.T) {
	recs := telemetry(100)
	recs = append(recs, threeRecords()...)
	for _, c := range allCodecs {
		raw := build(recs, 1000, 5, c)
		var kb kmsg.RecordBatch
		must(t, kb.ReadFrom(raw))
		if kb.FirstOffset != 1000 || kb.PartitionLeaderEpoch != 5 || kb.Magic != 2 || int(kb.Length) != len(raw)-12 ||
			kb.Attributes != int16(c) || kb.NumRecords != int32(len(recs)) || kb.LastOffsetDelta != int32(len(recs)-1) ||
			kb.ProducerID != -1 || kb.ProducerEpoch != -1 || kb.FirstSequence != -1 {
			t.Fatalf("%s: %+v", c, kb)
		}
		body, err := record.Decompress(c, nil, kb.Records, 1<<20)
		must(t, err)
		for i, r := range recs {
			r.Offset = 1000 + int64(i)
			var kr kmsg.Record
			must(t, kr.ReadFrom(body))
			_, n := binary.Varint(body)
			body = body[n+int(kr.Length):]
			got := record.Record{Offset: kb.FirstOffset + int64(kr.OffsetDelta), Timestamp: kb.FirstTimestamp + kr.TimestampDelta64,
				Key: kr.Key, Value: kr.Value}
			for _, h := range kr.Headers {
				got.Headers = append(got.Headers, record.Field{Key: h.Key, Value: h.Value})
			}
			if d := diff([]record.Record{r}, []record.Record{got}); d != "" {
				t.Fatalf("%s: record %d: %s", c, i, d)
			}
		}
		if len(body) != 0 {
			t.Errorf("%s: %d bytes are left", c, len(body))
		}
	}
}

// TestWeReadKgos: what a franz-go producer puts on the wire passes our checks
// and decodes to what was produced, with every codec.
func TestWeReadKgos(t *testing.T) {
	codecs := map[record.Codec]kgo.CompressionCodec{record.None: kgo.NoCompression(), record.Gzip: kgo.GzipCompression(),
		record.Snappy: kgo.SnappyCompression(), record.LZ4: kgo.Lz4Compression(), record.Zstd: kgo.ZstdCompression()}
	for _, c := range allCodecs {
		for _, idempotent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s idempotent=%v", c, idempotent), func(t *testing.T) {
				sink := startSink(t)
				opts := []kgo.Opt{kgo.SeedBrokers(sink.addr()), kgo.ProducerBatchCompression(codecs[c]), kgo.ProducerLinger(50 * time.Millisecond),
					kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t")}
				if !idempotent {
					opts = append(opts, kgo.DisableIdempotentWrite())
				}
				client, err := kgo.NewClient(opts...)
				must(t, err)
				defer client.Close()
				want := append(threeRecords(), telemetry(200)...)
				var records []*kgo.Record
				for _, r := range want {
					kr := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
					for _, h := range r.Headers {
						kr.Headers = append(kr.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
					}
					records = append(records, kr)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				must(t, client.ProduceSync(ctx, records...).FirstErr())

				var got []record.Record
				sequence := int32(0)
				for _, raw := range sink.taken() {
					h, err := record.CheckProduced(raw)
					must(t, err)
					must(t, record.CheckRecords(raw, 1<<20))
					if h.Idempotent() != idempotent || idempotent && (h.ProducerID != sinkProducer || h.BaseSequence != sequence) {
						t.Errorf("header %+v, want sequence %d", h, sequence)
					}
					sequence += h.Count
					if h.Count > 50 && h.Codec() != c {
						t.Errorf("%d records in %s, want %s", h.Count, h.Codec(), c)
					}
					if idempotent {
						record.ClearProducer(raw)
						if h, err := record.CheckProduced(raw); err != nil || h.Idempotent() {
							t.Errorf("cleared: %+v, %v", h, err)
						}
					}
					record.Stamp(raw, int64(len(got)), 1)
					got = append(got, decode(t, raw)...)
				}
				for i := range want {
					want[i].Offset = int64(i)
				}
				if d := diff(want, got); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestKgoReadsOurs: a franz-go consumer finds our batches whole, with every
// codec, stamped anywhere.
func TestKgoReadsOurs(t *testing.T) {
	for _, c := range allCodecs {
		want := append(threeRecords(), telemetry(200)...)
		raw := build(want, 0, 0, c)
		record.Stamp(raw, 40, 3)
		for i := range want {
			want[i].Offset = 40 + int64(i)
		}
		fp := kmsg.NewFetchResponseTopicPartition()
		fp.RecordBatches = raw
		fp.HighWatermark = 1 << 20
		part, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", Offset: 40}, &fp, kgo.DefaultDecompressor(), nil)
		must(t, part.Err)
		var got []record.Record
		for _, kr := range part.Records {
			r := record.Record{Offset: kr.Offset, Timestamp: kr.Timestamp.UnixMilli(), Key: kr.Key, Value: kr.Value}
			for _, h := range kr.Headers {
				r.Headers = append(r.Headers, record.Field{Key: h.Key, Value: h.Value})
			}
			got = append(got, r)
		}
		if d := diff(want, got); d != "" {
			t.Errorf("%s: %s", c, d)
		}
	}
}

// sink is the least that a producer takes for a broker: it keeps the batches.
type sink struct {
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	batches [][]byte
}

const sinkProducer = 4711

func startSink(t *testing.T) *sink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &sink{l: l}
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			s.wg.Go(func() {
				defer conn.Close()
				if err := s.serve(conn); err != nil {
					t.Errorf("sink: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

func (s *sink) addr() string { return s.l.Addr().String() }

func (s *sink) taken() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.batches
}

// sinkVersions are the only versions that it speaks: none with tagged fields.
var sinkVersions = map[int16]int16{0: 8, 3: 7, 18: 0, 22: 1}

func (s *sink) serve(conn net.Conn) error {
	for {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return nil // the client went
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return nil
		}
		key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
		var resp kmsg.Response
		if key == 18 {
			resp = s.versions(version)
		} else {
			if sinkVersions[key] != version {
				return fmt.Errorf("request %d version %d", key, version)
			}
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			client := int(int16(binary.BigEndian.Uint16(frame[8:])))
			if err := req.ReadFrom(frame[10+max(client, 0):]); err != nil {
				return err
			}
			resp = s.answer(req)
		}
		out := resp.AppendTo(frame[4:8:8]) // correlation id
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(out))), out...)); err != nil {
			return nil
		}
	}
}

func (s *sink) versions(asked int16) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	if asked > 0 {
		resp.ErrorCode = 35 // UNSUPPORTED_VERSION, in version 0: ask again
	}
	for key, version := range sinkVersions {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = key, version, version
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	return resp
}

func (s *sink) answer(req kmsg.Request) kmsg.Response {
	resp := req.ResponseKind()
	switch req := req.(type) {
	case *kmsg.MetadataRequest:
		resp := resp.(*kmsg.MetadataResponse)
		addr := s.l.Addr().(*net.TCPAddr)
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = 1, addr.IP.String(), int32(addr.Port)
		resp.Brokers = append(resp.Brokers, b)
		for _, asked := range req.Topics {
			t := kmsg.NewMetadataResponseTopic()
			t.Topic = asked.Topic
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Leader, p.Replicas, p.ISR = 1, []int32{1}, []int32{1}
			t.Partitions = append(t.Partitions, p)
			resp.Topics = append(resp.Topics, t)
		}
	case *kmsg.InitProducerIDRequest:
		resp.(*kmsg.InitProducerIDResponse).ProducerID = sinkProducer
	case *kmsg.ProduceRequest:
		resp := resp.(*kmsg.ProduceResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewProduceResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				s.mu.Lock()
				s.batches = append(s.batches, rp.Records)
				s.mu.Unlock()
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition = rp.Partition
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
	}
	return resp
}
