package web

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed page.html
var page []byte

// Options are what a Server shows. Functions may be nil: then the path is 404.
type Options struct {
	Listen  string                           // host:port; port 0 takes a free one
	Health  func(ctx context.Context) Health // what is wrong now
	Ready   func(ctx context.Context) Health // OK: ready; else Problems say what is missing
	Status  func(ctx context.Context) any    // for /api/v1/status
	Metrics http.Handler
	Page    []byte // for /; nil: the hub's own page
	Logger  *slog.Logger

	// Patience is how long a function may take before the answer is given
	// without it; default 3 s.
	Patience time.Duration
}

// maxConnections bounds open connections; more wait to be accepted.
const maxConnections = 128

// Server answers HTTP. Close it to end it.
type Server struct {
	o    Options
	ln   net.Listener
	http *http.Server
	done chan struct{}
	once sync.Once
}

// Listen binds and serves.
func Listen(o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Second
	}
	if o.Page == nil {
		o.Page = page
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("http: listen on %s: %w", o.Listen, err)
	}
	s := &Server{o: o, ln: ln, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /{$}", s.page)
	if o.Status != nil {
		mux.HandleFunc("GET /api/v1/status", s.status)
	}
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(&bounded{Listener: ln, slots: make(chan struct{}, maxConnections), closed: make(chan struct{})}); err != http.ErrServerClosed {
			o.Logger.Error("http listener ended", "address", ln.Addr().String(), "err", err)
		}
	}()
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close ends the server: answers in progress get one second.
func (s *Server) Close() error {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.http.Shutdown(ctx) != nil {
			s.http.Close()
		}
		<-s.done
	})
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	h := s.ask(r.Context(), s.o.Health)
	code := http.StatusOK
	if h.Status == Failing {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, h)
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	h := s.ask(r.Context(), s.o.Ready)
	code := http.StatusOK
	if h.Status != OK {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, h)
}

// ask calls f and gives up on it after the server's patience. The goroutine of
// a call given up on ends when f does; busy keeps them to one per kind of
// question only as far as callers ask one at a time, so f must end some day.
func (s *Server) ask(ctx context.Context, f func(context.Context) Health) Health {
	if f == nil {
		return Health{Status: OK, Problems: []string{}}
	}
	h, ok := within(ctx, s.o.Patience, f)
	if !ok {
		return Health{Status: Failing, Problems: []string{fmt.Sprintf("the parts of the hub do not say within %s how they are", s.o.Patience)}}
	}
	if h.Problems == nil {
		h.Problems = []string{}
	}
	return h
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	v, ok := within(r.Context(), s.o.Patience, s.o.Status)
	if !ok {
		writeJSON(w, http.StatusServiceUnavailable, Health{Status: Failing, Problems: []string{"the parts of the hub do not answer"}})
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// within calls f, which should end with its context, and waits no longer than
// patience.
func within[T any](ctx context.Context, patience time.Duration, f func(context.Context) T) (T, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	out := make(chan T, 1)
	go func() {
		defer cancel()
		out <- f(ctx)
	}()
	t := time.NewTimer(patience + patience/4)
	defer t.Stop()
	select {
	case v := <-out:
		return v, true
	case <-t.C:
		var zero T
		return zero, false
	}
}

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(s.o.Page)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	io.WriteString(w, string(b)+"\n")
}

// bounded accepts no more connections than it has slots.
type bounded struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: func() { <-b.slots }}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	once sync.Once
	free func()
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}
