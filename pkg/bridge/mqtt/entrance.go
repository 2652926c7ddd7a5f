package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// Entrance is an address on which a Broker listens.
type Entrance struct {
	Listen string // host:port, port 0 takes a free one; "": closed
	// AllowAnonymous lets in who has neither password nor certificate.
	AllowAnonymous bool
	// TLS encrypts. It is not changed. nil: plain.
	TLS *tls.Config
	// AsksCertificates says that TLS lets in verified client certificates
	// only, which say who a client is.
	AsksCertificates bool
	// CertificateName is who a verified client certificate is for. nil: its
	// common name. "": nobody, the connection ends.
	CertificateName func(*x509.Certificate) string
}

// Limits of what comes before MQTT.
const (
	// handshakeTimeout is how long TLS and WebSocket may take together before
	// the first byte of MQTT.
	handshakeTimeout = 10 * time.Second
	// maxHandshakes is how many connections of an entrance may be at it. The
	// next ones wait unaccepted.
	maxHandshakes = 256
)

// who is what the way in says about a client.
type who struct {
	name string // in its certificate; "": it has none
}

// enter does what comes before MQTT on a fresh connection: TLS, WebSocket.
func (l *listener) enter(raw net.Conn) (net.Conn, who, error) {
	if !l.shakes() {
		return raw, who{}, nil
	}
	_ = raw.SetDeadline(time.Now().Add(handshakeTimeout))
	c, id, err := l.shake(raw)
	if err != nil {
		return nil, who{}, err
	}
	_ = raw.SetDeadline(time.Time{})
	return c, id, nil
}

// shakes says whether anything comes before MQTT.
func (l *listener) shakes() bool { return l.entrance.TLS != nil || l.overWebSocket() }

func (l *listener) overWebSocket() bool {
	return l.id == entranceWebSocket || l.id == entranceWebSocketTLS
}

func (l *listener) shake(raw net.Conn) (c net.Conn, id who, err error) {
	c = raw
	if l.entrance.TLS != nil {
		t := newTLSConn(raw, l.entrance.TLS)
		if err := t.Handshake(); err != nil {
			return nil, id, fmt.Errorf("tls: %w", err)
		}
		if id, err = l.whoIs(t.ConnectionState().PeerCertificates); err != nil {
			return nil, id, err
		}
		c = t
	}
	if l.overWebSocket() {
		c, err = l.upgrade(c)
	}
	return c, id, err
}

func (l *listener) whoIs(chain []*x509.Certificate) (who, error) {
	if len(chain) == 0 {
		return who{}, nil
	}
	name := chain[0].Subject.CommonName
	if l.entrance.CertificateName != nil {
		name = l.entrance.CertificateName(chain[0])
	}
	if name == "" {
		return who{}, fmt.Errorf("tls: the client's certificate %s names nobody", chain[0].SerialNumber)
	}
	return who{name: name}, nil
}

// tlsConn is the server's end of a TLS connection. Two things of crypto/tls
// do not fit a connection that must end soon and whose writes have deadlines
// of their own: Close waits 5 s for a client that does not read, and an old
// write deadline meets the next answer to a key update.
type tlsConn struct {
	*tls.Conn
	socket *endingSocket
}

func newTLSConn(raw net.Conn, c *tls.Config) *tlsConn {
	s := &endingSocket{Conn: raw}
	return &tlsConn{tls.Server(s, c), s}
}

// Write implements net.Conn.
func (t *tlsConn) Write(p []byte) (int, error) {
	n, err := t.Conn.Write(p)
	if err == nil {
		_ = t.Conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// Close says goodbye if the client takes it within goodbyeTimeout.
func (t *tlsConn) Close() error {
	t.socket.ending.Store(true)
	return t.Conn.Close()
}

// endingSocket grants no write more than goodbyeTimeout once it is ending.
type endingSocket struct {
	net.Conn
	ending atomic.Bool
}

// SetWriteDeadline implements net.Conn.
func (s *endingSocket) SetWriteDeadline(t time.Time) error {
	if soon := time.Now().Add(goodbyeTimeout); s.ending.Load() && (t.IsZero() || t.After(soon)) {
		t = soon
	}
	return s.Conn.SetWriteDeadline(t)
}
