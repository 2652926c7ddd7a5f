package core

import (
	"fmt"
	"strings"
	"testing"

	"edgehub/pkg/forward"
)

// Epochs are written as letters: "A0 B10" is A from 0 and B from 10 on.
func id(s string) forward.ID { return forward.ID{s[0]} }

func epochs(s string) []forward.Epoch {
	var out []forward.Epoch
	for i, f := range strings.Fields(s) {
		var at int64
		fmt.Sscan(f[1:], &at)
		out = append(out, forward.Epoch{Number: int32(i + 1), ID: id(f), Start: at})
	}
	return out
}

// Spans are written as "A0-10 B10-15", in the order of last use.
func spans(s string) []span {
	var out []span
	for _, f := range strings.Fields(s) {
		var a, b int64
		fmt.Sscanf(f[1:], "%d-%d", &a, &b)
		out = append(out, span{Epoch: id(f), Start: a, Next: b})
	}
	return out
}

func spansString(sp []span) string {
	var out []string
	for _, s := range sp {
		out = append(out, fmt.Sprintf("%c%d-%d", s.Epoch[0], s.Start, s.Next))
	}
	return strings.Join(out, " ")
}

func position(p forward.Position) string {
	if p == (forward.Position{}) {
		return "none"
	}
	return fmt.Sprintf("%c%d", p.Epoch[0], p.Next)
}

func TestOpenLane(t *testing.T) {
	for _, c := range []struct {
		name, core, edge   string
		logStart, next     int64
		wantResume, wantLo string
	}{
		{"first contact", "", "A0", 0, 5, "A0", ""},
		{"first contact with lost beginning", "", "A0", 3, 5, "A0", ""},
		{"first contact, early epochs gone", "", "B10 C20", 12, 25, "B10", ""},
		{"goes on", "A0-7", "A0", 0, 9, "A7", ""},
		{"all is there", "A0-9", "A0", 0, 9, "A9", ""},
		{"core is ahead of a stale Open", "A0-9", "A0", 0, 7, "A9", ""},
		{"in the middle of an older epoch", "A0-7", "A0 B10", 0, 15, "A7", ""},
		{"at an epoch's end", "A0-10", "A0 B10", 0, 15, "B10", ""},
		{"at the end, empty epoch between", "A0-10", "A0 B10 C10", 0, 15, "C10", ""},
		{"epochs skipped since", "A0-10", "A0 B10 C15", 0, 20, "B10", ""},
		{"epoch without records left out", "A0-10", "A0 C10", 0, 20, "C10", ""},
		{"edge lost its tail", "A0-10", "A0 B8", 0, 12, "B8", "A8-10"},
		{"edge lost a whole epoch", "A0-10 B10-15", "A0 C10", 0, 12, "C10", "B10-15"},
		{"edge lost tail and epochs", "A0-10 B10-15 C15-20", "A0 D7", 0, 12, "D7", "A7-10 C15-20 B10-15"},
		{"back on the newer image", "A0-10 B10-15 X8-12", "A0 B10 D15", 0, 20, "D15", "X8-12"},
		{"restored, but went on alone on both", "A0-10 X8-12", "A0 X8 Y12", 0, 14, "Y12", ""},
		{"nothing shared", "A0-10", "Q0", 0, 3, "Q0", "A0-10"},
		{"nothing shared, long log", "A0-10", "Q5 R9", 6, 12, "Q5", "A0-10"},
	} {
		var src *source
		if c.core != "" {
			src = &source{spans: spans(c.core)}
		}
		ln, lost, err := openLane(src, &forward.Open{Epochs: epochs(c.edge), LogStart: c.logStart, Next: c.next})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := position(ln.resume()); got != c.wantResume {
			t.Errorf("%s: resume %s, want %s", c.name, got, c.wantResume)
		}
		if got := spansString(lost); got != c.wantLo {
			t.Errorf("%s: lost %s, want %s", c.name, got, c.wantLo)
		}
	}
	for _, bad := range []forward.Open{
		{},
		{Epochs: epochs("A0"), LogStart: 5, Next: 4},
		{Epochs: epochs("A0"), LogStart: -1, Next: 4},
		{Epochs: epochs("A5 B3"), Next: 4},
		{Epochs: epochs("A0 A3"), Next: 4},
		{Epochs: []forward.Epoch{{Start: -1}}, Next: 4},
		{Epochs: epochs("A0"), Source: forward.Source{Partition: -1}},
		{Epochs: make([]forward.Epoch, forward.MaxEpochs+1)},
	} {
		if _, _, err := openLane(nil, &bad); err == nil {
			t.Errorf("opened %+v", bad)
		}
	}
}

func TestAdmit(t *testing.T) {
	gap := func(e string, from, to int64) forward.Gap {
		return forward.Gap{Epoch: id(e), From: from, To: to, Reason: forward.GapLost}
	}
	for _, c := range []struct {
		name, core, edge string
		cursor           int64
		a                forward.Append
		code             forward.Code
		want             string // spans
		wantCursor       int64
	}{
		{"first", "", "A0", 0, forward.Append{Epoch: id("A"), First: 0, Last: 4}, forward.CodeOK, "A0-5", 5},
		{"next", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 5, Last: 5}, forward.CodeOK, "A5-6", 6},
		{"whole duplicate", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 0, Last: 4}, forward.CodeOK, "", 5},
		{"old duplicate", "A0-10 B10-20", "A0 B10", 20, forward.Append{Epoch: id("A"), First: 3, Last: 4}, forward.CodeOK, "", 20},
		{"half duplicate", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 4, Last: 6}, forward.CodeMismatch, "", 0},
		{"too far", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 6, Last: 6}, forward.CodeMismatch, "", 0},
		{"below what the epoch holds", "B10-20", "A0 B10", 20, forward.Append{Epoch: id("A"), First: 5, Last: 6}, forward.CodeMismatch, "", 0},
		{"next epoch", "A0-10", "A0 B10", 10, forward.Append{Epoch: id("B"), First: 10, Last: 12}, forward.CodeOK, "B10-13", 13},
		{"old epoch beyond its end", "A0-10", "A0 B10", 10, forward.Append{Epoch: id("A"), First: 10, Last: 12}, forward.CodeRefused, "", 0},
		{"across the border", "A0-8", "A0 B10", 8, forward.Append{Epoch: id("A"), First: 8, Last: 10}, forward.CodeRefused, "", 0},
		{"epoch before its start", "A0-8", "A0 B10", 8, forward.Append{Epoch: id("B"), First: 8, Last: 9}, forward.CodeRefused, "", 0},
		{"unknown epoch", "A0-8", "A0", 8, forward.Append{Epoch: id("Q"), First: 8, Last: 9}, forward.CodeReopen, "", 0},
		{"rewound offsets are new", "A0-10 B10-15", "A0 C8", 8, forward.Append{Epoch: id("C"), First: 8, Last: 9}, forward.CodeOK, "C8-10", 10},
		{"gap", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 8, Last: 9, Gaps: []forward.Gap{gap("A", 5, 8)}}, forward.CodeOK, "A5-8 A8-10", 10},
		{"gaps across epochs", "A0-5", "A0 B8", 5, forward.Append{Epoch: id("B"), First: 9, Last: 9,
			Gaps: []forward.Gap{gap("A", 5, 8), gap("B", 8, 9)}}, forward.CodeOK, "A5-8 B8-9 B9-10", 10},
		{"gap alone", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 8, Last: 7, Gaps: []forward.Gap{gap("A", 5, 8)}}, forward.CodeOK, "A5-8", 8},
		{"gap alone again", "A0-8", "A0", 8, forward.Append{Epoch: id("A"), First: 8, Last: 7, Gaps: []forward.Gap{gap("A", 5, 8)}}, forward.CodeOK, "", 8},
		{"gap not at the mark", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 8, Last: 9, Gaps: []forward.Gap{gap("A", 6, 8)}}, forward.CodeMismatch, "", 0},
		{"gap that ends early", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 8, Last: 9, Gaps: []forward.Gap{gap("A", 5, 7)}}, forward.CodeMismatch, "", 0},
		{"gaps with a hole", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 9, Last: 9,
			Gaps: []forward.Gap{gap("A", 5, 7), gap("A", 8, 9)}}, forward.CodeMismatch, "", 0},
		{"empty gap", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 5, Last: 5, Gaps: []forward.Gap{gap("A", 5, 5)}}, forward.CodeRefused, "", 0},
		{"gap across the border", "A0-5", "A0 B8", 5, forward.Append{Epoch: id("B"), First: 9, Last: 9, Gaps: []forward.Gap{gap("A", 5, 9)}}, forward.CodeRefused, "", 0},
		{"gap of unknown epoch", "A0-5", "A0", 5, forward.Append{Epoch: id("A"), First: 8, Last: 8, Gaps: []forward.Gap{gap("Q", 5, 8)}}, forward.CodeReopen, "", 0},
	} {
		src := &source{spans: spans(c.core)}
		v := admit(src, &lane{epochs: epochs(c.edge), cursor: c.cursor}, &c.a)
		if v.code != c.code || spansString(v.spans) != c.want && c.code == forward.CodeOK {
			t.Errorf("%s: %s %q (%s), want %s %q", c.name, v.code, spansString(v.spans), v.message, c.code, c.want)
		}
		if c.code == forward.CodeOK && v.cursor != c.wantCursor {
			t.Errorf("%s: cursor %d, want %d", c.name, v.cursor, c.wantCursor)
		}
		if got := spansString(src.spans); got != c.core {
			t.Errorf("%s: admit changed the source to %s", c.name, got)
		}
	}
	if v := admit(nil, nil, &forward.Append{}); v.code != forward.CodeReopen {
		t.Errorf("without a lane: %s", v.code)
	}
}

func TestSourceAdvance(t *testing.T) {
	s := &source{}
	for _, c := range []struct{ add, want string }{
		{"A0-5", "A0-5"},
		{"A5-9", "A0-9"},
		{"B9-12", "A0-9 B9-12"},
		{"A8-10", "B9-12 A0-10"},
		{"C1-2", "B9-12 A0-10 C1-2"},
		{"D1-2", "A0-10 C1-2 D1-2"}, // three are kept
	} {
		s.advance(spans(c.add)[0], 3)
		if got := spansString(s.spans); got != c.want {
			t.Errorf("after %s: %s, want %s", c.add, got, c.want)
		}
	}
	if got := position(s.mark()); got != "D2" {
		t.Errorf("mark %s", got)
	}
	if got := position((*source)(nil).mark()); got != "none" {
		t.Errorf("mark of nothing %s", got)
	}
	if spanLimit(1) != forward.MaxEpochs || spanLimit(1000) != 65 || spanLimit(maxSources) != 8 {
		t.Errorf("limits %d %d %d", spanLimit(1), spanLimit(1000), spanLimit(maxSources))
	}
}
