package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"edgehub/internal/config"
)

// stopPatience is how long Run waits for an orderly end. What is not finished
// then is as after a kill: nothing acknowledged is lost.
const stopPatience = 15 * time.Second

// Run runs a hub until ctx ends or it fails. nil: it ended because ctx did.
// Each value from reload is taken over as far as a running hub can.
func Run(ctx context.Context, o Options, reload <-chan *config.Config) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	limitMemory(o.Logger)
	h, err := Start(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // ended while it started
		}
		return err
	}
	s := h.Status(ctx)
	o.Logger.Info("hub serves", "name", s.Name, "role", s.Role, "version", s.Version, "data", s.Data,
		"mqtt", s.Listeners["mqtt"], "kafka", s.Listeners["kafka"], "http", s.Listeners["http"])
	return h.serve(ctx, reload)
}

// serve waits for the end of ctx or of the hub, and closes the hub.
func (h *Hub) serve(ctx context.Context, reload <-chan *config.Config) (err error) {
	for {
		select {
		case c := <-reload:
			if err := h.Reload(c); err != nil {
				h.logger.Error("configuration not taken over; the old one stays", "err", err)
			}
			continue
		case <-ctx.Done():
			h.logger.Info("hub stops")
		case <-h.Failed():
			err = fmt.Errorf("the hub stops so that it can be started into recovery: %w", h.Err())
			h.logger.Error("the log failed: nothing is acknowledged any more", "err", h.Err())
		}
		break
	}
	closed := make(chan error, 1)
	go func() { closed <- h.Close() }()
	t := time.NewTimer(stopPatience)
	defer t.Stop()
	select {
	case cerr := <-closed:
		if cerr != nil {
			h.logger.Warn("not everything ended in order", "err", cerr)
		}
	case <-t.C:
		h.logger.Warn("not everything ended in time; it is left as after a kill", "waited", stopPatience)
	}
	return err
}
