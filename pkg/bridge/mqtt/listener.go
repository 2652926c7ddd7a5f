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
	b     *Broker
	ln    net.Listener
	serve sync.WaitGroup // a goroutine per connection

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
}

const listenerID = "tcp"

// listen binds an address. Its errors name the address and what to do.
func listen(b *Broker, address string) (*listener, error) {
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("mqtt: listen on %s: the address is in use; stop the other program (another hub, mosquitto?) or set mqtt.listen: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("mqtt: listen on %s: not permitted; use a port above 1023 or give the program CAP_NET_BIND_SERVICE: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("mqtt: listen on %s: this machine has no such address; set mqtt.listen: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("mqtt: listen on %s: %w", address, err)
	}
	return &listener{b: b, ln: ln, conns: make(map[*conn]struct{})}, nil
}

// Init implements listeners.Listener.
func (l *listener) Init(*slog.Logger) error { return nil }

// ID implements listeners.Listener.
func (l *listener) ID() string { return listenerID }

// Address implements listeners.Listener.
func (l *listener) Address() string { return l.ln.Addr().String() }

// Protocol implements listeners.Listener.
func (l *listener) Protocol() string { return "tcp" }

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
		c := newConn(l.b, inner)
		if !l.add(c, establish) {
			_ = inner.Close()
			return
		}
	}
}

func (l *listener) add(c *conn, establish listeners.EstablishFn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	l.b.counts.connects.Add(1)
	l.serve.Go(func() {
		defer l.remove(c)
		l.attach(c, establish)
	})
	return true
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
	err := establish(listenerID, c)
	l.b.log.Debug("mqtt connection ended", "client", c.clientID, "remote", c.RemoteAddr().String(), "err", err)
}

func (l *listener) remove(c *conn) {
	_ = c.Close()
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
	l.mu.Unlock()
	closeClients(listenerID) // says goodbye to MQTT 5 clients
	for _, c := range open {
		_ = c.Close()
	}
	l.serve.Wait()
}

// count is the number of open connections.
func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}
