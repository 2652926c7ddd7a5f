package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log/record"
)

// Defaults of Options.
const (
	DefaultMaxFrameBytes  = 16 << 20
	DefaultInFlightBytes  = 32 << 20
	DefaultMaxFetchBytes  = 4 << 20
	DefaultFetchBytes     = 32 << 20
	DefaultMaxConnections = 4096
	DefaultFrameTimeout   = 30 * time.Second
)

// Options configure a Server. Store is required; other zero fields take
// their default.
type Options struct {
	Store  Store
	Listen string // host:port; port 0 takes a free one

	// Advertise is the "host:port" that Metadata names for this server. By
	// default it is the local address of the accepted connection.
	Advertise string
	// AutoCreate lets Metadata create a topic that a client asks for, if the
	// client allows it, as DefaultTopic says.
	AutoCreate bool
	// DefaultTopic configures topics where the client says nothing. The zero
	// value means record.DefaultTopicConfig.
	DefaultTopic record.TopicConfig

	MaxFrameBytes  int           // one request; default 16 MiB, at least 1 KiB
	InFlightBytes  int           // all requests above 64 KiB together; default 32 MiB, at least MaxFrameBytes
	MaxFetchBytes  int           // one Fetch response, unless one batch is larger; default 4 MiB
	FetchBytes     int           // all Fetch responses together; beyond, each holds 64 KiB or one batch; default 32 MiB
	MaxConnections int           // default 4096; more are closed at once
	FrameTimeout   time.Duration // for a request to arrive or an answer to leave, plus its size at 64 (16) KiB/s; default 30 s

	Logger *slog.Logger // nil: discard
}

// EnsureDefaults fills zero fields.
func (o *Options) EnsureDefaults() {
	if o.DefaultTopic == (record.TopicConfig{}) {
		o.DefaultTopic = record.DefaultTopicConfig()
	}
	o.DefaultTopic.EnsureDefaults()
	if o.MaxFrameBytes == 0 {
		o.MaxFrameBytes = DefaultMaxFrameBytes
	}
	if o.InFlightBytes == 0 {
		o.InFlightBytes = DefaultInFlightBytes
	}
	o.InFlightBytes = max(o.InFlightBytes, classSize(classOf(o.MaxFrameBytes)))
	if o.MaxFetchBytes == 0 {
		o.MaxFetchBytes = DefaultMaxFetchBytes
	}
	if o.FetchBytes == 0 {
		o.FetchBytes = DefaultFetchBytes
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.FrameTimeout == 0 {
		o.FrameTimeout = DefaultFrameTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
}

// Validate names the first field that cannot be served.
func (o *Options) Validate() error {
	switch {
	case o.Store == nil:
		return errors.New("kafka: no store")
	case o.MaxFrameBytes < 1<<10 || o.MaxFetchBytes < 1<<10 || o.FetchBytes < 0 || o.MaxConnections < 1 || o.FrameTimeout < 0:
		return errors.New("kafka: a limit is out of range")
	}
	if o.Advertise != "" {
		if _, _, err := splitHostPort(o.Advertise); err != nil {
			return fmt.Errorf("kafka: advertise %q: %w: write host:port", o.Advertise, err)
		}
	}
	return nil
}

func splitHostPort(s string) (string, int32, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	if host == "" {
		return "", 0, errors.New("host is missing")
	}
	return host, int32(port), nil
}

// Server accepts Kafka clients on one listener.
//
// Invariants:
//
//	K1: no request body reaches kmsg before its frame, header and every array
//	    and tag count have been bounded by our own walk over the bytes.
//	K2: a connection has one request in flight; answers leave in order.
//	K3: nothing that one connection sends, or fails to read, stops another.
//	K4: Close returns after every goroutine of the server has ended.
type Server struct {
	o      Options
	store  Store
	logger *slog.Logger
	apis   []api
	byKey  [maxKey + 1]*api

	advertisedHost string
	advertisedPort int32

	ln      net.Listener
	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	frames  *budget
	answers *budget
	buffers buffers
	// unpacking is held while the records of a compressed batch are checked.
	unpacking chan struct{}
	stats     counters
	limited   limitedLog

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
}

// Listen binds o.Listen and serves until Close.
func Listen(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("kafka: listen on %s: %w", o.Listen, err)
	}
	s := &Server{
		o:       o,
		store:   o.Store,
		logger:  o.Logger,
		apis:    apiTable(),
		ln:      ln,
		frames:  newBudget(int64(o.InFlightBytes)),
		answers: newBudget(int64(o.FetchBytes)),
		conns:   map[*conn]struct{}{},

		unpacking: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	if o.Advertise != "" {
		s.advertisedHost, s.advertisedPort, _ = splitHostPort(o.Advertise) // Validate has seen it
	}
	for i := range s.apis {
		s.byKey[s.apis[i].key] = &s.apis[i]
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close stops accepting, ends waiting requests, closes all connections and
// joins their goroutines. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	var err error
	if first {
		s.cancel(record.ErrClosed)
		err = s.ln.Close()
		for c := range s.conns {
			c.nc.Close()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// accept takes connections until the listener is closed.
func (s *Server) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or a client that gave up in the queue.
			s.limited.warn(s.logger, "kafka: accept failed", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		s.stats.connectionsTotal.Add(1)
		c := newConn(s, nc)
		s.mu.Lock()
		refused := s.closed || len(s.conns) >= s.o.MaxConnections
		if !refused {
			s.conns[c] = struct{}{}
			s.stats.connections.Add(1)
			s.wg.Go(c.serve)
		}
		s.mu.Unlock()
		if refused {
			s.stats.refused[RefusedConnections].Add(1)
			nc.Close()
		}
	}
}

func (s *Server) forget(c *conn) {
	c.nc.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.stats.connections.Add(-1)
}

// limitedLog lets one line a second through and counts the others, so that a
// port scanner does not fill the disk of a gateway.
type limitedLog struct {
	next       atomic.Int64 // unix nanoseconds
	suppressed atomic.Int64
}

func (l *limitedLog) warn(logger *slog.Logger, msg string, args ...any) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(time.Second)) {
		l.suppressed.Add(1)
		return
	}
	if n := l.suppressed.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	logger.Warn(msg, args...)
}
