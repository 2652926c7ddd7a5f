package uplink

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// natsDialer dials one server for nats.go, and keeps the connection to watch
// it. It is used for one nats.Connect.
type natsDialer struct {
	ctx     context.Context
	timeout time.Duration

	mu   sync.Mutex
	conn *trackedConn
	err  error
}

// Dial implements nats.CustomDialer.
func (d *natsDialer) Dial(network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: d.timeout}).DialContext(d.ctx, network, addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	if err != nil {
		return nil, err
	}
	d.conn = &trackedConn{Conn: c}
	return d.conn, nil
}

// abort ends a connection that nats.go is still making.
func (d *natsDialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
}

// What a trackedConn writes at once, and how long it waits for the peer to
// take any of it.
const (
	writePiece   = 16 << 10
	writePatient = 5 * time.Second
)

// trackedConn is a connection that knows whether its bytes move. A write
// fails when for writePatient the peer took nothing, however slow the link.
type trackedConn struct {
	net.Conn
	written atomic.Int64
	heardAt atomic.Int64 // ns since 1970

	mu      sync.Mutex
	taken   int64 // by the peer, as last seen
	movedAt time.Time
}

// Read implements net.Conn.
func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heardAt.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write implements net.Conn.
func (c *trackedConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(writePatient)); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(b[done:min(len(b), done+writePiece)])
		done += n
		c.written.Add(int64(n))
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && (n > 0 || time.Since(c.lastMoved()) < writePatient) {
				continue
			}
			return done, err
		}
	}
	return done, nil
}

// SetWriteDeadline does nothing: Write has its own rule.
func (c *trackedConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets the deadline of reads alone.
func (c *trackedConn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// lastMoved is when the peer was last seen to take bytes: the time of the
// call if it took some since the call before.
func (c *trackedConn) lastMoved() time.Time {
	at, _ := c.progress()
	return at
}

// progress is lastMoved, and how many bytes the peer has taken.
func (c *trackedConn) progress() (movedAt time.Time, taken int64) {
	taken = c.written.Load() - unacknowledged(c.Conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if taken > c.taken {
		c.taken, c.movedAt = taken, time.Now()
	}
	return c.movedAt, c.taken
}

// passage is a message's way over a connection: end is the count of bytes
// written with which it has left.
type passage struct {
	end  int64
	left time.Time // seen to have left; zero: not yet
}

func (p *passage) moved(c *trackedConn) time.Time {
	if !p.left.IsZero() {
		return p.left
	}
	at, taken := c.progress()
	if taken >= p.end {
		p.left = at
	}
	return at
}
