package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// load publishes at QoS 1 from conns connections with at most window messages
// of size bytes unacknowledged on each, for as long as d, and returns how many
// were acknowledged. Packets are built once and patched; a connection is two
// goroutines with one buffer each, so that the generator costs little.
func load(addr string, conns, window, size int, d time.Duration) (acked int64, err error) {
	var total atomic.Int64
	errs := make(chan error, conns)
	stop := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			n, err := publish(addr, fmt.Sprintf("bench-%d", i), window, size, stop)
			total.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err = <-errs:
	default:
	}
	return total.Load(), err
}

func publish(addr, id string, window, size int, stop time.Time) (int64, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, byte(len(id))}, id...)
	if _, err := c.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(c, 16<<10)
	var ack [4]byte
	if err := readFull(r, ack[:]); err != nil || ack[0] != 0x20 || ack[3] != 0 {
		return 0, fmt.Errorf("CONNACK % x: %v", ack, err)
	}
	topic := "bench/" + id
	length := 2 + len(topic) + 2 + size
	packet := []byte{0x32, byte(length)&0x7f | 0x80, byte(length >> 7), 0, byte(len(topic))}
	packet = append(packet, topic...)
	at := len(packet)
	packet = append(packet, 0, 0)
	for i := range size { // digits, as sensors send, that do not repeat
		packet = append(packet, "0123456789.,{}\":e-"[(i*7+i/5)%18])
	}

	room := make(chan int, window)
	room <- window
	var sent, acked atomic.Int64
	done := make(chan error, 1)
	go func() {
		defer close(room)
		for {
			if err := readFull(r, ack[:]); err != nil {
				done <- err
				return
			}
			n := 1
			for ; r.Buffered() >= 4; n++ {
				if err := readFull(r, ack[:]); err != nil {
					done <- err
					return
				}
			}
			acked.Add(int64(n))
			room <- n
			if !time.Now().Before(stop) && acked.Load() == sent.Load() {
				done <- nil
				return
			}
		}
	}()
	out := make([]byte, 0, window*len(packet))
	next := uint16(0)
	for n := range room {
		if !time.Now().Before(stop) {
			break
		}
		out = out[:0]
		for range n {
			if next++; next == 0 {
				next = 1
			}
			binary.BigEndian.PutUint16(packet[at:], next)
			out = append(out, packet...)
		}
		sent.Add(int64(n))
		if _, err := c.Write(out); err != nil {
			return acked.Load(), err
		}
	}
	counted := acked.Load() // what is acknowledged within the time counts
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for range room { // the rest must come, too
	}
	if err := <-done; err != nil && acked.Load() != sent.Load() {
		return counted, fmt.Errorf("%d of %d acknowledged: %w", acked.Load(), sent.Load(), err)
	}
	return counted, nil
}

func readFull(r *bufio.Reader, b []byte) error {
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}
