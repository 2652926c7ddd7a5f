package mqtt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

func openLog(t testing.TB, o log.Options) *log.Log {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.JournalBytes == 0 {
		o.JournalBytes = 8 << 20
	}
	l, err := log.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func startBroker(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.Log == nil {
		o.Log = openLog(t, log.Options{})
	}
	if o.Plain.Listen == "" {
		o.Plain = Entrance{Listen: "127.0.0.1:0", AllowAnonymous: true}
	}
	if o.EnsureTopic == nil { // a small journal takes no large messages
		o.EnsureTopic = func(name string) error {
			c := record.DefaultTopicConfig()
			c.MaxMessageBytes = 256 << 10
			if _, err := o.Log.CreateTopic(name, c); !errors.Is(err, record.ErrTopicExists) {
				return err
			}
			return nil
		}
	}
	b, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func compile(t testing.TB, rules ...route.Rule) *route.Table {
	t.Helper()
	table, err := route.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// stored reads all durable records of a log topic, partition after partition.
func stored(t testing.TB, l *log.Log, topic string) []record.Record {
	t.Helper()
	info, err := l.Topic(topic)
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Record
	for i := range info.Config.Partitions {
		p, err := l.Partition(topic, i)
		if err != nil {
			t.Fatal(err)
		}
		for at := p.Offsets().LogStart; at < p.Offsets().HighWatermark; {
			f, err := p.Fetch(at, 1<<20, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Batches) == 0 {
				t.Fatalf("%s/%d: nothing at offset %d below the high watermark %d", topic, i, at, f.HighWatermark)
			}
			_, err = record.Batches(f.Batches, func(_ record.Header, raw []byte) error {
				return record.Records(raw, func(r *record.Record) error {
					if r.Offset < at {
						return nil
					}
					if r.Offset != at {
						t.Fatalf("%s/%d: offset %d where %d was expected", topic, i, r.Offset, at)
					}
					at++
					c := record.Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: append([]byte(nil), r.Key...), Value: append([]byte(nil), r.Value...)}
					for _, h := range r.Headers {
						c.Headers = append(c.Headers, record.Field{Key: h.Key, Value: append([]byte(nil), h.Value...)})
					}
					out = append(out, c)
					return nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// waitStats waits until the broker's statistics are as they should be.
func waitStats(t testing.TB, b *Broker, what string, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(b.Stats()); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s: %+v", what, b.Stats())
		}
	}
}

// wire is a device on a bare socket.
type wire struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialWire(t testing.TB, b *Broker) *wire {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &wire{t, c, bufio.NewReader(c)}
}

// connect says CONNECT and reads CONNACK.
func (w *wire) connect(id string, version byte, clean bool) *wire {
	w.t.Helper()
	w.send(connectPacket(id, version, clean))
	p := w.read()
	if p[0] != typeConnack<<4 || p[3] != 0 {
		w.t.Fatalf("answer to CONNECT: % x", p)
	}
	return w
}

func (w *wire) send(p []byte) {
	w.t.Helper()
	_ = w.SetWriteDeadline(time.Now().Add(patience))
	if _, err := w.Write(p); err != nil {
		w.t.Fatal(err)
	}
}

// next reads one packet with its fixed header.
func (w *wire) next(patience time.Duration) ([]byte, error) {
	_ = w.SetReadDeadline(time.Now().Add(patience))
	first, err := w.r.ReadByte()
	if err != nil {
		return nil, err
	}
	p, n := []byte{first}, 0
	for shift := 0; ; shift += 7 {
		c, err := w.r.ReadByte()
		if err != nil {
			return nil, err
		}
		p = append(p, c)
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	b := make([]byte, n)
	_, err = io.ReadFull(w.r, b)
	return append(p, b...), err
}

func (w *wire) read() []byte {
	w.t.Helper()
	p, err := w.next(patience)
	if err != nil {
		w.t.Fatalf("read a packet: %v", err)
	}
	return p
}

// silent checks that nothing comes for a while.
func (w *wire) silent(d time.Duration) {
	w.t.Helper()
	if p, err := w.next(d); err == nil {
		w.t.Fatalf("got % x, want nothing", p)
	} else if e, ok := err.(net.Error); !ok || !e.Timeout() {
		w.t.Fatalf("got %v, want nothing", err)
	}
}

// ended checks that the broker ends the connection, without another packet.
func (w *wire) ended() {
	w.t.Helper()
	if p, err := w.next(patience); err == nil {
		w.t.Fatalf("got % x, want the end", p)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		w.t.Fatal("the connection is still open")
	}
}

func text(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

func packet(first byte, body ...[]byte) []byte {
	var b []byte
	for _, part := range body {
		b = append(b, part...)
	}
	p := []byte{first}
	n := len(b)
	for n >= 0x80 {
		p = append(p, byte(n)|0x80)
		n >>= 7
	}
	return append(append(p, byte(n)), b...)
}

func connectPacket(id string, version byte, clean bool) []byte {
	flags := byte(0)
	if clean {
		flags = 2
	}
	parts := [][]byte{text("MQTT"), {version, flags, 0, 0}}
	if version == 5 {
		props := []byte{0}
		if !clean {
			props = []byte{5, 0x11, 0, 0, 0x10, 0} // session expiry
		}
		parts = append(parts, props)
	}
	return packet(typeConnect<<4, append(parts, text(id))...)
}

func publishPacket(version byte, topic string, qos byte, dup bool, id uint16, payload []byte) []byte {
	first := byte(typePublish<<4) | qos<<1
	if dup {
		first |= 8
	}
	parts := [][]byte{text(topic)}
	if qos > 0 {
		parts = append(parts, []byte{byte(id >> 8), byte(id)})
	}
	if version == 5 {
		parts = append(parts, []byte{0})
	}
	return packet(first, append(parts, payload)...)
}

func dialDevice(t testing.TB, b *Broker, o DeviceOptions) *Device {
	t.Helper()
	o.Server = b.Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func wait(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("no acknowledgement")
	}
}

func createTopic(t testing.TB, l *log.Log, name string, maxBytes int32) {
	t.Helper()
	c := record.DefaultTopicConfig()
	c.MaxMessageBytes = maxBytes
	if _, err := l.CreateTopic(name, c); err != nil {
		t.Fatal(err)
	}
}
