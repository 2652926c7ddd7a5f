package mqtt

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/bridge"
	"edgehub/pkg/log"
)

// Limits of one connection.
const (
	// maxHeld is how many acks of a connection may wait for the disk before
	// the broker stops reading from it.
	maxHeld = 2000
	// connectTimeout is how long a connection may take to say CONNECT.
	connectTimeout = 20 * time.Second
	// writeTimeout is how long a device may take to accept writeChunk bytes.
	writeTimeout = 60 * time.Second
	writeChunk   = 16 << 10
	// goodbyeTimeout is how long a closed connection may take to hand over what
	// was written before Close.
	goodbyeTimeout = time.Second
	// maxUnsent is how many bytes the device may leave unread, besides those in
	// the kernel, before it gets no more publishes and is not read.
	maxUnsent = 32 << 10
	// maxConnectBytes bounds the first packet: nobody knows yet who sends it.
	maxConnectBytes = 64 << 10
)

// conn is a device's connection as the MQTT engine sees it: it lets all bytes
// pass in both directions, except that PUBACK and PUBREC wait in it until the
// records that they acknowledge are on disk.
//
// The engine answers a publish on the goroutine that read it, right after the
// publish hook has appended the record. So when an ack is written, lastLSN is
// the commit of the very record that it acknowledges, or of a later one.
//
// Invariants:
//
// C1: a positive ack is written to the socket only when log.Durable() is at
// least the commit of its record.
// C2: acks leave in the order in which the engine wrote them, refusals
// included.
// C3: a failed log releases nothing: the connection closes instead.
// C4: no goroutine exists for the connection while nothing can leave.
// C5: the socket sees whole packets: only the flusher writes to it.
// C6: Write never waits for the device. The engine calls it with the device's
// lock held, which everybody needs who publishes to that device.
type conn struct {
	net.Conn
	b *Broker

	// Owned by the reading goroutine.
	in       scanner
	readErr  error // of the packet at which the stream was cut
	first    bool  // no packet header has been seen yet
	clientID string

	version     atomic.Uint32 // of MQTT; 0 until CONNECT is accepted
	established atomic.Bool   // the engine reads on behind CONNECT
	closeBy     atomic.Int64  // once closed: when the flusher gives up, ns since 1970

	mu       sync.Mutex
	out      []byte // packets to be written; not empty: the flusher runs
	unsent   int    // bytes in out or being written from it
	leaving  bool   // DISCONNECT is the last packet
	held     heldAcks
	waiting  int             // acks held or being written
	lastLSN  log.LSN         // the latest commit that an ack of this connection waits for
	again    map[uint16]bool // packet ids of QoS 2 publishes sent again and not answered yet
	armed    bool            // LogDurable will be called
	flushing bool            // the flusher runs
	failed   bool            // the log has failed: nothing is acknowledged any more
	closed   bool
	room     sync.Cond // waiting or unsent went down, or closed; L is &mu
}

func newConn(b *Broker, inner net.Conn) *conn {
	c := &conn{Conn: inner, b: b, first: true}
	c.room.L = &c.mu
	_ = inner.SetReadDeadline(time.Now().Add(connectTimeout))
	return c
}

// errRefused ends the reading of a stream that breaks a limit.
var errRefused = errors.New("mqtt: packet refused")

// Read gives the engine the device's bytes up to the first packet that breaks
// a limit, which it thus never sees, let alone allocates for.
func (c *conn) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.refuseRest()
	}
	n, err := c.Conn.Read(p)
	ok := 0 // bytes that the engine may see
	for at := 0; at < n || c.in.complete(); {
		k, what, serr := c.in.next(p[at:n])
		at += k
		if serr == nil && what == header {
			serr = c.checkHeader()
		}
		if serr != nil {
			c.readErr = serr
			if ok > 0 {
				return ok, nil
			}
			return 0, c.refuseRest()
		}
		if what != more {
			ok = at
		}
		if what == end {
			c.noteAgain()
		}
	}
	// The bytes of an unfinished header may pass: the engine asks for more
	// before it acts on them.
	return n, err
}

// checkHeader looks at a packet whose header has just been read.
func (c *conn) checkHeader() error {
	limit := int64(c.b.opt.MaxPacket)
	if c.first {
		c.first = false
		if c.in.kind() != typeConnect {
			return fmt.Errorf("%w: the first packet has type %d, not CONNECT", errRefused, c.in.kind())
		}
		limit = min(limit, maxConnectBytes)
	}
	if size := c.in.size(); size > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are accepted", errTooLarge, size, limit)
	}
	return nil
}

var errTooLarge = errors.New("mqtt: packet too large")

// refuseRest tells a device that knows reasons (MQTT 5) why, and ends the
// connection.
func (c *conn) refuseRest() error {
	why := bridge.RefusedProtocol
	if errors.Is(c.readErr, errTooLarge) {
		why = bridge.RefusedTooLarge
	}
	c.b.refused(why, c.clientID, c.readErr)
	if c.version.Load() >= 5 {
		_ = c.queue([]byte{typeDisconnect << 4, 1, why.DisconnectReason()})
	}
	_ = c.Close()
	return c.readErr
}

// noteAgain keeps in mind that a QoS 2 publish was sent again, see fixAgain.
func (c *conn) noteAgain() {
	if c.in.kind() != typePublish || c.in.qos() != 2 || !c.in.dup() {
		return
	}
	c.mu.Lock()
	if c.again == nil {
		c.again = make(map[uint16]bool)
	}
	c.again[c.in.packetID] = true
	c.mu.Unlock()
}

// reasonInUse is the reason code "packet identifier in use".
const reasonInUse = 0x91

// fixAgain turns the engine's answer to a QoS 2 publish that was sent again,
// PUBREC "packet identifier in use", into the plain PUBREC that the protocol
// asks for [MQTT-4.3.3-10]. The caller holds mu.
func (c *conn) fixAgain(ack []byte, id uint16, reason byte) ([]byte, byte) {
	if !c.again[id] {
		return ack, reason
	}
	delete(c.again, id)
	if reason != reasonInUse {
		return ack, reason
	}
	return []byte{typePubrec << 4, 2, byte(id >> 8), byte(id)}, 0
}

// Write takes whole packets of the engine, and never waits (C6): unsent does,
// elsewhere. Acks are held back; all else goes out at once and may thus
// overtake them, which MQTT allows.
func (c *conn) Write(p []byte) (int, error) {
	pass, rest := p[:0], p // pass: a run of packets, neighbours in p
	for len(rest) > 0 {
		packet, next, err := split(rest)
		if err != nil {
			_ = c.Close()
			return 0, err
		}
		rest = next
		switch packet[0] >> 4 {
		case typePuback, typePubrec:
			if err := c.queue(pass); err != nil {
				return 0, err
			}
			pass = rest[:0]
			if packet[0]>>4 == typePuback && !c.established.Load() {
				// The engine kept the ack of a lost connection. It must not
				// be sent now: the device may use the id for another message
				// by this time. It sends the old one again if it still waits.
				continue
			}
			if err := c.hold(packet); err != nil {
				return 0, err
			}
			continue
		case typeConnack:
			// Acks of an inherited session answer records of connections
			// before this one: they wait for everything appended so far.
			c.note(c.b.tail())
		case typeDisconnect:
			if c.version.Load() < 5 { // only MQTT 5 servers say it
				if err := c.queue(pass); err != nil {
					return 0, err
				}
				pass = rest[:0]
				continue
			}
		}
		pass = pass[:len(pass)+len(packet)]
	}
	if err := c.queue(pass); err != nil {
		return 0, err
	}
	return len(p), nil
}

// queue hands whole packets to the flusher.
func (c *conn) queue(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.out = append(c.out, p...)
	c.unsent += len(p)
	c.leaving = c.leaving || p[0]>>4 == typeDisconnect
	if !c.flushing {
		c.startFlush()
	}
	return nil
}

// keepUp blocks while the device has too much unread. The goroutine that
// delivers to the device calls it, and the one that reads from it, neither
// with a lock.
func (c *conn) keepUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.unsent >= maxUnsent && !c.closed {
		c.room.Wait()
	}
}

// send writes whole packets to the socket. The flusher calls it.
func (c *conn) send(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), writeChunk)
		_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if by := c.closeBy.Load(); by != 0 { // after the deadline above, which Close may have met
			_ = c.Conn.SetWriteDeadline(time.Unix(0, by))
		}
		if _, err := c.Conn.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// admit blocks while the connection has as many unwritten acks as it may; it
// reports false when the connection is closed. The reading goroutine calls
// it, so that only this device waits.
func (c *conn) admit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting >= maxHeld && !c.closed {
		c.room.Wait()
	}
	return !c.closed
}

// note says that acks written from now on wait for a commit.
func (c *conn) note(lsn log.LSN) {
	c.mu.Lock()
	c.lastLSN = max(c.lastLSN, lsn)
	c.mu.Unlock()
}

// hold queues an ack until what it acknowledges is durable. Refusals wait for
// nothing but their turn.
func (c *conn) hold(ack []byte) error {
	id, reason, ok := ackOf(ack)
	if !ok {
		_ = c.Close()
		return errFrame
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	if len(c.again) > 0 && ack[0]>>4 == typePubrec {
		ack, reason = c.fixAgain(ack, id, reason)
	}
	var lsn log.LSN
	if reason < 0x80 {
		lsn = c.lastLSN
	}
	c.held.add(ack, lsn)
	c.waiting++
	c.b.counts.held.Add(1)
	c.release() // unlocks
	return nil
}

// release sees to it that the acks leave when they may: it starts the flusher
// if some can leave now, else it has LogDurable called. The caller holds mu,
// which release unlocks, since the log may call LogDurable at once.
func (c *conn) release() {
	lsn, some := c.held.next()
	if !some || c.flushing || c.closed {
		c.mu.Unlock()
		return
	}
	// The commit may have been between append and now: ask again.
	if lsn <= c.b.opt.Log.Durable() {
		c.startFlush()
		c.mu.Unlock()
		return
	}
	if c.armed {
		c.mu.Unlock()
		return
	}
	c.armed = true
	c.mu.Unlock()
	c.b.opt.Log.Notify(lsn, c)
}

// startFlush starts the flusher. The caller holds mu and knows that the
// connection is not closed and the flusher does not run.
func (c *conn) startFlush() {
	c.flushing = true
	c.b.flushers.Go(c.flush)
}

// LogDurable implements log.Notifier. It neither blocks nor calls the log.
func (c *conn) LogDurable(_ log.LSN, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	c.failed = c.failed || err != nil
	if !c.flushing && !c.closed {
		c.startFlush()
	}
}

// flush writes packets and acks until none can leave, and ends the connection
// if that is due.
func (c *conn) flush() {
	var buf []byte
	for {
		c.mu.Lock()
		if c.failed {
			c.shut()
		}
		size, acks := len(c.out), 0
		buf = append(buf[:0], c.out...) // CONNACK before all acks
		if c.out = c.out[:0]; cap(c.out) > keepOutBytes {
			c.out = nil
		}
		if !c.leaving {
			buf, acks = c.held.take(c.b.opt.Log.Durable(), buf)
		}
		if len(buf) == 0 {
			c.flushing = false
			if c.closed {
				c.mu.Unlock()
				_ = c.Conn.Close()
				return
			}
			c.release() // unlocks
			return
		}
		c.mu.Unlock()
		err := c.send(buf)
		c.mu.Lock()
		c.waiting -= acks
		c.unsent -= size
		if err != nil {
			c.unsent -= len(c.out)
			c.out = nil
			c.shut()
		}
		c.room.Broadcast()
		c.mu.Unlock()
		c.b.counts.held.Add(-int64(acks))
		if err == nil && acks > 0 {
			c.b.counts.acks.Add(int64(acks))
			c.b.counts.ackWrites.Add(1)
		}
	}
}

// keepOutBytes is the largest buffer that a connection keeps.
const keepOutBytes = 4 << 10

// shut is Close but for the socket. The caller holds mu.
func (c *conn) shut() {
	c.closed = true
	c.b.counts.held.Add(-int64(c.held.count))
	c.waiting -= c.held.count
	c.held = heldAcks{}
	c.again = nil
	c.room.Broadcast()
}

// Close ends the connection; held acks are never sent. What the engine wrote
// before, its goodbye at the end, has a moment to leave.
func (c *conn) Close() error {
	c.mu.Lock()
	was := c.closed
	c.shut()
	flushing := c.flushing
	c.mu.Unlock()
	switch {
	case flushing: // closes the socket at its end
		now := time.Now()
		by := now.Add(goodbyeTimeout)
		if c.closeBy.CompareAndSwap(0, by.UnixNano()) {
			_ = c.Conn.SetWriteDeadline(by)
		}
		return c.Conn.SetReadDeadline(now)
	case was:
		return nil
	}
	return c.Conn.Close()
}

// SetDeadline takes the engine's keep-alive deadline, which is about reading;
// send has deadlines of its own, also for devices without keep-alive.
//
// The engine counts one and a half keep-alives in whole seconds, rounded
// down; half a second more makes it right [MQTT-3.1.2-22].
func (c *conn) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = t.Add(time.Second / 2)
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing, see SetDeadline.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
