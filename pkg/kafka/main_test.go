package kafka

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ Store = (*kafkatest.Store)(nil)

// start serves st, or a new kafkatest.Store, on a free port.
func start(t testing.TB, st Store, change func(*Options)) *Server {
	t.Helper()
	if st == nil {
		st = kafkatest.New()
	}
	o := Options{Store: st, Listen: "127.0.0.1:0"}
	if change != nil {
		change(&o)
	}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// raw is a connection without a client library.
type raw struct {
	net.Conn
	t           testing.TB
	correlation int32
}

func dial(t testing.TB, s *Server) *raw {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{Conn: c, t: t}
}

// encodeRequest is a whole frame.
func encodeRequest(req kmsg.Request, correlation int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw")).AppendRequest(nil, req, correlation)
}

// send writes a request in its version.
func (r *raw) send(req kmsg.Request) {
	r.t.Helper()
	r.correlation++
	if _, err := r.Write(encodeRequest(req, r.correlation)); err != nil {
		r.t.Fatal(err)
	}
}

// answer reads one frame and returns what is behind the correlation id.
func (r *raw) answer() (int32, []byte) {
	r.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		r.t.Fatalf("half an answer: %v", err)
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:]
}

// receive decodes the answer to req.
func (r *raw) receive(req kmsg.Request) kmsg.Response {
	r.t.Helper()
	id, b := r.answer()
	if id != r.correlation {
		r.t.Fatalf("correlation id %d, want %d", id, r.correlation)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && resp.Key() != keyApiVersions {
		if b[0] != 0 {
			r.t.Fatalf("response header has tags")
		}
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		r.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp
}

// ask sends a request and receives its answer.
func ask[T kmsg.Response](r *raw, req kmsg.Request, version int16) T {
	r.t.Helper()
	req.SetVersion(version)
	r.send(req)
	return r.receive(req).(T)
}

// closed waits for the server to close the connection without another byte.
func (r *raw) closed() {
	r.t.Helper()
	b, err := io.ReadAll(r)
	if len(b) > 0 {
		r.t.Fatalf("%d bytes where the connection should have been closed", len(b))
	}
	if err, ok := err.(net.Error); ok && err.Timeout() {
		r.t.Fatal("the connection stays open")
	}
}

// batch is a produced batch of values.
func batch(codec record.Codec, values ...string) []byte {
	var b record.Builder
	for i, v := range values {
		b.Append(&record.Record{Timestamp: 1000 + int64(i), Value: []byte(v)})
	}
	return b.Build(nil, 0, 0, codec)
}

// mustCreate makes a topic in st.
func mustCreate(t testing.TB, st Store, name string, partitions int32) record.TopicInfo {
	t.Helper()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = partitions
	info, err := st.CreateTopic(t.Context(), name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// mustAppend appends a batch of values to a partition of st.
func mustAppend(t testing.TB, st Store, topic string, partition int32, values ...string) int64 {
	t.Helper()
	tp := record.TopicPartition{Topic: topic, Partition: partition}
	out := st.Append(t.Context(), []record.Append{{TopicPartition: tp, Batch: batch(record.None, values...)}})
	if out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
	return out[0].BaseOffset
}

// produceRequest is a Produce of one batch to one partition.
func produceRequest(topic string, partition int32, acks int16, b []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetchRequest is a Fetch of one partition.
func fetchRequest(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxBytes, req.MinBytes = -1, 1<<20, 1
	addFetch(req, topic, partition, offset)
	return req
}

func addFetch(req *kmsg.FetchRequest, topic string, partition int32, offset int64) *kmsg.FetchRequestTopicPartition {
	if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != topic {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = topic
		req.Topics = append(req.Topics, rt)
	}
	rt := &req.Topics[len(req.Topics)-1]
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, offset, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	return &rt.Partitions[len(rt.Partitions)-1]
}
