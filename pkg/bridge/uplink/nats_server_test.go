package uplink_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nkeys"
)

// natsServer speaks as much of the NATS protocol as an uplink needs, and can
// misbehave. (The real server is linked by package core alone; end-to-end
// tests run against it.)
type natsServer struct {
	t      *testing.T
	l      net.Listener
	gossip []string // addresses told to clients
	nkey   string   // required public key, "": anybody
	// handle answers a request: nil, and ok false, means that nobody listens.
	handle func(subject string, msg []byte) (reply []byte, ok bool)
	deny   func(subject string) bool

	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	dark     bool // swallow everything
	accepted int
	connects []map[string]any // what clients said of themselves
	inboxes  []string
}

func newNATSServer(t *testing.T, s *natsServer) *natsServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.t, s.l, s.conns = t, l, map[net.Conn]struct{}{}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = struct{}{}
			s.accepted++
			s.dark = false
			s.mu.Unlock()
			s.wg.Go(func() {
				s.serve(c)
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.cut()
		s.wg.Wait()
	})
	return s
}

func (s *natsServer) url() string { return "nats://" + s.l.Addr().String() }

// cut closes every connection.
func (s *natsServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// goDark makes the connections that there are swallow everything.
func (s *natsServer) goDark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dark = true
}

func (s *natsServer) isDark() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dark
}

func (s *natsServer) serve(c net.Conn) {
	const nonce = "0123456789abcdef"
	info := map[string]any{"server_id": "S", "server_name": "fake", "version": "2.11.0", "proto": 1, "headers": true,
		"max_payload": 1 << 20, "connect_urls": s.gossip}
	if s.nkey != "" {
		info["auth_required"], info["nonce"] = true, nonce
	}
	b, _ := json.Marshal(info)
	fmt.Fprintf(c, "INFO %s\r\n", b)
	r := bufio.NewReader(c)
	var wmu sync.Mutex
	write := func(format string, args ...any) {
		if s.isDark() {
			return
		}
		wmu.Lock()
		defer wmu.Unlock()
		fmt.Fprintf(c, format, args...)
	}
	subs := map[string]string{} // prefix of the inbox to sid
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		f := strings.Fields(rest)
		switch verb {
		case "CONNECT":
			var said map[string]any
			_ = json.Unmarshal([]byte(rest), &said)
			s.mu.Lock()
			s.connects = append(s.connects, said)
			s.mu.Unlock()
			if s.nkey != "" && !s.proves(said, nonce) {
				write("-ERR 'Authorization Violation'\r\n")
				return
			}
		case "PING":
			write("PONG\r\n")
		case "SUB":
			subs[strings.TrimSuffix(f[0], "*")] = f[len(f)-1]
			s.mu.Lock()
			s.inboxes = append(s.inboxes, f[0])
			s.mu.Unlock()
		case "PUB":
			n, _ := strconv.Atoi(f[len(f)-1])
			msg := make([]byte, n+2)
			if _, err := io.ReadFull(r, msg); err != nil {
				return
			}
			if s.isDark() || len(f) != 3 {
				continue
			}
			subject, reply := f[0], f[1]
			if s.deny != nil && s.deny(subject) {
				write("-ERR 'Permissions Violation for Publish to \"%s\"'\r\n", subject)
				continue
			}
			sid := subs[reply[:strings.LastIndex(reply, ".")+1]]
			answer, ok := s.handle(subject, msg[:n])
			switch {
			case !ok:
				const h = "NATS/1.0 503\r\n\r\n"
				write("HMSG %s %s %d %d\r\n%s\r\n", reply, sid, len(h), len(h), h)
			case answer != nil:
				write("MSG %s %s %d\r\n%s\r\n", reply, sid, len(answer), answer)
			}
		}
	}
}

// proves checks the signature of the nonce.
func (s *natsServer) proves(said map[string]any, nonce string) bool {
	if said["nkey"] != s.nkey {
		return false
	}
	kp, err := nkeys.FromPublicKey(s.nkey)
	if err != nil {
		return false
	}
	sig, _ := said["sig"].(string)
	raw, err := decodeSig(sig)
	return err == nil && kp.Verify([]byte(nonce), raw) == nil
}
