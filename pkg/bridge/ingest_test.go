package bridge

import (
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRefusalOf(t *testing.T) {
	for _, tt := range []struct {
		err    error
		failed bool
		want   Refusal
	}{
		{record.ErrTooLarge, false, RefusedTooLarge},
		{fmt.Errorf("append: %w", record.ErrTooLarge), false, RefusedTooLarge},
		{record.ErrStorage, false, RefusedSpace}, // the disk is full and will not be
		{record.ErrStorage, true, RefusedFailed}, // the disk is broken
		{record.ErrClosed, false, RefusedFailed},
		{fmt.Errorf("%w t: %w", ErrTopic, record.ErrInvalidConfig), false, RefusedTopic},
		{errors.New("what?"), false, RefusedFailed},
	} {
		if got := RefusalOf(tt.err, tt.failed); got != tt.want {
			t.Errorf("%v, failed %v: %v, want %v", tt.err, tt.failed, got, tt.want)
		}
	}
	for r := range Refusals {
		if r.String() == "" || r.AckReason() < 0x80 || r.DisconnectReason() < 0x80 {
			t.Errorf("refusal %d has no name or no reason codes", r)
		}
	}
}

func TestStoreFollowsTheRoutes(t *testing.T) {
	l, err := log.Open(log.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.CreateTopic("four", func() record.TopicConfig { c := record.DefaultTopicConfig(); c.Partitions = 4; return c }()); err != nil {
		t.Fatal(err)
	}
	routes, err := route.Compile([]route.Rule{{Match: "noise/#", Drop: true}, {Match: "p/{device}", Topic: "four", Key: "{device}"}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewIngest(IngestOptions{Log: l, Routes: routes, Site: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if lsn, err := in.Store("noise/x", nil); lsn != 0 || err != nil {
		t.Errorf("a dropped message: %d, %v", lsn, err)
	}
	var last log.LSN
	counts := make([]int64, 4)
	for i := range 100 {
		key := fmt.Sprint("dev-", i)
		if last, err = in.Store("p/"+key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		counts[record.PartitionOf([]byte(key), 4)]++
	}
	if err := l.Wait(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	for i, want := range counts {
		p, err := l.Partition("four", int32(i))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Offsets().HighWatermark; got != want {
			t.Errorf("partition %d has %d records, want %d", i, got, want)
		}
	}
	if s := in.Stats(); s.Stored != 100 || s.Dropped != 1 || s.StoredBytes != 100 {
		t.Errorf("stats: %+v", s)
	}
	if _, err := in.Store("elsewhere", make([]byte, 2<<20)); RefusalOf(err, false) != RefusedTooLarge {
		t.Errorf("2 MiB: %v", err)
	}
}

func TestTopicThatCannotBeHad(t *testing.T) {
	l, err := log.Open(log.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	no := errors.New("no")
	ensure := func(string) error { return no }
	if _, err := NewIngest(IngestOptions{Log: l, EnsureTopic: ensure}); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	routes, err := route.Compile([]route.Rule{{Match: "a", Topic: "t"}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewIngest(IngestOptions{Log: l, Routes: routes, EnsureTopic: func(name string) error {
		if name == "t" {
			return nil
		}
		return no
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Store("elsewhere", nil); RefusalOf(err, false) != RefusedTopic || !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}
