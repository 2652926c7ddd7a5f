package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/vfs"
	"edgehub/pkg/route"
)

// disk is a log's file system whose journal syncs can be held, delayed or
// failed.
type disk struct {
	*vfs.Fault
	mu   sync.Mutex
	gate chan struct{} // not nil: syncs wait until it is closed
	fail error
	slow time.Duration
}

func newDisk() *disk {
	d := &disk{}
	d.Fault = vfs.NewFault(vfs.OS(), func(op vfs.Op) error {
		if op.Kind != vfs.OpSync || !strings.Contains(op.Path, "journal") {
			return nil
		}
		d.mu.Lock()
		gate, fail, slow := d.gate, d.fail, d.slow
		d.mu.Unlock()
		if gate != nil {
			<-gate
		}
		time.Sleep(slow)
		return fail
	})
	return d
}

// hold makes syncs wait until the returned function is called.
func (d *disk) hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate = gate
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.gate = nil
		d.mu.Unlock()
		close(gate)
	})
}

func (d *disk) set(fail error, slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.slow = fail, slow
}

func brokerOn(t *testing.T, d *disk) (*Broker, *log.Log) {
	t.Helper()
	l := openLog(t, log.Options{FS: d})
	return startBroker(t, Options{Log: l}), l
}

const silence = 150 * time.Millisecond

// P1: a PUBACK or PUBREC means on disk.
func TestNoAckBeforeDurable(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("version %d QoS %d", version, qos), func(t *testing.T) {
				d := newDisk()
				b, l := brokerOn(t, d)
				w := dialWire(t, b).connect("c", version, true)
				release := d.hold()
				defer release()
				for i := range 10 {
					w.send(publishPacket(version, "a", qos, false, uint16(i+1), []byte("x")))
				}
				w.silent(silence)
				// The connection lives on meanwhile.
				w.send([]byte{0xc0, 0})
				if p := w.read(); p[0] != 0xd0 {
					t.Fatalf("answer to PINGREQ: % x", p)
				}
				if s := b.Stats(); s.HeldAcks != 10 {
					t.Errorf("%d acks are held, want 10", s.HeldAcks)
				}
				if got := stored(t, l, route.DefaultTopic); len(got) != 0 {
					t.Errorf("%d records are visible before they are durable", len(got))
				}
				release()
				for i := range 10 {
					if p := w.read(); p[0] != (typePuback+qos-1)<<4 || int(p[3]) != i+1 {
						t.Fatalf("ack %d is % x", i+1, p)
					}
				}
				if got := stored(t, l, route.DefaultTopic); len(got) != 10 {
					t.Errorf("%d records, want 10", len(got))
				}
			})
		}
	}
}

func TestPipeliningTakesFewCommits(t *testing.T) {
	d := newDisk()
	b, l := brokerOn(t, d)
	dev := dialDevice(t, b, DeviceOptions{ClientID: "d"})
	wait(t, dev.Publish("a", []byte("first"), 1))
	d.set(nil, 30*time.Millisecond)
	before := d.Count(vfs.OpSync)
	const n = 1000
	start := time.Now()
	var done []<-chan error
	for i := range n {
		done = append(done, dev.Publish("a", fmt.Append(nil, i), 1))
	}
	for _, c := range done {
		wait(t, c)
	}
	took, syncs := time.Since(start), d.Count(vfs.OpSync)-before
	if syncs > 100 {
		t.Errorf("%d publishes in flight took %d syncs", n, syncs)
	}
	if took < 30*time.Millisecond {
		t.Errorf("all acknowledged after %v, which is before the first sync", took)
	}
	t.Logf("%d publishes: %d syncs, %v", n, syncs, took)
	checkSequence(t, stored(t, l, route.DefaultTopic)[1:], n)
}

func TestRefusalsWaitForTheirTurn(t *testing.T) {
	d := newDisk()
	l := openLog(t, log.Options{FS: d})
	createTopic(t, l, route.DefaultTopic, 1024)
	b := startBroker(t, Options{Log: l})
	w := dialWire(t, b).connect("c", 5, true)
	release := d.hold()
	defer release()
	w.send(publishPacket(5, "a", 1, false, 1, nil))
	w.send(publishPacket(5, "a", 1, false, 2, make([]byte, 2000)))
	w.send(publishPacket(5, "a", 1, false, 3, nil))
	w.silent(silence)
	release()
	for i := range 3 {
		if p := w.read(); int(p[3]) != i+1 || (len(p) > 4 && p[4] >= 0x80) != (i == 1) {
			t.Fatalf("ack %d is % x", i+1, p)
		}
	}
}

func TestFailedLogAcknowledgesNothing(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			d := newDisk()
			b, l := brokerOn(t, d)
			w := dialWire(t, b).connect("c", version, true)
			other := dialWire(t, b).connect("other", version, true)
			d.set(errors.New("input/output error"), 0)
			w.send(publishPacket(version, "a", 1, false, 1, nil))
			w.ended()
			select {
			case <-l.Failed():
			case <-time.After(patience):
				t.Fatal("the log has not failed")
			}
			d.set(nil, 0) // a later sync that passes proves nothing
			other.send(publishPacket(version, "a", 1, false, 1, nil))
			if version == 5 {
				if p := other.read(); p[0] != typeDisconnect<<4 || p[2] != 0x83 {
					t.Errorf("got % x, want DISCONNECT 0x83", p)
				}
			}
			other.ended()
			w = dialWire(t, b)
			w.send(connectPacket("again", version, true))
			if p := w.read(); p[0] != typeConnack<<4 || p[3] != map[byte]byte{4: 3, 5: 0x88}[version] {
				t.Errorf("got % x, want a CONNACK that refuses", p)
			}
			if s := b.Stats(); s.AcksSent != 0 || s.HeldAcks != 0 {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}

// A session that is taken over has its PUBREC sent again on the new
// connection, while the record may not be on disk yet.
func TestInheritedPubrecWaits(t *testing.T) {
	d := newDisk()
	b, _ := brokerOn(t, d)
	w := dialWire(t, b).connect("taken", 4, false)
	release := d.hold()
	defer release()
	w.send(publishPacket(4, "a", 2, false, 7, []byte("x")))
	waitStats(t, b, "record", func(s Stats) bool { return s.HeldAcks == 1 })
	w2 := dialWire(t, b)
	w2.send(connectPacket("taken", 4, false))
	if p := w2.read(); p[0] != typeConnack<<4 || p[2] != 1 {
		t.Fatalf("CONNACK % x", p)
	}
	w.ended()
	w2.silent(silence)
	w2.send(publishPacket(4, "a", 2, true, 7, []byte("x")))
	w2.silent(silence)
	release()
	for range 2 {
		if p := w2.read(); p[0] != typePubrec<<4 || p[3] != 7 {
			t.Fatalf("got % x, want PUBREC 7", p)
		}
	}
}

func TestTooManyHeldAcksStopTheirReaderOnly(t *testing.T) {
	d := newDisk()
	b, _ := brokerOn(t, d)
	greedy := dialWire(t, b).connect("greedy", 4, true)
	modest := dialWire(t, b).connect("modest", 4, true)
	release := d.hold()
	defer release()
	const n = maxHeld + 500
	var stream []byte
	for i := range n {
		stream = append(stream, publishPacket(4, "a", 1, false, uint16(i+1), nil)...)
	}
	greedy.send(stream)
	waitStats(t, b, "back-pressure", func(s Stats) bool { return s.HeldAcks == maxHeld })
	modest.send(publishPacket(4, "b", 1, false, 1, nil))
	waitStats(t, b, "room for another device", func(s Stats) bool { return s.HeldAcks == maxHeld+1 })
	release()
	for i := range n {
		if p := greedy.read(); p[0] != typePuback<<4 || int(p[2])<<8|int(p[3]) != i+1 {
			t.Fatalf("ack %d is % x", i+1, p)
		}
	}
	if p := modest.read(); p[0] != typePuback<<4 {
		t.Fatalf("got % x", p)
	}
}

// deaf connects a device that publishes and never reads, until the broker
// reads no more from it.
func deaf(t *testing.T, b *Broker, id string) *wire {
	t.Helper()
	w := dialWire(t, b)
	if err := w.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	w.connect(id, 5, true)
	for _, c := range connections(b) {
		// One that was taken over may be closed by now.
		if err := c.Conn.(*net.TCPConn).SetWriteBuffer(4096); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	held := b.Stats().HeldAcks
	var writer sync.WaitGroup
	writer.Go(func() {
		var stream []byte
		for i := range 1000 {
			stream = append(stream, publishPacket(5, "a", 1, false, uint16(i+1), nil)...)
		}
		for { // until the connection is closed
			if _, err := w.Write(stream); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = w.Close()
		writer.Wait()
	})
	waitStats(t, b, "back-pressure", func(s Stats) bool { return s.HeldAcks >= held+maxHeld })
	return w
}

func TestDeviceThatDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	b := startBroker(t, Options{})
	deaf(t, b, "deaf")
	good := dialDevice(t, b, DeviceOptions{ClientID: "good"})
	for range 20 {
		wait(t, good.Publish("b", nil, 1))
	}
	if s := b.Stats(); s.HeldAcks > maxHeld+20 {
		t.Errorf("%d acks are held", s.HeldAcks)
	}
	// It comes back while its old connection hangs in a write.
	start := time.Now()
	dialWire(t, b).connect("deaf", 5, true)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the second connection had to wait for %v", d)
	}
	waitStats(t, b, "release of the acks", func(s Stats) bool { return s.HeldAcks == 0 })
	// Nor does it hold up the end.
	deaf(t, b, "another")
	start = time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// A subscriber that reads nothing gets what its socket and its queue take; who
// publishes to it, and the acks of that, do not wait for it.
func TestSubscriberThatDoesNotReadHoldsUpNobody(t *testing.T) {
	b := startBroker(t, Options{})
	stuck := dialWire(t, b).connect("stuck", 4, true)
	stuck.send(packet(0x82, []byte{0, 1}, text("s/#"), []byte{1}))
	if p := stuck.read(); p[0] != 0x90 {
		t.Fatalf("answer to SUBSCRIBE: % x", p)
	}
	for _, c := range connections(b) {
		if err := c.Conn.(*net.TCPConn).SetWriteBuffer(4096); err != nil {
			t.Fatal(err)
		}
	}
	w := dialWire(t, b).connect("w", 4, true)
	payload := make([]byte, 20_000)
	for i := range 600 { // 12 MB: more than sockets hold
		w.send(publishPacket(4, "s/x", 1, false, uint16(i+1), payload))
		start := time.Now()
		if p := w.read(); p[0] != typePuback<<4 {
			t.Fatalf("answer %d: % x", i, p)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Fatalf("ack %d took %v", i, d)
		}
	}
	if s := b.Stats(); s.Undelivered == 0 {
		t.Error("all was delivered: the subscriber was not slow")
	}
	// It comes back at once, and the publisher goes on.
	start := time.Now()
	dialWire(t, b).connect("stuck", 4, true)
	w.send(publishPacket(4, "s/x", 1, false, 1, nil))
	w.read()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it came back after %v", d)
	}
}

// A device that only asks and never reads the answers costs no memory.
func TestAnswersThatNobodyReadsStopTheirReader(t *testing.T) {
	b := startBroker(t, Options{})
	w := dialWire(t, b)
	if err := w.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	w.connect("w", 4, true)
	c := connections(b)[0]
	if err := c.Conn.(*net.TCPConn).SetWriteBuffer(4096); err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		pings := bytes.Repeat([]byte{0xc0, 0}, 8<<10)
		for { // until the connection is closed
			if _, err := w.Write(pings); err != nil {
				return
			}
		}
	})
	defer writer.Wait()
	defer w.Close()
	unsent := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.unsent
	}
	waitStats(t, b, "back-pressure", func(Stats) bool { return unsent() >= maxUnsent })
	time.Sleep(50 * time.Millisecond)
	if n := unsent(); n > maxUnsent+100 {
		t.Errorf("%d bytes wait for the device, the bound is %d", n, maxUnsent)
	}
}

func TestKeepAlive(t *testing.T) {
	b := startBroker(t, Options{})
	dead := dialWire(t, b)
	p := connectPacket("dead", 4, true)
	p[11] = 1 // keep-alive of a second
	start := time.Now()
	dead.send(p)
	dead.read()
	quiet := dialWire(t, b).connect("quiet", 4, true) // keep-alive 0
	dead.ended()
	if d := time.Since(start); d < 1500*time.Millisecond || d > 5*time.Second {
		t.Errorf("a silent device with keep-alive 1 s was closed after %v", d)
	}
	quiet.send([]byte{0xc0, 0})
	if p := quiet.read(); p[0] != 0xd0 {
		t.Errorf("got % x", p)
	}
}

// Devices come and go while acks are pending; nothing is left behind and the
// log agrees with what was acknowledged.
func TestConnectionsCutWithAcksPending(t *testing.T) {
	d := newDisk()
	b, l := brokerOn(t, d)
	d.set(nil, 2*time.Millisecond)
	var devices sync.WaitGroup
	var mu sync.Mutex
	acked := make(map[string]bool)
	for dev := range 8 {
		devices.Go(func() {
			for round := range 6 {
				w := dialWire(t, b).connect(fmt.Sprint("dev", dev), 4, false)
				for i := range 40 {
					w.send(publishPacket(4, fmt.Sprintf("%d/%d/%d", dev, round, i), 1+byte(i%2), false, uint16(round*100+i+1), nil))
				}
				for range round * 7 {
					p, err := w.next(patience)
					if err != nil {
						t.Error(err)
						return
					}
					if k := p[0] >> 4; k != typePuback && k != typePubrec {
						continue
					}
					id := int(p[2])<<8 | int(p[3]) - 1
					mu.Lock()
					acked[fmt.Sprintf("%d/%d/%d", dev, id/100, id%100)] = true
					mu.Unlock()
				}
				_ = w.Close()
			}
		})
	}
	devices.Wait()
	waitStats(t, b, "end of the connections", func(s Stats) bool { return s.Connections == 0 && s.HeldAcks == 0 })
	have := make(map[string]bool)
	for _, r := range stored(t, l, route.DefaultTopic) {
		have[string(r.Key)] = true
	}
	for topic := range acked {
		if !have[topic] {
			t.Errorf("%s was acknowledged and is not in the log", topic)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
}
