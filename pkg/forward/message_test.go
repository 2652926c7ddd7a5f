package forward

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// kinds are a zero value per kind, for decoding into.
func kinds() map[Kind]func() any {
	return map[Kind]func() any{
		KindHello:      func() any { return new(Hello) },
		KindHelloReply: func() any { return new(HelloReply) },
		KindOpen:       func() any { return new(Open) },
		KindAppend:     func() any { return new(Append) },
		KindReply:      func() any { return new(Reply) },
	}
}

func id(b byte) (out [16]byte) {
	for i := range out {
		out[i] = b + byte(i)
	}
	return out
}

// examples are one full message of each kind.
func examples() []struct {
	name    string
	kind    Kind
	control any
	batches []byte
} {
	src := Source{Site: "press-line-7", Log: id(1), Topic: id(2), Partition: 3}
	return []struct {
		name    string
		kind    Kind
		control any
		batches []byte
	}{
		{"hello", KindHello, &Hello{Site: "press-line-7", Log: id(1), Topics: []HelloTopic{{Name: "telemetry", ID: id(2), Partitions: 4}, {Name: "alarms", ID: id(3), Partitions: 1}}}, nil},
		{"hello-reply", KindHelloReply, &HelloReply{Core: "core", Routes: []TopicRoute{{Name: "telemetry", ID: id(4), Map: []int32{0, 1, 2, 3}}, {Code: CodeRefused, Message: "no", Name: "alarms"}}}, nil},
		{"open", KindOpen, &Open{Source: src, Epochs: []Epoch{{Number: 0, ID: id(5), Start: 0}, {Number: 7, ID: id(6), Start: 1 << 40}}, LogStart: 12, Next: 1<<40 + 5}, nil},
		{"append", KindAppend, &Append{Source: src, Epoch: id(6), First: 1 << 40, Last: 1<<40 + 4, Gaps: []Gap{{Epoch: id(5), From: 12, To: 1 << 40, Reason: GapRetention}}}, []byte("batches")},
		{"reply", KindReply, &Reply{Code: CodeMismatch, Message: "offset 5, due was 4", Mark: Position{Epoch: id(6), Next: 4}, Resume: Position{Epoch: id(6), Next: 4}, Window: 1 << 20}, nil},
	}
}

// The bytes are those of testdata: peers of other builds read them.
func TestWire(t *testing.T) {
	for _, e := range examples() {
		t.Run(e.name, func(t *testing.T) {
			b, err := Encode(nil, e.kind, e.control, e.batches)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", e.name+".hex")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
				t.Errorf("bytes\n%s\nwant\n%s", got, want)
			}
			got := kinds()[e.kind]()
			batches, err := Decode(b, e.kind, got)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, e.control); d != "" || !bytes.Equal(batches, e.batches) {
				t.Errorf("batches %q; %s", batches, d)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	good, err := Encode(nil, KindReply, &Reply{Window: 5})
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"cut in the prefix", good[:5], ErrMalformed},
		{"cut in the control", good[:len(good)-1], ErrMalformed},
		{"another version", with(func(b []byte) []byte { b[0]++; return b }), ErrVersion},
		{"another kind", with(func(b []byte) []byte { b[1] = byte(KindOpen); return b }), ErrMalformed},
		{"a length beyond the message", with(func(b []byte) []byte { b[2] = 0xff; return b }), ErrMalformed},
		{"a length beyond the limit", append([]byte{Version, byte(KindReply), 0, 4, 0, 1}, make([]byte, MaxControlBytes+1)...), ErrMalformed},
		{"no CBOR", with(func(b []byte) []byte { b[6] = 0xff; return b }), ErrMalformed},
		{"a huge array", []byte{Version, byte(KindReply), 0, 0, 0, 9, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Decode(c.b, KindReply, new(Reply)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if _, err := Encode(nil, KindHello, &Hello{Site: strings.Repeat("x", MaxControlBytes)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("too much control: %v", err)
	}
}

// The largest messages that the limits allow fit.
func TestLimitsFit(t *testing.T) {
	name := strings.Repeat("n", record.MaxTopicName)
	hello := Hello{Site: strings.Repeat("s", MaxSiteName)}
	reply := HelloReply{}
	for range MaxTopics / 2 { // names of full length; all topics with usual ones fit as well
		hello.Topics = append(hello.Topics, HelloTopic{Name: name, ID: id(1), Partitions: record.MaxPartitions})
		reply.Routes = append(reply.Routes, TopicRoute{Name: name, ID: id(1), Map: make([]int32, 64)})
	}
	open := Open{Source: Source{Site: hello.Site}}
	for i := range MaxEpochs {
		open.Epochs = append(open.Epochs, Epoch{Number: 1 << 30, ID: id(byte(i)), Start: 1 << 60})
	}
	for k, v := range map[Kind]any{KindHello: &hello, KindHelloReply: &reply, KindOpen: &open} {
		b, err := Encode(nil, k, v)
		if err != nil {
			t.Fatalf("kind %d: %v", k, err)
		}
		if _, err := Decode(b, k, kinds()[k]()); err != nil {
			t.Errorf("kind %d: %v", k, err)
		}
	}
}

// No input makes Decode panic or take what it does not write itself.
func FuzzDecode(f *testing.F) {
	for _, e := range examples() {
		b, err := Encode(nil, e.kind, e.control, e.batches)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{Version, byte(KindReply), 0, 0, 0, 1, 0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for k, zero := range kinds() {
			v := zero()
			batches, err := Decode(b, k, v)
			if err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrVersion) {
					t.Fatalf("error %v is neither", err)
				}
				continue
			}
			if got, err := KindOf(b); err != nil || got != k {
				t.Fatalf("kind %d decodes as %d, %v", got, k, err)
			}
			again, err := Encode(nil, k, v, batches)
			if err != nil {
				// What a peer packed tighter than we do may not fit again.
				continue
			}
			w := zero()
			rest, err := Decode(again, k, w)
			if err != nil || !bytes.Equal(rest, batches) {
				t.Fatalf("encoded again: %v", err)
			}
			twice, err := Encode(nil, k, w, rest)
			if err != nil || !bytes.Equal(again, twice) {
				t.Fatalf("not stable: %x, then %x, %v", again, twice, err)
			}
		}
	})
}

func TestSubjects(t *testing.T) {
	lane := LaneSubject("press-line-7", record.TopicID(id(1)), 12)
	if want := "up.press-line-7.0102030405060708090a0b0c0d0e0f10.12"; lane != want {
		t.Errorf("lane subject %s, want %s", lane, want)
	}
	if want := "up.*.0102030405060708090a0b0c0d0e0f10.12"; LaneWildcard(record.TopicID(id(1)), 12) != want {
		t.Errorf("wildcard %s", LaneWildcard(record.TopicID(id(1)), 12))
	}
	for subject, want := range map[string]string{
		lane: "press-line-7", HelloSubject("a"): "a", "up.": "", "up": "", "": "", "up.a": "", "down.a.hello": "", "up..hello": "",
	} {
		if got := SiteOf(subject); got != want {
			t.Errorf("site of %q is %q, want %q", subject, got, want)
		}
	}
	for site, ok := range map[string]bool{
		"press-line-7": true, "A_z-09": true, strings.Repeat("x", MaxSiteName): true,
		"": false, "a.b": false, "a b": false, "a*": false, ">": false, "ü": false, strings.Repeat("x", MaxSiteName+1): false,
	} {
		if err := CheckSite(site); (err == nil) != ok {
			t.Errorf("site %q: %v", site, err)
		}
	}
	if s := CodeNoLeader.String(); s != "no leader" || Code(99).String() != "code 99" {
		t.Errorf("codes %s, %s", s, Code(99))
	}
}
