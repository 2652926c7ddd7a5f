package mqtt

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// pace lets one event a second through.
type pace struct {
	last atomic.Int64 // ns since 1970
}

func (p *pace) allow() bool {
	now := time.Now().UnixNano()
	last := p.last.Load()
	return (last == 0 || now-last >= int64(time.Second)) && p.last.CompareAndSwap(last, now)
}

// engineLog is the engine's logger: all that it says is for debugging, since
// devices cause it, and the packets that it attaches are left out.
type engineLog struct {
	slog.Handler
}

// Enabled implements slog.Handler.
func (h engineLog) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (h engineLog) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, slog.LevelDebug, "mqtt engine: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "packet" && a.Key != "pk" && a.Key != "will" {
			out.AddAttrs(a)
		}
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h engineLog) WithAttrs(a []slog.Attr) slog.Handler { return engineLog{h.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (h engineLog) WithGroup(name string) slog.Handler { return engineLog{h.Handler.WithGroup(name)} }
