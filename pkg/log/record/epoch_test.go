package record_test

import (
	"strings"
	"testing"

	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

func TestEpochStart(t *testing.T) {
	e := record.EpochStart{Number: 3, ID: strings.Repeat("0a", 16), Time: 1_700_000_000_000,
		Starts: []record.PartitionStart{{Topic: strings.Repeat("ff", 16), Partition: 2, Offset: 1 << 40}}}
	got, err := record.ParseEpochStart(e.Encode())
	must(t, err)
	if d := cmp.Diff(e, got); d != "" {
		t.Error(d)
	}
	const want = `{"number":3,"id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","time":1700000000000,` +
		`"starts":[{"topic":"ffffffffffffffffffffffffffffffff","partition":2,"offset":1099511627776}]}`
	if got := string(e.Encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"", "{}", "[]", `{"number":1,"id":"12"}`, `{"number":1,"id":"zz"}`} {
		if _, err := record.ParseEpochStart([]byte(bad)); err == nil {
			t.Errorf("%q is an epoch", bad)
		}
	}
}

func TestTopicID(t *testing.T) {
	id := record.TopicID{1, 2, 0xff}
	got, err := record.ParseTopicID(id.String())
	if err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "01", strings.Repeat("0", 33), strings.Repeat("g", 32)} {
		if _, err := record.ParseTopicID(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
}

func TestTopicNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"mqtt": true, "telemetry.1m": true, "__epochs": true, "A-z_0.9": true, strings.Repeat("x", 249): true, "...": true,
		"": false, ".": false, "..": false, strings.Repeat("x", 250): false, "a/b": false, "a b": false, "ä": false, "a\x00": false,
	} {
		if err := record.CheckTopicName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	want := record.TopicConfig{Partitions: 1, RetentionTime: record.DefaultRetentionTime, RetentionBytes: 1_000_000_000,
		MaxMessageBytes: 1_048_588, Compression: record.Zstd}
	if d := cmp.Diff(want, record.DefaultTopicConfig()); d != "" {
		t.Error(d)
	}
	set := record.TopicConfig{Partitions: 4, RetentionTime: -1, RetentionBytes: -1, MaxMessageBytes: 7}
	got := set
	got.EnsureDefaults()
	if d := cmp.Diff(set, got); d != "" {
		t.Error(d)
	}
}
