package obs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Levels are the names that NewLogger takes.
const Levels = "debug, info, warn or error"

// NewLogger writes text lines to w from level on ("" is info). Repeats are
// limited as Limit says.
func NewLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	switch strings.ToLower(level) {
	case "debug":
		l = slog.LevelDebug
	case "", "info":
		l = slog.LevelInfo
	case "warn":
		l = slog.LevelWarn
	case "error":
		l = slog.LevelError
	default:
		return nil, fmt.Errorf("log level %q is unknown: use %s", level, Levels)
	}
	h := slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})
	return slog.New(Limit(h, 20, 10*time.Second)), nil
}

// Limit lets through at most burst lines of one message and level within per;
// what it holds back is counted, and the next line that passes says so in
// attribute "suppressed". Debug is never held back. Messages are constants,
// so the memory it takes is bounded by the program's text; beyond that by
// maxMessages.
func Limit(h slog.Handler, burst int, per time.Duration) slog.Handler {
	return &limiter{Handler: h, shared: &limits{burst: burst, per: per, seen: map[limitKey]*limit{}}}
}

const maxMessages = 1024

type limiter struct {
	slog.Handler
	shared *limits
}

type limitKey struct {
	level   slog.Level
	message string
}

type limit struct {
	began      time.Time
	passed     int
	suppressed int
}

type limits struct {
	burst int
	per   time.Duration

	mu   sync.Mutex
	seen map[limitKey]*limit
}

// allow says whether a line may pass, and how many did not before it.
func (l *limits) allow(k limitKey, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.seen[k]
	if e == nil {
		if len(l.seen) >= maxMessages {
			clear(l.seen)
		}
		e = &limit{began: now}
		l.seen[k] = e
	}
	if now.Sub(e.began) >= l.per || now.Before(e.began) {
		suppressed = e.suppressed
		*e = limit{began: now}
	}
	if e.passed >= l.burst {
		e.suppressed++
		return 0, false
	}
	e.passed++
	return suppressed, true
}

func (h *limiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level > slog.LevelDebug {
		n, ok := h.shared.allow(limitKey{r.Level, r.Message}, r.Time)
		if !ok {
			return nil
		}
		if n > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("suppressed", n))
		}
	}
	return h.Handler.Handle(ctx, r)
}

func (h *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limiter{Handler: h.Handler.WithAttrs(attrs), shared: h.shared}
}

func (h *limiter) WithGroup(name string) slog.Handler {
	return &limiter{Handler: h.Handler.WithGroup(name), shared: h.shared}
}
