package kafka

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn serves one connection: read a frame, handle it, write its answer, in
// turn, in one goroutine.
type conn struct {
	s      *Server
	nc     net.Conn
	br     *bufio.Reader
	in     []byte // frames up to keptFrame
	out    []byte // answers, kept while small
	client string // client id of the latest request, for logs
	host   string // local address
	port   int32
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, br: bufio.NewReaderSize(nc, 4<<10)}
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		c.host, c.port = a.IP.String(), int32(a.Port)
	}
	return c
}

// errSilent closes a connection as the protocol's only answer to a produce
// request without acks that failed.
var errSilent = errors.New("closed in place of an answer")

func (c *conn) serve() {
	defer c.s.forget(c)
	for {
		if err := c.next(); err != nil {
			c.ended(err)
			return
		}
	}
}

// ended counts and logs why a connection is closed.
func (c *conn) ended(err error) {
	if c.s.ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, errSilent) {
		return
	}
	var r *refusedError
	if errors.As(err, &r) {
		c.s.stats.refused[r.reason].Add(1)
		c.s.limited.warn(c.s.logger, "kafka: closing connection", "reason", r.reason.String(),
			"remote", c.nc.RemoteAddr().String(), "client", c.client, "err", r.err)
		return
	}
	c.s.logger.Debug("kafka: connection lost", "remote", c.nc.RemoteAddr().String(), "client", c.client, "err", err)
}

// next serves one request.
func (c *conn) next() error {
	f, err := c.readFrame(c.s.ctx)
	if err != nil {
		return err
	}
	defer f.done()
	h, rest, err := parseHeader(f.bytes)
	if err != nil {
		return refuse(RefusedMalformed, err)
	}
	var a *api
	if h.key >= 0 && h.key <= maxKey {
		a = c.s.byKey[h.key]
	}
	if a == nil {
		return refuse(RefusedUnknownKey, fmt.Errorf("api key %d version %d", h.key, h.version))
	}
	if h.version < a.min || h.version > a.max {
		if a.key == keyApiVersions {
			c.s.stats.requests[a.key].Add(1)
			return c.answer(h, c.s.unsupportedApiVersions())
		}
		return refuse(RefusedVersion, fmt.Errorf("%s version %d, supported are %d to %d", a.name, h.version, a.min, a.max))
	}
	req, err := c.decode(a, h, rest)
	if err != nil {
		return refuse(RefusedMalformed, fmt.Errorf("%s version %d: %w", a.name, h.version, err))
	}
	start := time.Now()
	resp, err := a.handle(c.s, c.s.ctx, c, req)
	c.s.stats.nanos[a.key].Add(int64(time.Since(start)))
	c.s.stats.requests[a.key].Add(1)
	if err != nil || resp == nil {
		return err
	}
	if r, ok := resp.(*fetchAnswer); ok {
		defer r.done()
		r.SetVersion(h.version)
		return c.answerFetch(h, r)
	}
	resp.SetVersion(h.version)
	return c.answer(h, resp)
}

// decode takes the rest of a frame through the walk (K1) and then through
// kmsg. A panic of kmsg is a bug there or in our schema: it costs the
// connection, not the process.
func (c *conn) decode(a *api, h header, rest []byte) (req kmsg.Request, err error) {
	client, body, err := parseClient(rest, a.schema.isFlexible(h.version))
	if err != nil {
		return nil, err
	}
	if string(client) != c.client {
		c.client = string(client[:min(len(client), 128)])
	}
	n, err := a.schema.walk(h.version, body)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			c.s.stats.panics.Add(1)
			c.s.logger.Error("kafka: decoder panicked", "panic", p, "api", a.name, "version", h.version, "stack", string(debug.Stack()))
			err = fmt.Errorf("decoder panicked: %v", p)
		}
	}()
	req = a.request()
	req.SetVersion(h.version)
	return req, req.ReadFrom(body[:n:n])
}

// appendHeader begins a response: room for its length, the correlation id
// and, in flexible versions other than of ApiVersions (KIP-511), no tags.
func appendHeader(dst []byte, h header, flexible bool) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.correlation))
	if flexible && h.key != keyApiVersions {
		dst = append(dst, 0)
	}
	return dst
}

// answer writes a response.
func (c *conn) answer(h header, resp kmsg.Response) error {
	b := resp.AppendTo(appendHeader(c.out[:0], h, resp.IsFlexible()))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	c.out = nil
	if cap(b) <= keptFrame {
		c.out = b
	}
	return c.write(net.Buffers{b}, len(b))
}

// write sends an answer of size bytes. A client that reads slower than
// writeRate is given up: its answer holds memory.
func (c *conn) write(bufs net.Buffers, size int) error {
	limit := c.s.o.FrameTimeout + time.Duration(size)*time.Second/writeRate
	if err := c.nc.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	n, err := bufs.WriteTo(c.nc)
	c.s.stats.bytesOut.Add(uint64(n))
	return slow(err)
}

// broker fills in where a client finds a broker without a host: this server,
// at the advertised address or the one by which the client came.
func (c *conn) broker(host string, port int32) (string, int32) {
	switch {
	case host != "":
		return host, port
	case c.s.advertisedHost != "":
		return c.s.advertisedHost, c.s.advertisedPort
	default:
		return c.host, c.port
	}
}
