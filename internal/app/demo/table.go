package demo

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"edgehub/internal/web"
)

// snapshot is one row of the table.
type snapshot struct {
	published, edge, windows, core int64
	backlog                        int64 // at the edge and not at the core
	unsent                         int64 // as the uplink sees it
	lag                            int64 // of the processes
	link                           string
	uplink                         string // what keeps the uplink from forwarding, "" if nothing
}

// look asks all parts.
func (d *demo) look(ctx context.Context) snapshot {
	s := snapshot{published: d.published.Load(), link: "up"}
	if !d.linkUp.Load() {
		s.link = "CUT"
	}
	e := d.edge.Status(ctx)
	s.edge, s.windows = held(e, rawTopic), held(e, windowTopic)
	for _, p := range e.Processes {
		s.lag += p.Lag
	}
	for _, h := range d.cores {
		c := h.Status(ctx)
		s.core += held(c, rawTopic) + held(c, windowTopic)
	}
	u := d.up.Stats()
	s.unsent, s.backlog = u.Backlog(), max(s.edge+s.windows-s.core, 0)
	if err := u.Ready(); err != nil {
		s.uplink = err.Error()
	}
	return s
}

// held is the number of records of a topic that a hub says it has; at the
// core, of the partitions that it leads.
func held(s *web.Status, topic string) int64 {
	n := int64(0)
	for _, t := range s.Topics {
		if t.Name != topic {
			continue
		}
		for _, p := range t.Partitions {
			if p.End >= 0 {
				n += p.End - p.Start
			}
		}
	}
	return n
}

// watch shows a row regularly until stop is called.
func (d *demo) watch(ctx context.Context) (stop func()) {
	every := 2 * time.Second
	if d.o.TTY {
		every = 250 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.table.row(d.look(ctx))
			case <-ctx.Done():
				d.table.row(d.look(context.WithoutCancel(ctx)))
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// table prints rows; on a terminal the newest one is rewritten in place.
type table struct {
	w     io.Writer
	tty   bool
	began time.Time

	mu   sync.Mutex
	open bool // the last line has no end yet
}

func newTable(w io.Writer, tty bool, began time.Time) *table {
	return &table{w: w, tty: tty, began: began}
}

const rowFormat = "%6s %11s %12s %9s %10s %10s  %s"

func (t *table) head() {
	t.say(rowFormat, "time", "published", "in edge log", "windows", "at core", "backlog", "link")
}

func (t *table) row(s snapshot) {
	line := fmt.Sprintf(rowFormat, t.elapsed(), grouped(s.published), grouped(s.edge), grouped(s.windows), grouped(s.core), grouped(s.backlog), s.link)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.tty {
		fmt.Fprintln(t.w, line)
		return
	}
	fmt.Fprintf(t.w, "\r\x1b[2K%s", line)
	t.open = true
}

// mark prints what has just happened.
func (t *table) mark(what string) { t.say("%6s  -- %s --", t.elapsed(), what) }

// say prints a line that stays.
func (t *table) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLine()
	fmt.Fprintf(t.w, format+"\n", args...)
}

// end ends a line that is being rewritten.
func (t *table) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLine()
}

func (t *table) endLine() {
	if t.open {
		fmt.Fprintln(t.w)
		t.open = false
	}
}

func (t *table) elapsed() string { return fmt.Sprintf("%.0fs", time.Since(t.began).Seconds()) }

// grouped writes a number with thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
