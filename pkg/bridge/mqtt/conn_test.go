package mqtt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pipeConn is a conn whose device is the other end of a pipe.
func pipeConn(t *testing.T, b *Broker) (*conn, net.Conn) {
	t.Helper()
	inner, device := net.Pipe()
	c := newConn(b, inner)
	t.Cleanup(func() {
		_ = c.Close()
		_ = device.Close()
	})
	_ = device.SetDeadline(time.Now().Add(patience))
	return c, device
}

// written is what the device gets when the engine writes p.
func written(t *testing.T, c *conn, device net.Conn, p []byte, n int) []byte {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(p)
		done <- err
	}()
	got := make([]byte, n)
	if _, err := io.ReadFull(device, got); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWriteOfSeveralPackets(t *testing.T) {
	b := startBroker(t, Options{})
	c, device := pipeConn(t, b)
	c.version.Store(4)
	c.established.Store(true)
	connack, pub, ping := []byte{0x20, 2, 0, 0}, publishPacket(4, "a", 0, false, 0, []byte("x")), []byte{0xd0, 0}
	puback, pubrec, goodbye := []byte{0x40, 2, 0, 1}, []byte{0x50, 2, 0, 2}, []byte{0xe0, 0}
	got := written(t, c, device, bytes.Join([][]byte{connack, pub, goodbye, ping}, nil), len(connack)+len(pub)+len(ping))
	if want := bytes.Join([][]byte{connack, pub, ping}, nil); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x: all but DISCONNECT, which MQTT 3.1.1 brokers do not say", got, want)
	}
	// Acks may be overtaken, but keep their order.
	got = written(t, c, device, bytes.Join([][]byte{puback, pub, pubrec, ping}, nil), len(puback)+len(pub)+len(pubrec)+len(ping))
	if p, r := bytes.Index(got, puback), bytes.Index(got, pubrec); p < 0 || r < p || !bytes.Contains(got, pub) || !bytes.Contains(got, ping) {
		t.Errorf("got % x", got)
	}
}

func TestPubackOfALostConnectionIsNotSent(t *testing.T) {
	b := startBroker(t, Options{})
	c, device := pipeConn(t, b)
	got := written(t, c, device, []byte{0x40, 2, 0, 1, 0x50, 2, 0, 2}, 4)
	if !bytes.Equal(got, []byte{0x50, 2, 0, 2}) {
		t.Errorf("got % x, want the PUBREC only", got)
	}
}

func TestPartialPacketEndsTheConnection(t *testing.T) {
	b := startBroker(t, Options{})
	for _, p := range [][]byte{{0x40}, {0x40, 2, 0}, {0x40, 0x80}, {0x40, 1, 0}, {0x30, 0x80, 0x80, 0x80, 0x80, 1}} {
		c, _ := pipeConn(t, b)
		c.established.Store(true)
		if _, err := c.Write(p); err == nil {
			t.Errorf("% x was accepted", p)
		}
		if _, err := c.Write([]byte{0x40, 2, 0, 1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after % x the connection is open: %v", p, err)
		}
	}
}

func TestReadStopsBeforeABadPacket(t *testing.T) {
	b := startBroker(t, Options{MaxPacket: 1000})
	for name, bad := range map[string][]byte{
		"too large":      {0x30, 0xff, 0xff, 0x03},
		"endless length": {0x30, 0x80, 0x80, 0x80, 0x80},
	} {
		good := append(connectPacket("c", 4, true), publishPacket(4, "a", 1, false, 1, nil)...)
		for _, every := range []int{1, 3, 1000} {
			c, device := pipeConn(t, b)
			go func() {
				for p := append(bytes.Clone(good), bad...); len(p) > 0; {
					n := min(every, len(p))
					if _, err := device.Write(p[:n]); err != nil {
						return
					}
					p = p[n:]
				}
			}()
			got, err := io.ReadAll(c)
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			// Of the bad packet at most its header may have passed.
			if !bytes.HasPrefix(got, good) || len(got) > len(good)+4 {
				t.Errorf("%s, %d bytes at a time: the engine saw % x, want % x", name, every, got, good)
			}
		}
	}
}
