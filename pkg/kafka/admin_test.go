package kafka

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

func metadataRequest(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for i := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &names[i]
		req.Topics = append(req.Topics, t)
	}
	return req
}

func topicNames(resp *kmsg.MetadataResponse) []string {
	names := []string{}
	for _, t := range resp.Topics {
		names = append(names, *t.Topic)
	}
	return names
}

func TestMetadata(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	a := mustCreate(t, st, "a", 2)
	mustCreate(t, st, "__internal", 1)
	st.SetLeader(record.TopicPartition{Topic: "a", Partition: 1}, -1, 3)
	c := dial(t, s)
	local := s.Addr().(*net.TCPAddr)
	all := []string{"__internal", "a"}
	null := metadataRequest()
	null.Topics = nil
	for v := int16(0); v <= 12; v++ {
		if v > 0 {
			if got := topicNames(ask[*kmsg.MetadataResponse](c, null, v)); !cmp.Equal(got, all) {
				t.Errorf("v%d null: %v", v, got)
			}
		}
		want := []string{}
		if v == 0 {
			want = all
		}
		if got := topicNames(ask[*kmsg.MetadataResponse](c, metadataRequest(), v)); !cmp.Equal(got, want) {
			t.Errorf("v%d empty: %v, want %v", v, got, want)
		}
		resp := ask[*kmsg.MetadataResponse](c, metadataRequest("nothing", "a", "bad name", "__internal"), v)
		if got := topicNames(resp); !cmp.Equal(got, []string{"nothing", "a", "bad name", "__internal"}) {
			t.Fatalf("v%d: %v", v, got)
		}
		for i, want := range []int16{codeUnknownTopic, 0, codeInvalidTopic, 0} {
			if got := resp.Topics[i].ErrorCode; got != want {
				t.Errorf("v%d topic %d: code %d, want %d", v, i, got, want)
			}
		}
		ta := resp.Topics[1]
		if len(ta.Partitions) != 2 || ta.Partitions[0].Leader != 1 || ta.Partitions[0].ErrorCode != 0 || !cmp.Equal(ta.Partitions[0].ISR, []int32{1}) {
			t.Errorf("v%d: %+v", v, ta)
		}
		if p := ta.Partitions[1]; p.Leader != -1 || p.ErrorCode != codeLeaderNotAvailable || v >= 7 && p.LeaderEpoch != 3 {
			t.Errorf("v%d without a leader: %+v", v, p)
		}
		if v >= 10 && ta.TopicID != a.ID {
			t.Errorf("v%d: topic id %x", v, ta.TopicID)
		}
		if v >= 1 && (!resp.Topics[3].IsInternal || ta.IsInternal) {
			t.Errorf("v%d: internal flags", v)
		}
		if v >= 8 && ta.AuthorizedOperations != -2147483648 {
			t.Errorf("v%d: authorized operations %d", v, ta.AuthorizedOperations)
		}
		if b := resp.Brokers; len(b) != 1 || b[0].NodeID != 1 || b[0].Host != "127.0.0.1" || b[0].Port != int32(local.Port) {
			t.Errorf("v%d: brokers %+v", v, b)
		}
		if v >= 1 && resp.ControllerID != 1 || v >= 2 && *resp.ClusterID != kafkatest.ClusterID {
			t.Errorf("v%d: controller %d cluster %v", v, resp.ControllerID, resp.ClusterID)
		}
	}

	byID := metadataRequest()
	for _, id := range []record.TopicID{a.ID, {1, 2, 3}} {
		rt := kmsg.NewMetadataRequestTopic()
		rt.TopicID = id
		byID.Topics = append(byID.Topics, rt)
	}
	resp := ask[*kmsg.MetadataResponse](c, byID, 12)
	if resp.Topics[0].ErrorCode != 0 || *resp.Topics[0].Topic != "a" || resp.Topics[1].ErrorCode != codeUnknownTopicID || resp.Topics[1].Topic != nil {
		t.Errorf("by id: %+v", resp.Topics)
	}
}

func TestMetadataBrokers(t *testing.T) {
	st := kafkatest.New()
	cluster := record.Cluster{ID: "c", Controller: 7, Brokers: []record.Broker{{ID: 4, Host: "core-1", Port: 19092}, {ID: 7}, {ID: 9, Host: "core-3", Port: 9092}}}
	st.SetCluster(cluster)
	s := start(t, st, func(o *Options) { o.Advertise = "hub.example:1234" })
	resp := ask[*kmsg.MetadataResponse](dial(t, s), metadataRequest(), 9)
	var got []record.Broker
	for _, b := range resp.Brokers {
		got = append(got, record.Broker{ID: b.NodeID, Host: b.Host, Port: b.Port})
	}
	want := []record.Broker{{ID: 4, Host: "core-1", Port: 19092}, {ID: 7, Host: "hub.example", Port: 1234}, {ID: 9, Host: "core-3", Port: 9092}}
	if diff := cmp.Diff(want, got); diff != "" || resp.ControllerID != 7 {
		t.Errorf("controller %d, brokers %s", resp.ControllerID, diff)
	}
	cluster.Controller = 99 // not a broker
	st.SetCluster(cluster)
	if resp := ask[*kmsg.MetadataResponse](dial(t, s), metadataRequest(), 9); resp.ControllerID != 4 {
		t.Errorf("controller %d is not listed", resp.ControllerID)
	}
}

func TestAutoCreate(t *testing.T) {
	for _, tc := range []struct {
		name            string
		server, allowed bool
		version         int16
		topic           string
		want            int16
	}{
		{"created", true, true, 12, "new", 0},
		{"before v4 always allowed", true, false, 1, "new", 0},
		{"client does not allow", true, false, 12, "new", codeUnknownTopic},
		{"server does not", false, true, 12, "new", codeUnknownTopic},
		{"bad name", true, true, 12, "no good", codeInvalidTopic},
		{"internal name", true, true, 12, "__mine", codeUnknownTopic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := kafkatest.New()
			s := start(t, st, func(o *Options) {
				o.AutoCreate = tc.server
				o.DefaultTopic = record.TopicConfig{Partitions: 3, Compression: record.Zstd}
			})
			req := metadataRequest(tc.topic)
			req.AllowAutoTopicCreation = tc.allowed
			rt := ask[*kmsg.MetadataResponse](dial(t, s), req, tc.version).Topics[0]
			if rt.ErrorCode != tc.want || tc.want == 0 && len(rt.Partitions) != 3 {
				t.Errorf("%+v", rt)
			}
			if infos, _ := st.Topics(t.Context(), nil); (len(infos) == 1) != (tc.want == 0) {
				t.Errorf("topics %v", infos)
			}
		})
	}
}

func TestCreateTopics(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "there", 1)
	c := dial(t, s)
	type configs map[string]string
	for _, tc := range []struct {
		name       string
		topic      string
		partitions int32
		rf         int16
		configs    configs
		want       int16
		check      func(c record.TopicConfig) bool
	}{
		{"defaults", "a", -1, -1, nil, 0, func(c record.TopicConfig) bool { return c == record.DefaultTopicConfig() }},
		{"replication 3 on one node", "b", 6, 3, nil, 0, func(c record.TopicConfig) bool { return c.Partitions == 6 }},
		{"exists", "there", 1, 1, nil, codeTopicExists, nil},
		{"bad name", "no good", 1, 1, nil, codeInvalidTopic, nil},
		{"internal name", "__x", 1, 1, nil, codeInvalidTopic, nil},
		{"no partitions", "c", 0, 1, nil, codeInvalidPartitions, nil},
		{"too many partitions", "c", 1001, 1, nil, codeInvalidPartitions, nil},
		{"no replicas", "c", 1, 0, nil, codeInvalidReplication, nil},
		{"unknown config", "c", 1, 1, configs{"retention.hours": "1"}, codeInvalidConfig, nil},
		{"bad value", "c", 1, 1, configs{"retention.ms": "1h"}, codeInvalidConfig, nil},
		{"bad value of an inert one", "c", 1, 1, configs{"segment.bytes": "big"}, codeInvalidConfig, nil},
		{"log append time", "c", 1, 1, configs{"message.timestamp.type": "LogAppendTime"}, codeInvalidConfig, nil},
		{"retention", "d", 4, 1, configs{"retention.ms": "3600000", "retention.bytes": "1000000"}, 0, func(c record.TopicConfig) bool {
			return c.RetentionTime == time.Hour && c.RetentionBytes == 4_000_000
		}},
		{"no retention", "e", 4, 1, configs{"retention.ms": "-1", "retention.bytes": "-1"}, 0, func(c record.TopicConfig) bool {
			return c.RetentionTime == -1 && c.RetentionBytes == -1
		}},
		{"for ever in numbers", "f", 4, 1, configs{"retention.ms": "9223372036854775807", "retention.bytes": "9223372036854775807"}, 0, func(c record.TopicConfig) bool {
			return c.RetentionTime == -1 && c.RetentionBytes == -1
		}},
		{"compacted", "g", 1, 1, configs{"cleanup.policy": "compact"}, 0, func(c record.TopicConfig) bool { return c.Compact && c.RetentionTime == -1 }},
		{"compacted and deleted", "h", 1, 1, configs{"cleanup.policy": "compact,delete", "retention.ms": "1000"}, 0, func(c record.TopicConfig) bool {
			return c.Compact && c.RetentionTime == time.Second
		}},
		{"codec and size", "i", 1, 1, configs{"compression.type": "gzip", "max.message.bytes": "5000"}, 0, func(c record.TopicConfig) bool {
			return c.Compression == record.Gzip && c.MaxMessageBytes == 5000
		}},
		{"what Streams sets", "j", 1, 1, configs{"segment.bytes": "52428800", "retention.ms": "-1", "message.timestamp.type": "CreateTime", "cleanup.policy": "delete"}, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := kmsg.NewPtrCreateTopicsRequest()
			rt := kmsg.NewCreateTopicsRequestTopic()
			rt.Topic, rt.NumPartitions, rt.ReplicationFactor = tc.topic, tc.partitions, tc.rf
			for name, value := range tc.configs {
				rc := kmsg.NewCreateTopicsRequestTopicConfig()
				rc.Name, rc.Value = name, &value
				rt.Configs = append(rt.Configs, rc)
			}
			req.Topics = append(req.Topics, rt)
			for _, v := range []int16{2, 7} {
				req.ValidateOnly = v == 2
				got := ask[*kmsg.CreateTopicsResponse](c, req, v).Topics[0]
				if got.ErrorCode != tc.want {
					t.Fatalf("v%d: code %d, want %d: %v", v, got.ErrorCode, tc.want, got.ErrorMessage)
				}
				if tc.want != 0 && got.ErrorMessage == nil {
					t.Error("no message")
				}
				infos, _ := st.Topics(t.Context(), []string{tc.topic})
				if v == 2 && tc.want == 0 && len(infos) != 0 {
					t.Fatal("validate_only created the topic")
				}
				if v == 7 && tc.want == 0 {
					if len(infos) != 1 || got.TopicID != infos[0].ID || got.NumPartitions != infos[0].Config.Partitions || got.ReplicationFactor != 1 {
						t.Fatalf("%+v", got)
					}
					if tc.check != nil && !tc.check(infos[0].Config) {
						t.Errorf("stored %+v", infos[0].Config)
					}
				}
			}
		})
	}
	t.Run("twice in a request", func(t *testing.T) {
		req := kmsg.NewPtrCreateTopicsRequest()
		for range 2 {
			rt := kmsg.NewCreateTopicsRequestTopic()
			rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "twice", 1, 1
			req.Topics = append(req.Topics, rt)
		}
		if resp := ask[*kmsg.CreateTopicsResponse](c, req, 5); len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != codeInvalidRequest {
			t.Errorf("%+v", resp.Topics)
		}
	})
	t.Run("assignment", func(t *testing.T) {
		req := kmsg.NewPtrCreateTopicsRequest()
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "assigned", -1, -1
		for i := range int32(3) {
			ra := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			ra.Partition, ra.Replicas = i, []int32{1, 2, 3}
			rt.ReplicaAssignment = append(rt.ReplicaAssignment, ra)
		}
		req.Topics = append(req.Topics, rt)
		if resp := ask[*kmsg.CreateTopicsResponse](c, req, 5); resp.Topics[0].ErrorCode != 0 || resp.Topics[0].NumPartitions != 3 {
			t.Errorf("%+v", resp.Topics)
		}
	})
}

func TestDeleteTopics(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	c := dial(t, s)
	for v := int16(0); v <= 5; v++ {
		mustCreate(t, st, "t", 1)
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{"t", "nothing"}
		resp := ask[*kmsg.DeleteTopicsResponse](c, req, v)
		if resp.Topics[0].ErrorCode != 0 || *resp.Topics[0].Topic != "t" || resp.Topics[1].ErrorCode != codeUnknownTopic {
			t.Errorf("v%d: %+v", v, resp.Topics)
		}
	}
	info := mustCreate(t, st, "t", 1)
	secret := mustCreate(t, st, "__secret", 1)
	req := kmsg.NewPtrDeleteTopicsRequest()
	for _, id := range []record.TopicID{info.ID, secret.ID, {9}} {
		rt := kmsg.NewDeleteTopicsRequestTopic()
		rt.TopicID = id
		req.Topics = append(req.Topics, rt)
	}
	resp := ask[*kmsg.DeleteTopicsResponse](c, req, 6)
	for i, want := range []int16{0, codeInvalidTopic, codeUnknownTopicID} {
		if got := resp.Topics[i].ErrorCode; got != want {
			t.Errorf("topic %d: code %d, want %d", i, got, want)
		}
	}
}

func TestListOffsets(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 2)
	tp := record.TopicPartition{Topic: "t"}
	for _, ts := range []int64{500, 100, 900, 300} { // out of order, a batch each
		var b record.Builder
		b.Append(&record.Record{Timestamp: ts})
		b.Append(&record.Record{Timestamp: ts + 10})
		st.Append(t.Context(), []record.Append{{TopicPartition: tp, Batch: b.Build(nil, 0, 0, record.None)}})
	}
	st.DeleteBefore(tp, 1)
	st.SetLeader(tp, kafkatest.Node, 5)
	c := dial(t, s)
	for _, tc := range []struct {
		name      string
		topic     string
		partition int32
		time      int64
		epoch     int32
		version   int16
		offset    int64
		timestamp int64
		code      int16
	}{
		{"latest", "t", 0, -1, -1, 1, 8, -1, 0},
		{"earliest", "t", 0, -2, -1, 1, 1, -1, 0},
		{"earliest of empty", "t", 1, -2, -1, 4, 0, -1, 0},
		{"first at or after, not the nearest", "t", 0, 600, -1, 1, 4, 900, 0},
		{"inside a batch", "t", 0, 505, -1, 1, 1, 510, 0},
		{"before all", "t", 0, 0, -1, 1, 1, 510, 0},
		{"behind all", "t", 0, 2000, -1, 1, -1, -1, 0},
		{"highest time", "t", 0, -3, -1, 7, 5, 910, 0},
		{"highest time of empty", "t", 1, -3, -1, 7, -1, -1, 0},
		{"highest time before v7", "t", 0, -3, -1, 6, -1, -1, codeUnsupportedVersion},
		{"earliest local", "t", 0, -4, -1, 8, 1, -1, 0},
		{"earliest local before v8", "t", 0, -4, -1, 7, -1, -1, codeUnsupportedVersion},
		{"tiered", "t", 0, -5, -1, 8, -1, -1, codeUnsupportedVersion},
		{"unknown topic", "x", 0, -1, -1, 8, -1, -1, codeUnknownTopic},
		{"unknown partition", "t", 9, -1, -1, 8, -1, -1, codeUnknownTopic},
		{"old epoch", "t", 0, -1, 4, 8, -1, -1, codeFencedLeaderEpoch},
		{"new epoch", "t", 0, -1, 6, 8, -1, -1, codeUnknownLeaderEpoch},
		{"the epoch", "t", 0, -1, 5, 8, 8, -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := kmsg.NewPtrListOffsetsRequest()
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = tc.topic
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch, rp.MaxNumOffsets = tc.partition, tc.time, tc.epoch, 1
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
			p := ask[*kmsg.ListOffsetsResponse](c, req, tc.version).Topics[0].Partitions[0]
			if p.ErrorCode != tc.code || p.Offset != tc.offset || p.Timestamp != tc.timestamp {
				t.Errorf("%+v", p)
			}
			if tc.version == 1 && tc.code == 0 {
				p := ask[*kmsg.ListOffsetsResponse](c, req, 0).Topics[0].Partitions[0]
				want := tc.offset
				if want < 0 {
					want = 8
				}
				if !cmp.Equal(p.OldStyleOffsets, []int64{want}) {
					t.Errorf("v0: %+v", p)
				}
			}
		})
	}
}

func TestOffsets(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 3)
	c := dial(t, s)
	commit := func(v int16, group string, change func(*kmsg.OffsetCommitRequest), partitions ...kmsg.OffsetCommitRequestTopicPartition) []int16 {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group = group
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.Partitions = "t", partitions
		req.Topics = append(req.Topics, rt)
		if change != nil {
			change(req)
		}
		var codes []int16
		for _, p := range ask[*kmsg.OffsetCommitResponse](c, req, v).Topics[0].Partitions {
			codes = append(codes, p.ErrorCode)
		}
		return codes
	}
	at := func(partition int32, offset int64, meta string) kmsg.OffsetCommitRequestTopicPartition {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, offset, 2, &meta
		return p
	}
	for v := int16(0); v <= 9; v++ {
		if got := commit(v, "g", nil, at(0, 10+int64(v), "m"), at(1, 7, "")); !cmp.Equal(got, []int16{0, 0}) {
			t.Fatalf("v%d: %v", v, got)
		}
		for fv := int16(0); fv <= 9; fv++ {
			for _, all := range []bool{false, true} {
				if all && fv < 2 {
					continue
				}
				got := fetchOffsets(c, fv, "g", all)
				want := map[int32]int64{0: 10 + int64(v), 1: 7}
				if !all {
					want[2] = -1
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("commit v%d, fetch v%d, all %v: %s", v, fv, all, diff)
				}
			}
		}
	}
	long := strings.Repeat("x", record.MaxOffsetMetadata+1)
	if got := commit(8, "g", nil, at(0, 1, long), at(3, 1, ""), at(-1, 1, ""), at(1, -5, ""), at(2, 99, "")); !cmp.Equal(got, []int16{codeMetadataTooLarge, codeUnknownTopic, codeUnknownTopic, codeInvalidRequest, 0}) {
		t.Errorf("%v", got)
	}
	if got := fetchOffsets(c, 9, "g", true); got[2] != 99 || got[0] != 19 {
		t.Errorf("%v", got)
	}
	for name, tc := range map[string]struct {
		group  string
		change func(*kmsg.OffsetCommitRequest)
		want   int16
	}{
		"generation": {"g", func(r *kmsg.OffsetCommitRequest) { r.Generation = 1 }, codeIllegalGeneration},
		"member":     {"g", func(r *kmsg.OffsetCommitRequest) { r.MemberID = "m" }, codeUnknownMember},
		"no group":   {"", nil, codeInvalidGroupID},
	} {
		if got := commit(8, tc.group, tc.change, at(0, 1, "")); !cmp.Equal(got, []int16{tc.want}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := fetchOffsets(c, 9, "nobody", true); len(got) != 0 {
		t.Errorf("nobody has %v", got)
	}

	st.Fail(func(op string, _ record.TopicPartition) error {
		switch op {
		case "CommitOffsets":
			return record.ErrUnavailable
		case "GroupOffsets":
			return record.ErrNotCoordinator
		}
		return nil
	})
	if got := commit(8, "g", nil, at(0, 1, "")); !cmp.Equal(got, []int16{codeCoordinatorNotAvail}) {
		t.Errorf("unavailable: %v", got)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = "g"
	if resp := ask[*kmsg.OffsetFetchResponse](c, req, 5); resp.ErrorCode != codeNotCoordinator {
		t.Errorf("not coordinator: %d", resp.ErrorCode)
	}
}

// fetchOffsets asks for all offsets of a group, or for partitions 0 to 2.
func fetchOffsets(c *raw, v int16, group string, all bool) map[int32]int64 {
	got := map[int32]int64{}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	if !all {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = "t", []int32{0, 1, 2}
		req.Topics = append(req.Topics, rt)
	}
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = group
	for _, t := range req.Topics {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = t.Topic, t.Partitions
		rg.Topics = append(rg.Topics, gt)
	}
	req.Groups = append(req.Groups, rg)
	resp := ask[*kmsg.OffsetFetchResponse](c, req, v)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			got[p.Partition] = p.Offset
		}
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				got[p.Partition] = p.Offset
			}
		}
	}
	return got
}

func TestFindCoordinator(t *testing.T) {
	s := start(t, nil, func(o *Options) { o.Advertise = "hub.example:1234" })
	c := dial(t, s)
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = "g", []string{"g", ""}
		resp := ask[*kmsg.FindCoordinatorResponse](c, req, v)
		if v >= 4 {
			if len(resp.Coordinators) != 2 || resp.Coordinators[0].Host != "hub.example" || resp.Coordinators[0].Key != "g" || resp.Coordinators[1].ErrorCode != codeInvalidGroupID {
				t.Errorf("v%d: %+v", v, resp)
			}
		} else if resp.ErrorCode != 0 || resp.NodeID != 1 || resp.Host != "hub.example" || resp.Port != 1234 {
			t.Errorf("v%d: %+v", v, resp)
		}
	}
}

// Every error of a store has a code of its own in every family, and none is
// success.
func TestErrorTable(t *testing.T) {
	s := start(t, nil, nil)
	for _, err := range []error{
		record.ErrUnknownTopic, record.ErrTopicExists, record.ErrInvalidTopic, record.ErrInvalidPartitions, record.ErrInvalidConfig,
		record.ErrOffsetOutOfRange, record.ErrNotLeader, record.ErrNotCoordinator, record.ErrUnavailable, record.ErrTooLarge,
		record.ErrStorage, record.ErrOutOfOrderSeq, record.ErrProducerFenced, record.ErrClosed, context.Canceled, context.DeadlineExceeded,
	} {
		for f := range families {
			if code := s.code(f, err); code == 0 || code == codeUnknownServer && err != record.ErrOutOfOrderSeq && err != record.ErrProducerFenced {
				t.Errorf("%v in family %d: %d", err, f, code)
			}
		}
		if code := s.code(readFamily, err); code == codeLeaderNotAvailable || code == codeRequestTimedOut {
			t.Errorf("%v: Java's consumer throws on %d in a Fetch", err, code)
		}
	}
}
