package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"edgehub/internal/config"
	"edgehub/internal/obs"
	"edgehub/internal/web"
)

// Options are what a hub is made of.
type Options struct {
	Config  *config.Config
	Version string
	Logger  *slog.Logger // nil: nothing is logged
}

// Hub is a running hub. All methods are safe for concurrent use.
type Hub struct {
	cfg     *config.Config
	version string
	logger  *slog.Logger
	started time.Time
	metrics *obs.Metrics

	role role // what the role adds

	mu       sync.Mutex
	phase    string   // what the start is at; "" once it is done
	problems []string // found at start; somebody should look
	web      *web.Server
	closing  sync.Once
}

// role is the part of a hub that differs between edge and core.
type role interface {
	// start opens the parts in order. What it opened it closes in close, also
	// after an error.
	start(ctx context.Context, h *Hub) error
	close() error
	// failed is closed when the hub cannot go on without a new start.
	failed() <-chan struct{}
	err() error
	// ready names what is missing.
	ready(ctx context.Context) []string
	// health names what is wrong; failing if the hub does not do its work.
	health(ctx context.Context) (problems []string, failing bool)
	status(ctx context.Context, s *web.Status)
	scrape(s *obs.Scrape)
}

// Start makes a running hub. It returns once every listener serves; at the
// core topics and majority may come later (Ready tells).
func Start(ctx context.Context, o Options) (*Hub, error) {
	h := &Hub{cfg: o.Config, version: o.Version, logger: o.Logger, started: time.Now(), phase: "starting"}
	if h.logger == nil {
		h.logger = slog.New(slog.DiscardHandler)
	}
	if err := prepareData(h.cfg.Data); err != nil {
		return nil, err
	}
	if h.cfg.DataChosen != "" {
		h.logger.Info("data folder chosen; name another by data", "dir", h.cfg.Data, "because", h.cfg.DataChosen)
	}
	switch h.cfg.Role {
	case config.CoreNode:
		h.role = newCoreRole(h.cfg)
	default:
		h.role = newEdgeRole(h.cfg)
	}
	h.metrics = obs.NewMetrics("hub", h.version)
	h.metrics.Add(h.role.scrape)
	if h.cfg.HTTP.On() {
		srv, err := web.Listen(web.Options{
			Listen: h.cfg.HTTP.Listen, Health: h.health, Ready: h.ready,
			Status:  func(ctx context.Context) any { return h.Status(ctx) },
			Metrics: h.metrics.Handler(), Logger: h.logger,
		})
		if err != nil {
			return nil, listenError("http.listen", h.cfg.HTTP.Listen, err)
		}
		h.mu.Lock()
		h.web = srv
		h.mu.Unlock()
	}
	if err := h.role.start(ctx, h); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.enter("")
	return h, nil
}

// enter notes what the start is at.
func (h *Hub) enter(phase string) {
	h.mu.Lock()
	h.phase = phase
	h.mu.Unlock()
	if phase != "" {
		h.logger.Debug("start", "phase", phase)
	}
}

// warn notes and logs where the configuration does not fit what is there.
func (h *Hub) warn(problems ...string) {
	h.mu.Lock()
	h.problems = append(h.problems, problems...)
	h.mu.Unlock()
	for _, p := range problems {
		h.logger.Warn("configuration does not fit", "problem", p)
	}
}

// Failed is closed when the hub cannot go on: a write or sync failed. It
// acknowledges nothing any more and must be started again.
func (h *Hub) Failed() <-chan struct{} { return h.role.failed() }

// Err is why Failed was closed.
func (h *Hub) Err() error { return h.role.err() }

// Close ends the hub in order. It returns once everything has ended.
func (h *Hub) Close() error {
	var err error
	h.closing.Do(func() {
		h.enter("stopping")
		err = h.role.close()
		h.mu.Lock()
		srv := h.web
		h.mu.Unlock()
		if srv != nil {
			err = errors.Join(err, srv.Close())
		}
	})
	return err
}

// Ready names what is missing until the hub serves; nil: nothing.
func (h *Hub) Ready(ctx context.Context) []string {
	h.mu.Lock()
	phase := h.phase
	h.mu.Unlock()
	if phase != "" {
		return []string{phase}
	}
	return h.role.ready(ctx)
}

func (h *Hub) ready(ctx context.Context) web.Health {
	out := web.Health{Status: web.OK, Name: h.cfg.Name, Version: h.version, Problems: h.Ready(ctx)}
	if len(out.Problems) > 0 {
		out.Status = web.Degraded
	}
	return out
}

func (h *Hub) health(ctx context.Context) web.Health {
	out := web.Health{Status: web.OK, Name: h.cfg.Name, Version: h.version}
	h.mu.Lock()
	phase := h.phase
	out.Problems = append(out.Problems, h.problems...)
	h.mu.Unlock()
	if phase != "" {
		out.Problems = append(out.Problems, phase)
	} else {
		problems, failing := h.role.health(ctx)
		out.Problems = append(out.Problems, problems...)
		if failing {
			out.Status = web.Failing
			return out
		}
	}
	if len(out.Problems) > 0 {
		out.Status = web.Degraded
	}
	return out
}

// Status is how the hub does.
func (h *Hub) Status(ctx context.Context) *web.Status {
	missing := h.Ready(ctx)
	s := &web.Status{
		Name: h.cfg.Name, Role: string(h.cfg.Role), Version: h.version, Started: h.started.UTC(),
		Ready: len(missing) == 0, Problems: append([]string{}, missing...), Listeners: map[string]string{},
		Data: h.cfg.Data, Topics: []web.Topic{},
	}
	h.mu.Lock()
	phase, srv := h.phase, h.web
	s.Problems = append(s.Problems, h.problems...)
	h.mu.Unlock()
	if srv != nil {
		s.Listeners["http"] = srv.Addr().String()
	}
	if phase == "" {
		h.role.status(ctx, s)
	}
	return s
}

// prepareData makes the data folder and sees that it can be written.
func prepareData(dir string) error {
	const advice = "let the hub's user write there, or name another folder by data"
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("data folder %s: %w: %s", dir, cause(err), advice)
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if errors.Is(err, syscall.ENOSPC) {
		return nil // it can be written to, but for the room; the log knows what to do then
	}
	if err != nil {
		return fmt.Errorf("data folder %s: %w: %s", dir, cause(err), advice)
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("data folder %s: %w: %s", dir, cause(err), advice)
	}
	return nil
}

// cause is the system's part of a file error, whose path would say it twice.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// listenError says which key to change when an address cannot be had.
func listenError(key, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is in use by another program, perhaps another hub: stop it, or set %s to another address", key, addr, key)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: no permission to listen on %s: use a port from 1024 on, or set %s to another address", key, addr, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no address %s: set %s to one that it has", key, addr, key)
	}
	return fmt.Errorf("%s: %w", key, err)
}
