package core

import (
	"errors"
	"math"
	"strings"
	"testing"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

// dataFrame is a frame of the batches, which it stamps.
func dataFrame(h frameHeader, batches ...[]byte) *frame {
	f := &frame{frameHeader: h}
	for _, b := range batches {
		at := len(f.Batches)
		f.Batches = append(f.Batches, b...)
		record.Stamp(f.Batches[at:], f.next(), h.Epoch)
		bh, err := record.Check(f.Batches[at:])
		if err != nil {
			panic(err)
		}
		f.Count += int64(bh.LastOffsetDelta) + 1
		f.MaxTime = max(f.MaxTime, bh.MaxTimestamp)
		f.Bytes += int64(len(b))
	}
	return f
}

func TestFrameRoundTrip(t *testing.T) {
	f := dataFrame(frameHeader{Base: 7, Epoch: 3, Writer: math.MaxUint64, Number: 9, Prev: 41, Keyframe: 40, MaxTime: noTime, Time: 5},
		batch("a", 0, 3), batch("b", 3, 1))
	f.Marks = []sourceSpans{{Source: forward.Source{Site: "s", Partition: 2}, Spans: []span{{Start: 1, Next: 5}}}}
	f.Gaps = []sourceGap{{Source: forward.Source{Site: "s"}, Gap: forward.Gap{From: 1, To: 2, Reason: forward.GapLost}}}
	f.Producers = []producerEntry{{ID: 4, Epoch: 1, Time: 5, Batches: []seqRange{{1, 2, 3}}}}
	body, err := f.encodeBody()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeFrame(f.frameHeader.encode(), body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f, got, cmp.AllowUnexported(frame{}, frameHeader{})); d != "" {
		t.Error(d)
	}
	if got.next() != 11 || got.isKeyframe() {
		t.Errorf("next %d", got.next())
	}
	// The bytes are the format: docs/core-frames.md.
	if want := "1 7 4 3 ffffffffffffffff 9 41 40 1700000000003 5 "; !strings.HasPrefix(f.frameHeader.encode(), want) {
		t.Errorf("header %q", f.frameHeader.encode())
	}
	// Every flipped bit is found.
	header := f.frameHeader.encode()
	for i := range body {
		// Base offsets and epochs lie outside the batches' CRCs, and are checked
		// against the header.
		if i >= 1 && i <= 3 {
			continue // reserved
		}
		bad := append([]byte(nil), body...)
		bad[i] ^= 0x10
		if _, err := decodeFrame(header, bad); err == nil {
			t.Errorf("flipped byte %d is not found", i)
		}
	}
	for i := range header {
		bad := []byte(header)
		bad[i] ^= 1
		if _, err := decodeFrame(string(bad), body); err == nil {
			t.Errorf("flipped byte %d of header %q is not found", i, header)
		}
	}
	if _, err := parseFrameHeader("2 x"); !errors.Is(err, errFrameVersion) {
		t.Errorf("version: %v", err)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	fr := dataFrame(frameHeader{Base: 7, Epoch: 3, Writer: 1, Number: 9, Prev: 41, Keyframe: 40, MaxTime: noTime}, batch("a", 0, 3))
	fr.Marks = []sourceSpans{{Source: forward.Source{Site: "s"}, Spans: []span{{Start: 1, Next: 5}}}}
	body, err := fr.encodeBody()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fr.frameHeader.encode(), body)
	st := newState()
	key, err := st.keyframeOf(1, 5).encodeBody()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(st.keyframeOf(1, 5).frameHeader.encode(), key)
	f.Add("1 0 0 0 0 0 0 1 0 0 0", []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		fr, err := decodeFrame(header, body)
		if err != nil {
			return
		}
		// What is believed can be stored again and is the same then.
		again, err := fr.encodeBody()
		if err != nil {
			t.Fatal(err)
		}
		fr2, err := decodeFrame(fr.frameHeader.encode(), again)
		if err != nil {
			t.Fatal(err)
		}
		if fr2.frameHeader != fr.frameHeader || string(fr2.Batches) != string(fr.Batches) {
			t.Fatal("frame changed on the way")
		}
		newState().apply(fr.Prev+1, fr)
	})
}

func FuzzLaneRequest(f *testing.F) {
	p := newPartition(record.TopicID{}, "t", 0, record.TopicConfig{})
	s := &testSite{name: "s"}
	e := epoch(1, 0)
	a, err := forward.Encode(nil, forward.KindAppend, &forward.Append{Source: s.source(0), Epoch: e.ID, First: 0, Last: 4,
		Gaps: []forward.Gap{{From: 1, To: 2}}}, s.batches(0, e, 0, 4))
	if err != nil {
		f.Fatal(err)
	}
	o, err := forward.Encode(nil, forward.KindOpen, &forward.Open{Source: s.source(0), Epochs: []forward.Epoch{e}, Next: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a)
	f.Add(o)
	f.Add([]byte{1, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := laneRequest("s", p, b)
		if err != nil {
			return
		}
		st, lanes := newState(), map[forward.Source]*lane{}
		if r.kind == openRequest {
			ln, _, err := openLane(&source{spans: []span{{Epoch: e.ID, Next: 2}}}, r.open)
			if err == nil && ln.cursor < 0 {
				t.Fatalf("cursor %d", ln.cursor)
			}
			return
		}
		st.keyframe, st.seq = 1, 1
		lanes[r.append.Source] = &lane{epochs: []forward.Epoch{{ID: r.append.Epoch, Start: 0}}, cursor: r.append.First}
		d := build(st, lanes, []*request{r}, 1<<20, 1, 1, 0)
		if d.empty() {
			return
		}
		body, err := d.f.encodeBody()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeFrame(d.f.frameHeader.encode(), body); err != nil {
			t.Fatalf("what was admitted cannot be read: %v", err)
		}
		if _, err := st.apply(2, &d.f); err != nil {
			t.Fatal(err)
		}
	})
}
