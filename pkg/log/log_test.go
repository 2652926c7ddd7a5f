package log

import (
	"fmt"
	"testing"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

func TestOpenAppendReopen(t *testing.T) {
	for _, real := range []bool{false, true} {
		t.Run(fmt.Sprintf("real=%v", real), func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			if real {
				o = Options{Dir: t.TempDir(), slotBytes: 1 << 20, slots: 4}
			}
			l := mustOpen(t, o)
			if !l.Recovery().Created || l.Epoch() != 1 {
				t.Fatalf("recovery %+v, epoch %d", l.Recovery(), l.Epoch())
			}
			id := l.ID()
			mustCreate(t, l, "a", 2)
			p := mustPartition(t, l, "a", 1)
			var want []got
			for i := range 100 {
				v := fmt.Sprintf("value %d", i)
				want = append(want, got{mustAppend(t, p, v), v})
			}
			if diff := fmt.Sprint(mustReadAll(t, p)); diff != fmt.Sprint(want) {
				t.Fatalf("got %v", diff)
			}
			mustClose(t, l)
			for n := range 3 {
				l = mustOpen(t, o)
				r := l.Recovery()
				if r.Created || !r.Clean || r.MetaRebuilt || len(r.Quarantined) != 0 {
					t.Fatalf("recovery %+v", r)
				}
				if l.ID() != id || l.Epoch() != int32(n+2) {
					t.Fatalf("id %x, epoch %d", l.ID(), l.Epoch())
				}
				p = mustPartition(t, l, "a", 1)
				if g := fmt.Sprint(mustReadAll(t, p)); g != fmt.Sprint(want) {
					t.Fatalf("got %v\nwant %v", g, want)
				}
				v := fmt.Sprintf("again %d", n)
				want = append(want, got{mustAppend(t, p, v), v})
				if e, end := p.EpochEnd(1); e != 1 || end != 100 {
					t.Fatalf("epoch 1 ends %d %d", e, end)
				}
				eps := mustReadAll(t, mustPartition(t, l, record.EpochsTopic, 0))
				if len(eps) != n+2 {
					t.Fatalf("%d epoch records", len(eps))
				}
				mustClose(t, l)
			}
			if real {
				r, err := Verify(o.Dir)
				if err != nil || !r.OK() || r.Torn {
					t.Fatalf("verify: %+v %v", r, err)
				}
			}
		})
	}
}
