package demo

import (
	"io"
	"net"
	"sync"
)

// link is a TCP proxy that can be cut: then it closes what is open and
// refuses what is new.
type link struct {
	to string
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func newLink(to string) (*link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{to: to, ln: ln, conns: map[net.Conn]struct{}{}}
	l.wg.Go(l.accept)
	return l, nil
}

func (l *link) addr() string { return l.ln.Addr().String() }

func (l *link) accept() {
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.carry(in) })
	}
}

func (l *link) carry(in net.Conn) {
	defer in.Close()
	if !l.enter(in) {
		return
	}
	defer l.leave(in)
	out, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !l.enter(out) {
		return
	}
	defer l.leave(out)
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(out, in) })
	wg.Go(func() { copyTo(in, out) })
	wg.Wait()
}

// copyTo copies until either side ends, and then ends both.
func copyTo(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	dst.Close()
	src.Close()
}

// enter registers a connection, unless the link is down.
func (l *link) enter(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) leave(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// set cuts or mends the link.
func (l *link) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = !up
	if !up {
		for c := range l.conns {
			c.Close()
		}
	}
}

func (l *link) close() {
	l.ln.Close()
	l.set(false)
	l.wg.Wait()
}
