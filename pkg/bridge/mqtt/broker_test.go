package mqtt

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

func TestDevicePublishesAreStoredInOrder(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l, Site: "press-line-7", Routes: compile(t, route.Rule{
		Match: "plant/{line}/{device}/telemetry", Topic: "telemetry", Key: "{device}", Payload: "json",
		Time: route.TimeRule{Field: "ts", Format: "unix_ms"},
	})})
	d := dialDevice(t, b, DeviceOptions{ClientID: "press-3"})
	const n = 500
	var done []<-chan error
	for i := range n {
		done = append(done, d.Publish("plant/a/press-3/telemetry", fmt.Appendf(nil, `{"ts":%d,"temperature":%d}`, 1700000000000+int64(i), i), 1))
	}
	for _, c := range done {
		wait(t, c)
	}
	got := stored(t, l, "telemetry")
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, r := range got {
		if r.Timestamp != 1700000000000+int64(i) || string(r.Key) != "press-3" {
			t.Fatalf("record %d has time %d and key %q", i, r.Timestamp, r.Key)
		}
		for name, want := range map[string]string{"mqtt.topic": "plant/a/press-3/telemetry", "site": "press-line-7", "line": "a", "device": "press-3"} {
			if v, _ := r.Header(name); string(v) != want {
				t.Fatalf("header %s is %q, want %q", name, v, want)
			}
		}
	}
	waitStats(t, b, "end of the acks", func(s Stats) bool { return s.AcksSent == n })
	s := b.Stats()
	if s.Stored != n || s.Publishes[1] != n || s.HeldAcks != 0 {
		t.Errorf("stats: %+v", s)
	}
	if s.AckWrites > n/2 {
		t.Errorf("%d acks took %d writes", n, s.AckWrites)
	}
}

func TestListenInUseNamesTheAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Listen(Options{Log: openLog(t, log.Options{}), Plain: Entrance{Listen: ln.Addr().String()}})
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v does not name the address and what is wrong", err)
	}
}

func TestMissingTopicIsCreated(t *testing.T) {
	l := openLog(t, log.Options{JournalBytes: 64 << 20})
	b, err := Listen(Options{Log: l, Plain: Entrance{Listen: "127.0.0.1:0", AllowAnonymous: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	publish := func() {
		t.Helper()
		d := dialDevice(t, b, DeviceOptions{ClientID: "d"})
		wait(t, d.Publish("a", nil, 1))
	}
	publish()
	info, err := l.Topic(route.DefaultTopic)
	if err != nil || info.Config != record.DefaultTopicConfig() {
		t.Errorf("topic %+v, %v", info, err)
	}
	// Deleted while the broker knows it, it is made anew.
	if err := l.DeleteTopic(route.DefaultTopic); err != nil {
		t.Fatal(err)
	}
	publish()
	if got := len(stored(t, l, route.DefaultTopic)); got != 1 {
		t.Errorf("%d records, want 1", got)
	}
}

func TestAnonymousIsRefusedUnlessAllowed(t *testing.T) {
	l := openLog(t, log.Options{JournalBytes: 64 << 20})
	b, err := Listen(Options{Log: l, Plain: Entrance{Listen: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w := dialWire(t, b)
	w.send(connectPacket("c", 4, true))
	if p := w.read(); p[0] != typeConnack<<4 || p[3] == 0 {
		t.Errorf("got % x, want a CONNACK that refuses", p)
	}
	w.ended()
}
