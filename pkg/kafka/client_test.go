package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
)

func newClient(t testing.TB, s *Server, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.Addr().String())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func timeout(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// stores are what the client tests run over.
func stores(t *testing.T, f func(t *testing.T, st Store)) {
	t.Run("memory", func(t *testing.T) { f(t, kafkatest.New()) })
	t.Run("log", func(t *testing.T) { f(t, NewEdgeStore(openLog(t, t.TempDir()), kafkatest.ClusterID, nil)) })
}

// openLog opens a hub's log that the test closes.
func openLog(t testing.TB, dir string) *log.Log {
	t.Helper()
	l, err := log.Open(log.Options{Dir: dir, JournalBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestFranzProduceConsume(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	stores(t, func(t *testing.T, st Store) {
		s := start(t, st, nil)
		for name, codec := range codecs {
			t.Run(name, func(t *testing.T) {
				topic := "t-" + name
				mustCreate(t, st, topic, 3)
				ctx := timeout(t, 20*time.Second)
				cl := newClient(t, s, kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
				const n = 3000
				var recs []*kgo.Record
				for i := range n {
					recs = append(recs, &kgo.Record{
						Topic: topic, Partition: int32(i % 3), Key: []byte(fmt.Sprint("k", i)), Value: []byte(fmt.Sprint("value of record ", i)),
						Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}},
					})
				}
				if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				consumer := newClient(t, s, kgo.FetchMaxWait(200*time.Millisecond), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {
					0: kgo.NewOffset().AtStart(), 1: kgo.NewOffset().AtStart(), 2: kgo.NewOffset().At(500),
				}}))
				next := map[int32]int64{2: 500}
				for got := 0; got < n-500; {
					fs := consumer.PollFetches(ctx)
					if err := fs.Err(); err != nil {
						t.Fatal(err)
					}
					fs.EachRecord(func(r *kgo.Record) {
						if r.Offset != next[r.Partition] {
							t.Fatalf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
						}
						i := int(r.Offset)*3 + int(r.Partition)
						if string(r.Value) != fmt.Sprint("value of record ", i) || string(r.Key) != fmt.Sprint("k", i) || r.Headers[0].Value[0] != byte(i) {
							t.Fatalf("record %d is %q %q", i, r.Key, r.Value)
						}
						next[r.Partition]++
						got++
					})
				}
			})
		}
	})
}

func TestFranzTailing(t *testing.T) {
	stores(t, func(t *testing.T, st Store) {
		s := start(t, st, nil)
		mustCreate(t, st, "t", 1)
		ctx := timeout(t, 20*time.Second)
		consumer := newClient(t, s, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxWait(10*time.Second))
		producer := newClient(t, s)
		for i := range 20 {
			if err := producer.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte(fmt.Sprint(i))}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			fs := consumer.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			if got := string(fs.Records()[0].Value); got != fmt.Sprint(i) {
				t.Fatalf("got %q, want %d", got, i)
			}
		}
	})
}

func TestAdmin(t *testing.T) {
	stores(t, func(t *testing.T, st Store) {
		s := start(t, st, nil)
		ctx := timeout(t, 20*time.Second)
		adm := kadm.NewClient(newClient(t, s))
		retention := "60000"
		created, err := adm.CreateTopics(ctx, 4, 3, map[string]*string{"retention.ms": &retention, "segment.bytes": &retention}, "a", "b")
		if err != nil || created.Error() != nil {
			t.Fatal(err, created.Error())
		}
		if created["a"].NumPartitions != 4 || created["a"].ID == (kadm.TopicID{}) || created["a"].Configs["retention.ms"].Value == nil || *created["a"].Configs["retention.ms"].Value != "60000" {
			t.Fatalf("created %+v", created["a"])
		}
		if again, err := adm.CreateTopics(ctx, 4, 1, nil, "a"); err != nil || again.Error() == nil {
			t.Fatal("created twice")
		}
		infos, err := st.Topics(ctx, []string{"a"})
		if err != nil || len(infos) != 1 || infos[0].Config.RetentionTime != time.Minute {
			t.Fatal(infos, err)
		}
		mustAppend(t, st, "a", 2, "x", "y", "z")

		topics, err := adm.ListTopics(ctx)
		if err != nil || len(topics) != 2 || len(topics["a"].Partitions) != 4 || topics["a"].ID != kadm.TopicID(infos[0].ID) {
			t.Fatal(topics, err)
		}
		ends, err := adm.ListEndOffsets(ctx, "a")
		if o, ok := ends.Lookup("a", 2); err != nil || !ok || o.Offset != 3 {
			t.Fatal(ends, err)
		}
		after, err := adm.ListOffsetsAfterMilli(ctx, 1001, "a")
		if o, ok := after.Lookup("a", 2); err != nil || !ok || o.Offset != 1 || o.Timestamp != 1001 {
			t.Fatal(after, err)
		}

		var offs kadm.Offsets
		offs.Add(kadm.Offset{Topic: "a", Partition: 2, At: 2, LeaderEpoch: -1, Metadata: "half way"})
		offs.Add(kadm.Offset{Topic: "b", Partition: 0, At: 0, LeaderEpoch: -1})
		if _, err := adm.CommitOffsets(ctx, "g", offs); err != nil {
			t.Fatal(err)
		}
		got, err := adm.FetchOffsets(ctx, "g")
		if o, ok := got.Lookup("a", 2); err != nil || !ok || o.At != 2 || o.Metadata != "half way" {
			t.Fatal(got, err)
		}
		many := adm.FetchManyOffsets(ctx, "g", "nobody")
		if many.Error() != nil || len(many["nobody"].Fetched) != 0 || len(many["g"].Fetched) != 2 {
			t.Fatal(many)
		}

		deleted, err := adm.DeleteTopics(ctx, "a", "nothing")
		if err != nil || deleted["a"].Err != nil || deleted["nothing"].Err == nil {
			t.Fatal(deleted, err)
		}
		if infos, err := st.Topics(ctx, []string{"a", "b"}); err != nil || len(infos) != 1 {
			t.Fatal(infos, err) // the client's own list comes from its cache
		}
	})
}

// A producer that loses the answer and sends again stores its batch once.
func TestIdempotentRetry(t *testing.T) {
	stores(t, func(t *testing.T, st Store) {
		s := start(t, st, nil)
		mustCreate(t, st, "t", 1)
		c := dial(t, s)
		pid := ask[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest(), 4)
		if pid.ErrorCode != 0 || pid.ProducerID < 0 || pid.ProducerEpoch != 0 {
			t.Fatalf("%+v", pid)
		}
		send := func(seq int32, epoch int16) (int64, int16) {
			var b record.Builder
			b.Append(&record.Record{Timestamp: 1, Value: []byte("v")})
			b.Append(&record.Record{Timestamp: 2, Value: []byte("w")})
			raw := b.BuildIdempotent(nil, record.None, pid.ProducerID, epoch, seq)
			p := ask[*kmsg.ProduceResponse](c, produceRequest("t", 0, -1, raw), 9).Topics[0].Partitions[0]
			return p.BaseOffset, p.ErrorCode
		}
		for _, tc := range []struct {
			name   string
			seq    int32
			epoch  int16
			offset int64
			code   int16
		}{
			{"first", 0, 0, 0, 0},
			{"second", 2, 0, 2, 0},
			{"second again", 2, 0, 2, 0},
			{"first again", 0, 0, 0, 0},
			{"gap", 6, 0, -1, codeOutOfOrderSequence},
			{"third", 4, 0, 4, 0},
			{"new epoch not at 0", 6, 1, -1, codeOutOfOrderSequence},
			{"new epoch", 0, 1, 6, 0},
			{"old epoch", 6, 0, -1, codeInvalidProducerEpoch},
		} {
			offset, code := send(tc.seq, tc.epoch)
			if code != tc.code || code == 0 && offset != tc.offset {
				t.Errorf("%s: offset %d code %d, want %d %d", tc.name, offset, code, tc.offset, tc.code)
			}
		}
	})
}

// Every start of a log begins an epoch: a consumer that knew the old one goes
// on where it was.
func TestFranzAcrossEpochs(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	ctx := timeout(t, 20*time.Second)
	consumer := newClient(t, s, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))
	next := int64(0)
	for epoch := range int32(4) {
		st.SetLeader(record.TopicPartition{Topic: "t"}, kafkatest.Node, epoch)
		mustAppend(t, st, "t", 0, "a", "b", "c")
		for next < int64(epoch+1)*3 {
			fs := consumer.PollFetches(ctx)
			if err := fs.Err(); err != nil {
				t.Fatal(epoch, err)
			}
			fs.EachRecord(func(r *kgo.Record) {
				if r.Offset != next || r.LeaderEpoch != epoch {
					t.Errorf("offset %d of epoch %d, want %d of %d", r.Offset, r.LeaderEpoch, next, epoch)
				}
				next++
			})
		}
	}
}
