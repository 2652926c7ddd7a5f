package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/forward"

	"github.com/nats-io/nats.go"
)

// NATSOptions say how to reach the core.
type NATSOptions struct {
	// Servers are URLs of core nodes: tls://, wss://, nats:// or ws://. They
	// are tried in the order of their kinds, in random order within a kind,
	// so that sites spread over the nodes and wss:// stays the fallback when
	// it stands last. No other address is ever dialled, whatever the core
	// gossips.
	Servers []string
	// Credentials is the path of a file with a decorated NKey seed, with or
	// without a user JWT. It is read again for every connection. "": none,
	// which nats:// and ws:// allow on loopback only.
	Credentials string
	TLS         *tls.Config  // nil: the system's roots
	Logger      *slog.Logger // nil: nothing is logged
}

// Timing of connections. All of it is short: a link that is up for two
// seconds between cuts is to be used.
const (
	natsHandshake = 5 * time.Second
	natsPing      = 15 * time.Second // an idle link that is dead is noticed within two
	natsPauseMin  = 100 * time.Millisecond
	natsPauseMax  = time.Second
	natsAuthPause = 5 * time.Second // after the core refused the credentials
	natsShortLife = 500 * time.Millisecond
	pingAfter     = 500 * time.Millisecond
)

// dialTimeouts are used in turn: mostly short, as a SYN that a cut link
// swallowed is repeated sooner by dialling again, now and then long, for links
// of enormous delay.
var dialTimeouts = [...]time.Duration{time.Second, time.Second, 3 * time.Second}

// NATSSink is the core over a plain NATS connection. It makes its connections
// itself, one after the other, with nats.go's own reconnecting off: that one
// cannot mix tls:// with wss:// in a list, keeps messages of a dead connection
// for the next, and its pauses are not ours.
type NATSSink struct {
	o      NATSOptions
	logger *slog.Logger
	urls   []*url.URL
	dials  atomic.Uint64

	mu       sync.Mutex
	site     string
	stop     context.CancelFunc // ends the keeper of site
	stopped  chan struct{}      // closed when it has ended
	up       chan struct{}      // closed while link is set
	link     *natsLink
	closed   bool
	connects int64
	written  int64 // by former links
	lastErr  string
}

// natsLink is one connection.
type natsLink struct {
	nc     *nats.Conn
	conn   *trackedConn
	inbox  string
	closed chan struct{}

	pinging atomic.Bool
	pings   sync.WaitGroup
	watches sync.WaitGroup

	mu    sync.Mutex
	next  uint64
	calls map[uint64]func(Answer)
	dead  bool
}

// NewNATSSink checks the options and makes a sink. It does not connect yet.
func NewNATSSink(o NATSOptions) (*NATSSink, error) {
	s := &NATSSink{o: o, logger: o.Logger, up: make(chan struct{})}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Servers) == 0 {
		return nil, errors.New("no core to forward to: name its nodes under core")
	}
	for _, raw := range o.Servers {
		u, err := parseServer(raw, o.Credentials != "")
		if err != nil {
			return nil, err
		}
		s.urls = append(s.urls, u)
	}
	if o.Credentials != "" {
		if _, err := readCredentials(o.Credentials); err != nil {
			return nil, err
		}
	}
	s.shuffle()
	return s, nil
}

// parseServer checks the URL of a core node.
func parseServer(raw string, credentials bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("core %q is not a URL: write tls://host:4222 or wss://host:443", raw)
	}
	port := "4222"
	switch u.Scheme {
	case "tls":
	case "wss":
		port = "443"
	case "nats", "ws":
		if u.Scheme == "ws" {
			port = "80"
		}
		if ip := net.ParseIP(u.Hostname()); !credentials && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("core %q: without credentials %s:// is for loopback only: set credentials, and use tls://", raw, u.Scheme)
		}
	default:
		return nil, fmt.Errorf("core %q: scheme %q is unknown: use tls://, wss:// or nats://", raw, u.Scheme)
	}
	if u.User != nil {
		return nil, fmt.Errorf("core %s://%s: a password in the URL is not supported: use a credentials file", u.Scheme, u.Host)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// shuffle puts the servers of each kind in random order, kinds in the order
// in which they first stand.
func (s *NATSSink) shuffle() {
	kinds := map[string]int{}
	for _, u := range s.urls {
		if _, ok := kinds[u.Scheme]; !ok {
			kinds[u.Scheme] = len(kinds)
		}
	}
	rand.Shuffle(len(s.urls), func(i, j int) { s.urls[i], s.urls[j] = s.urls[j], s.urls[i] })
	slices.SortStableFunc(s.urls, func(a, b *url.URL) int { return kinds[a.Scheme] - kinds[b.Scheme] })
}

// Connect implements Sink.
func (s *NATSSink) Connect(ctx context.Context, site string) error {
	if err := forward.CheckSite(site); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrDisconnected
	}
	if s.site != site {
		s.end()
		s.site = site
		kctx, cancel := context.WithCancel(context.Background())
		s.stop, s.stopped = cancel, make(chan struct{})
		go s.keep(kctx, site, s.stopped)
	}
	up := s.up
	s.mu.Unlock()
	select {
	case <-up:
		return nil
	default:
	}
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends the keeper, if there is one, and waits for it. s.mu is held.
func (s *NATSSink) end() {
	if s.stop == nil {
		return
	}
	s.stop()
	stopped := s.stopped
	s.stop, s.site = nil, ""
	s.mu.Unlock()
	<-stopped
	s.mu.Lock()
}

// Close implements Sink.
func (s *NATSSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.end()
	return nil
}

// keep keeps a connection for the site until ctx ends.
func (s *NATSSink) keep(ctx context.Context, site string, stopped chan struct{}) {
	defer close(stopped)
	pause := backoff{min: natsPauseMin, max: natsPauseMax}
	for ctx.Err() == nil {
		wait := pause.next()
		for i, u := range s.urls {
			link, err := s.dial(ctx, site, u)
			if ctx.Err() != nil {
				if link != nil {
					link.end()
				}
				return
			}
			if err != nil {
				if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) {
					wait = max(wait, natsAuthPause/2+rand.N(natsAuthPause/2))
				}
				s.failed(u, err)
				continue
			}
			born := time.Now()
			s.serve(ctx, link, u)
			if time.Since(born) >= natsShortLife {
				pause.reset()
				wait = natsPauseMin/2 + rand.N(natsPauseMin)
			}
			// Next time the others of its kind come first.
			j := i
			for j+1 < len(s.urls) && s.urls[j+1].Scheme == u.Scheme {
				j++
			}
			copy(s.urls[i:j], s.urls[i+1:j+1])
			s.urls[j] = u
			break
		}
		_ = sleep(ctx, wait)
	}
}

// failed tells of a failed connection, each reason once.
func (s *NATSSink) failed(u *url.URL, err error) {
	text := fmt.Sprintf("connect to %s://%s: %v", u.Scheme, u.Host, err)
	s.mu.Lock()
	said := s.lastErr == text
	s.lastErr = text
	s.mu.Unlock()
	if !said {
		s.logger.Warn("no connection to the core, trying on", "server", u.Redacted(), "err", err)
	}
}

// serve makes the link the current one until it ends.
func (s *NATSSink) serve(ctx context.Context, link *natsLink, u *url.URL) {
	s.mu.Lock()
	s.link = link
	s.connects++
	s.lastErr = ""
	close(s.up)
	s.mu.Unlock()
	s.logger.Info("connected to the core", "server", u.Redacted())
	link.watches.Go(func() { link.watch(s.logger) })
	select {
	case <-link.closed:
		s.logger.Info("the connection to the core is cut", "server", u.Redacted(), "err", link.nc.LastError())
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.link = nil
	s.up = make(chan struct{})
	s.written += link.conn.written.Load()
	if err := link.nc.LastError(); err != nil && s.lastErr == "" {
		s.lastErr = err.Error()
	}
	s.mu.Unlock()
	link.end()
}

// dial makes one connection to one server.
func (s *NATSSink) dial(ctx context.Context, site string, u *url.URL) (*natsLink, error) {
	link := &natsLink{closed: make(chan struct{}), calls: map[uint64]func(Answer){}}
	d := &natsDialer{ctx: ctx, timeout: dialTimeouts[s.dials.Add(1)%uint64(len(dialTimeouts))]}
	opts := []nats.Option{
		nats.Name(site),
		nats.NoReconnect(),
		nats.IgnoreDiscoveredServers(),
		nats.SkipHostLookup(), // the dialer looks up, within its time
		nats.CustomInboxPrefix(forward.InboxPrefix(site)),
		nats.Timeout(natsHandshake),
		nats.PingInterval(natsPing),
		// watch judges: behind a large message on a slow link a PONG takes long.
		nats.MaxPingsOutstanding(math.MaxInt32),
		nats.SetCustomDialer(d),
		nats.ClosedHandler(func(*nats.Conn) { close(link.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { s.asyncError(site, err) }),
	}
	if s.o.TLS != nil {
		opts = append(opts, nats.Secure(s.o.TLS))
	}
	if s.o.Credentials != "" {
		c, err := readCredentials(s.o.Credentials)
		if err != nil {
			return nil, err
		}
		opts = append(opts, c.option())
	}
	stop := context.AfterFunc(ctx, d.abort)
	defer stop()
	nc, err := nats.Connect(u.String(), opts...)
	if err != nil {
		if d.err != nil {
			err = d.err // nats.go says no more than that there is no server
		}
		return nil, err
	}
	link.nc, link.conn, link.inbox = nc, d.conn, nc.NewInbox()
	if _, err := nc.Subscribe(link.inbox+".*", link.received); err != nil {
		link.end()
		return nil, err
	}
	return link, nil
}

// asyncError takes what the server says outside of answers: mostly that the
// credentials do not allow a subject.
func (s *NATSSink) asyncError(site string, err error) {
	text := err.Error()
	if errors.Is(err, nats.ErrPermissionViolation) {
		text = fmt.Sprintf("the credentials do not allow site %s: %s", site, text)
	}
	s.mu.Lock()
	said := s.lastErr == text
	s.lastErr = text
	s.mu.Unlock()
	if !said {
		s.logger.Error("the core refuses", "site", site, "err", text)
	}
}

// Send implements Sink.
func (s *NATSSink) Send(subject string, msg []byte) (*Call, error) {
	s.mu.Lock()
	link := s.link
	s.mu.Unlock()
	if link == nil {
		return nil, ErrDisconnected
	}
	return link.send(subject, msg)
}

func (l *natsLink) send(subject string, msg []byte) (*Call, error) {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return nil, ErrDisconnected
	}
	l.next++
	n := l.next
	var passage passage
	call, answer := NewCall(func() time.Time { return passage.moved(l.conn) }, func() { l.forget(n) })
	l.calls[n] = answer
	l.mu.Unlock()
	err := l.nc.PublishRequest(subject, l.inbox+"."+strconv.FormatUint(n, 36), msg)
	if err == nil {
		buffered, _ := l.nc.Buffered() // fails on a dead connection, which ends the call
		passage.end = l.conn.written.Load() + int64(buffered)
		return call, nil
	}
	l.forget(n)
	if errors.Is(err, nats.ErrMaxPayload) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(msg), l.nc.MaxPayload())
	}
	return nil, fmt.Errorf("%w: %w", ErrDisconnected, err)
}

// watch drops a link on which, for the time of two pings, nothing was heard
// and nothing left.
func (l *natsLink) watch(logger *slog.Logger) {
	tick := time.NewTicker(natsPing / 3)
	defer tick.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-tick.C:
		}
		quiet := min(time.Since(time.Unix(0, l.conn.heardAt.Load())), time.Since(l.conn.lastMoved()))
		if quiet > 2*natsPing {
			logger.Warn("the connection to the core is dropped", "err", "silent for "+quiet.Round(time.Second).String())
			l.conn.Close()
			return
		}
	}
}

func (l *natsLink) forget(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, n)
}

// received takes an answer. The server answers itself, with status 503, where
// nobody listens.
func (l *natsLink) received(m *nats.Msg) {
	n, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, l.inbox+"."), 36, 64)
	if err != nil {
		return
	}
	l.mu.Lock()
	answer := l.calls[n]
	delete(l.calls, n)
	l.mu.Unlock()
	switch {
	case answer == nil: // not awaited any more
	case len(m.Data) == 0 && m.Header.Get("Status") == "503":
		answer(Answer{Err: ErrNoResponders})
	default:
		answer(Answer{Msg: m.Data})
	}
}

// end closes the connection and fails what was not answered.
func (l *natsLink) end() {
	l.conn.Close() // before nats.go tries to flush into a dead socket
	l.nc.Close()
	<-l.closed
	l.mu.Lock()
	calls := l.calls
	l.calls, l.dead = map[uint64]func(Answer){}, true
	l.mu.Unlock()
	for _, answer := range calls {
		answer(Answer{Err: ErrDisconnected})
	}
	l.pings.Wait()
	l.watches.Wait()
}

// MaxMessage implements Sink.
func (s *NATSSink) MaxMessage() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return 0
	}
	return s.link.nc.MaxPayload()
}

// Heard implements Sink.
func (s *NATSSink) Heard() time.Time {
	s.mu.Lock()
	link := s.link
	s.mu.Unlock()
	if link == nil {
		return time.Time{}
	}
	return link.heard()
}

// heard is when the server last sent anything. If that was a while ago, a
// ping makes it speak.
func (l *natsLink) heard() time.Time {
	at := time.Unix(0, l.conn.heardAt.Load())
	if time.Since(at) > pingAfter && l.pinging.CompareAndSwap(false, true) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.dead {
			return at
		}
		l.pings.Go(func() {
			defer l.pinging.Store(false)
			_ = l.nc.FlushTimeout(writePatient) // a PING and its PONG
		})
	}
	return at
}

// Reconnect implements Sink.
func (s *NATSSink) Reconnect(reason string) {
	s.mu.Lock()
	link := s.link
	s.mu.Unlock()
	if link != nil {
		s.logger.Warn("the connection to the core is dropped", "err", reason)
		link.conn.Close() // nats.go notices, serve returns
	}
}

// Stats implements Sink.
func (s *NATSSink) Stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SinkStats{Connected: s.link != nil, Reconnects: max(0, s.connects-1), BytesWritten: s.written, LastError: s.lastErr}
	if s.link != nil {
		st.Server = s.link.nc.ConnectedUrlRedacted()
		st.BytesWritten += s.link.conn.written.Load()
	}
	return st
}
