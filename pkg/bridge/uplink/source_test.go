package uplink

import (
	"strconv"
	"strings"
	"testing"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

func TestChain(t *testing.T) {
	id := record.TopicID{1}
	hex := func(b byte) string { return strings.Repeat(string("0123456789abcdef"[b]), 32) }
	start := func(number int32, offsets ...int64) record.EpochStart {
		e := record.EpochStart{Number: number, ID: hex(byte(number))}
		for p, o := range offsets {
			e.Starts = append(e.Starts, record.PartitionStart{Topic: id.String(), Partition: int32(p), Offset: o},
				record.PartitionStart{Topic: record.TopicID{2}.String(), Partition: int32(p), Offset: 7777})
		}
		return e
	}
	for _, c := range []struct {
		name   string
		epochs []record.EpochStart
		want   []string // "number@start"
		err    bool
	}{
		{name: "one", epochs: []record.EpochStart{start(0)}, want: []string{"0@0"}},
		{name: "topic made in the third", epochs: []record.EpochStart{start(0), start(1), start(2), start(3, 5, 10)}, want: []string{"2@0", "3@10"}},
		{name: "epochs without offsets", epochs: []record.EpochStart{start(0), start(1, 0, 4), start(2, 0, 4), start(3, 0, 4)}, want: []string{"0@0", "3@4"}},
		{name: "a lost tail", epochs: []record.EpochStart{start(0), start(1, 0, 100), start(2, 0, 50)}, want: []string{"0@0", "2@50"}},
		{name: "all lost", epochs: []record.EpochStart{start(0), start(1, 0, 100), start(2)}, want: []string{"2@0"}},
		{name: "no epochs", err: true},
		{name: "bad id", epochs: []record.EpochStart{{Number: 0, ID: "00"}}, err: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := (&Hub{Epochs: c.epochs}).Chain(Partition{Topic: "t", ID: id, Partition: 1})
			if (err != nil) != c.err {
				t.Fatalf("error %v", err)
			}
			var got []string
			for _, e := range chain {
				if e.ID.String() != hex(byte(e.Number)) {
					t.Errorf("epoch %d has id %s", e.Number, e.ID)
				}
				got = append(got, strconv.Itoa(int(e.Number))+"@"+strconv.FormatInt(e.Start, 10))
			}
			if d := cmp.Diff(got, c.want); d != "" {
				t.Error(d)
			}
		})
	}
	var many []record.EpochStart
	for i := range int32(2000) {
		e := record.EpochStart{Number: i, ID: hex(byte(i % 16))}
		e.Starts = []record.PartitionStart{{Topic: id.String(), Partition: 1, Offset: int64(i) * 10}}
		many = append(many, e)
	}
	chain, err := (&Hub{Epochs: many}).Chain(Partition{ID: id, Partition: 1})
	if err != nil || len(chain) != forward.MaxEpochs || chain[len(chain)-1].Number != 1999 {
		t.Errorf("%d epochs of 2000, %v", len(chain), err)
	}
}

func TestParseClusterID(t *testing.T) {
	good := "press-line-7/00112233445566778899aabbccddeeff"
	site, log, err := ParseClusterID(good)
	if err != nil || site != "press-line-7" || log.String() != "00112233445566778899aabbccddeeff" {
		t.Errorf("%s %s %v", site, log, err)
	}
	for _, bad := range []string{"", "abc", "/00112233445566778899aabbccddeeff", "a.b/00112233445566778899aabbccddeeff",
		"a/0011", good + "00", "a/zz112233445566778899aabbccddeeff", "Kf3pQ-8dTqaYcn4m0Z3a1A"} {
		if _, _, err := ParseClusterID(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestPlaceOf(t *testing.T) {
	chain := chainOf(0, 10, 20)
	for _, c := range []struct {
		epoch byte
		next  int64
		want  place
		ok    bool
	}{
		{1, 0, place{0, 0}, true}, {1, 10, place{0, 10}, true}, {1, 11, place{}, false},
		{2, 10, place{1, 10}, true}, {2, 9, place{}, false}, {3, 1 << 40, place{2, 1 << 40}, true}, {4, 0, place{}, false},
	} {
		got, ok := placeOf(chain, forward.Position{Epoch: forward.ID{c.epoch}, Next: c.next})
		if ok != c.ok || ok && got != c.want {
			t.Errorf("epoch %d, offset %d: %+v %v", c.epoch, c.next, got, ok)
		}
	}
}
