package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// publisher is a pipelining MQTT 3.1.1 client on a raw socket that knows which
// of its messages were acknowledged. Payloads are numbered by the caller.
type publisher struct {
	conn net.Conn
	r    *bufio.Reader

	mu     sync.Mutex
	sent   map[uint16]int // packet id → message number
	acked  []int
	nextID uint16
}

// dialMQTT connects; it retries until the broker answers or within is over.
func dialMQTT(addr, clientID string, within time.Duration) (*publisher, error) {
	var last error
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			last = err
			continue
		}
		p := &publisher{conn: c, r: bufio.NewReader(c), sent: map[uint16]int{}}
		body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60}, mqttString(clientID)...)
		if _, err := c.Write(packet(0x10, body)); err != nil {
			last = err
			c.Close()
			continue
		}
		kind, b, err := p.read()
		if err != nil || kind != 0x20 || len(b) != 2 || b[1] != 0 {
			last = fmt.Errorf("CONNACK %x %x: %v", kind, b, err)
			c.Close()
			continue
		}
		return p, nil
	}
	return nil, last
}

func mqttString(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func packet(head byte, body []byte) []byte {
	b := []byte{head}
	n := len(body)
	for {
		d := byte(n & 0x7f)
		n >>= 7
		if n > 0 {
			d |= 0x80
		}
		b = append(b, d)
		if n == 0 {
			return append(b, body...)
		}
	}
}

func (p *publisher) read() (byte, []byte, error) {
	head, err := p.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(p.r)
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(p.r, b)
	return head, b, err
}

// publish sends message number n at QoS 1 without waiting.
func (p *publisher) publish(topic string, n int, payload string) error {
	p.mu.Lock()
	for {
		p.nextID++
		if _, used := p.sent[p.nextID]; p.nextID != 0 && !used {
			break
		}
	}
	id := p.nextID
	p.sent[id] = n
	p.mu.Unlock()
	body := append(mqttString(topic), byte(id>>8), byte(id))
	_, err := p.conn.Write(packet(0x32, append(body, payload...)))
	return err
}

// acks reads PUBACKs until the connection ends or count came; it returns how
// many came.
func (p *publisher) acks(count int) (int, error) {
	for got := 0; got < count; {
		kind, b, err := p.read()
		if err != nil {
			return got, err
		}
		if kind != 0x40 {
			continue
		}
		id := binary.BigEndian.Uint16(b)
		p.mu.Lock()
		n, ok := p.sent[id]
		delete(p.sent, id)
		if ok {
			p.acked = append(p.acked, n)
		}
		p.mu.Unlock()
		if !ok {
			return got, fmt.Errorf("PUBACK %d was not asked for", id)
		}
		got++
	}
	return count, nil
}

func (p *publisher) ackedNumbers() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]int(nil), p.acked...)
}

// publishAll publishes payloads to topic and waits for every PUBACK.
func publishAll(t *testing.T, addr, clientID, topic string, payloads []string) {
	t.Helper()
	p, err := dialMQTT(addr, clientID, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer p.conn.Close()
	done := make(chan error, 1)
	go func() {
		for i, s := range payloads {
			if err := p.publish(topic, i, s); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	p.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := p.acks(len(payloads)); err != nil {
		t.Fatalf("%d of %d acknowledged: %v", n, len(payloads), err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
