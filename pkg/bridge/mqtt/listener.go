package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// acceptPause is how long the listener waits after an accept that failed for
// want of something, such as file descriptors.
const acceptPause = 100 * time.Millisecond

// listener hands wrapped connections to the engine. It owns them and the
// goroutines that the engine reads them on: Close ends and joins all of them,
// also those that never said CONNECT.
type listener struct {
	b        *Broker
	id       string // one of the names below
	entrance Entrance
	ln       net.Listener
	serve    sync.WaitGroup // a goroutine per connection
	tokens   chan struct{}  // one for each connection that is at its handshake

	mu       sync.Mutex
	entering map[net.Conn]struct{} // at the handshake
	conns    map[*conn]struct{}
	closed   bool
}

// Names of listeners, and the keys of the configuration that they stand for.
const (
	entranceTCP = "mqtt"
	entranceTLS = "mqtt.tls"

	entranceWebSocket    = "mqtt.websocket"
	entranceWebSocketTLS = "mqtt.websocket.tls"
)

// ListenError says why an address cannot be had.
type ListenError struct {
	Key     string // of the configuration, as mqtt.tls.listen
	Address string
	Err     error
}

// Error names the address and what to do.
func (e *ListenError) Error() string {
	var advice string
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		advice = fmt.Sprintf(": the address is in use; stop the other program (another hub, mosquitto?) or set %s", e.Key)
	case errors.Is(e.Err, syscall.EACCES):
		advice = ": not permitted; use a port above 1023 or give the program CAP_NET_BIND_SERVICE"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		advice = fmt.Sprintf(": this machine has no such address; set %s", e.Key)
	}
	return fmt.Sprintf("mqtt: listen on %s%s: %v", e.Address, advice, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// listen binds an address. Its errors are *ListenError.
func listen(b *Broker, id string, e Entrance) (*listener, error) {
	address, key := e.Listen, id+".listen"
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &ListenError{Key: key, Address: address, Err: err}
	}
	return &listener{
		b: b, id: id, entrance: e, ln: ln, tokens: make(chan struct{}, maxHandshakes),
		entering: make(map[net.Conn]struct{}), conns: make(map[*conn]struct{}),
	}, nil
}

// Init implements listeners.Listener.
func (l *listener) Init(*slog.Logger) error { return nil }

// ID implements listeners.Listener.
func (l *listener) ID() string { return l.id }

// Address implements listeners.Listener.
func (l *listener) Address() string { return l.ln.Addr().String() }

// Protocol implements listeners.Listener.
func (l *listener) Protocol() string { return l.id }

// Serve implements listeners.Listener: it accepts until Close.
func (l *listener) Serve(establish listeners.EstablishFn) {
	for {
		inner, err := l.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.b.log.Warn("mqtt accept", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		if !l.add(inner, establish) {
			_ = inner.Close()
			return
		}
	}
}

// add starts the goroutine of a connection. It waits while too many are at
// their handshakes, which end by themselves.
func (l *listener) add(raw net.Conn, establish listeners.EstablishFn) bool {
	if l.shakes() {
		l.tokens <- struct{}{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.entering[raw] = struct{}{}
	l.b.counts.connects.Add(1)
	l.serve.Go(func() {
		c, err := l.open(raw)
		if err != nil {
			l.b.counts.handshakes.Add(1)
			l.b.log.Debug("mqtt connection refused before MQTT", "listener", l.id, "remote", raw.RemoteAddr().String(), "err", err)
			return
		}
		defer l.remove(c)
		l.attach(c, establish)
	})
	return true
}

// open takes a fresh connection to the first byte of MQTT, or closes it.
func (l *listener) open(raw net.Conn) (*conn, error) {
	inner, id, err := l.enter(raw)
	if l.shakes() {
		<-l.tokens
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entering, raw)
	if err == nil && l.closed {
		err = net.ErrClosed
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := newConn(l.b, inner)
	c.entrance, c.certificate = &l.entrance, id.name
	l.conns[c] = struct{}{}
	return c, nil
}

// attach runs the engine's reading of one connection to its end. What a
// device sends can at worst end its own connection.
func (l *listener) attach(c *conn, establish listeners.EstablishFn) {
	defer func() {
		if p := recover(); p != nil {
			l.b.counts.panics.Add(1)
			l.b.log.Error("mqtt connection panicked", "client", c.clientID, "err", p, "stack", string(debug.Stack()))
		}
	}()
	err := establish(l.id, c)
	l.b.log.Debug("mqtt connection ended", "client", c.clientID, "remote", c.RemoteAddr().String(), "err", err)
}

func (l *listener) remove(c *conn) {
	_ = c.Close()
	if c.owns != "" {
		l.b.owners.leave(c.owns, l.b.hasSession)
	}
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// Close implements listeners.Listener.
func (l *listener) Close(closeClients listeners.CloseFn) {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	_ = l.ln.Close()
	if was {
		return
	}
	l.mu.Lock()
	open := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		open = append(open, c)
	}
	for raw := range l.entering {
		_ = raw.Close()
	}
	l.mu.Unlock()
	closeClients(l.id) // says goodbye to MQTT 5 clients
	for _, c := range open {
		l.serve.Go(func() { _ = c.Close() }) // one that does not read may take a while
	}
	l.serve.Wait()
}

// count is the number of open connections.
func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) + len(l.entering)
}
