package process

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
	"edgehub/pkg/payload"
)

// Options of an Engine.
type Options struct {
	// Log has inputs and outputs. It must stay open until Close has returned.
	Log *log.Log
	// Dir is where snapshots go: <Dir>/<process>/<partition>/. The engine owns
	// it.
	Dir string
	// FS is where Dir is; default vfs.OS().
	FS vfs.FS
	// Definitions are the processes; none may read what it leads to.
	Definitions []Definition
	// Decoder gives a decoder for the values of a topic; default auto. It is
	// called once per task.
	Decoder func(topic string) payload.Decoder
	// ClockTrusted says whether the wall clock may close the windows of idle
	// keys; default never.
	ClockTrusted func() bool
	// Clock is the wall clock; default time.Now.
	Clock func() time.Time
	// SnapshotEvery is how often a task saves its state while there is input;
	// default 60 s. It waits up to 15 minutes where input is small beside
	// state, and does not wait beyond SnapshotBytes of input, default 64 MB.
	SnapshotEvery time.Duration
	SnapshotBytes int64
	// Logger gets what an operator should know; nil: nothing is logged.
	Logger *slog.Logger
}

func (o *Options) ensureDefaults() error {
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.Decoder == nil {
		auto, err := payload.New(payload.Auto, payload.Options{})
		if err != nil {
			return err
		}
		o.Decoder = func(string) payload.Decoder { return auto }
	}
	if o.ClockTrusted == nil {
		o.ClockTrusted = func() bool { return false }
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = 60 * time.Second
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Engine runs processes. Its methods are safe for concurrent use.
type Engine struct {
	o     Options
	stop  chan struct{}
	wg    sync.WaitGroup
	steps *log.Partition // of Topic

	// How many steps are left in Topic beyond those that are needed, and how
	// far a quiet task's last step may fall behind before it is appended
	// again.
	trimSlack, refreshSlack int64

	mu      sync.Mutex
	tasks   []*task
	started bool
	closed  bool
}

// New checks the definitions. It does not touch the log.
func New(o Options) (*Engine, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	if o.Log == nil || o.Dir == "" {
		return nil, errors.New("process: a log and a folder for snapshots are needed")
	}
	for i, d := range o.Definitions {
		if err := Check(d); err != nil {
			return nil, err
		}
		for _, other := range o.Definitions[:i] {
			if other.Name == d.Name {
				return nil, fmt.Errorf("process %q is defined twice: names are unique", d.Name)
			}
		}
	}
	if err := acyclic(o.Definitions); err != nil {
		return nil, err
	}
	return &Engine{o: o, stop: make(chan struct{}), trimSlack: 1024, refreshSlack: 8192}, nil
}

// acyclic refuses processes that feed themselves.
func acyclic(defs []Definition) error {
	for _, d := range defs {
		reach := []string{d.To, d.To + LateSuffix}
		for i := 0; i < len(reach); i++ {
			for _, next := range defs {
				if next.From != reach[i] {
					continue
				}
				if next.Name == d.Name {
					return fmt.Errorf("process %q reads what it leads to, by topic %q: break the circle", d.Name, reach[i])
				}
				for _, t := range []string{next.To, next.To + LateSuffix} {
					if !slices.Contains(reach, t) {
						reach = append(reach, t)
					}
				}
			}
		}
	}
	return nil
}

// Start creates the topics that are missing and starts the tasks. They restore
// their state in the background.
func (e *Engine) Start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started || e.closed {
		return errors.New("process: started already")
	}
	cfg := record.DefaultTopicConfig()
	cfg.RetentionTime, cfg.RetentionBytes, cfg.Priority = -1, -1, record.PriorityHigh
	cfg.MaxMessageBytes = 64 << 10 // a step takes about 100
	if len(e.o.Definitions) > 0 {
		if _, err := e.ensureTopic(Topic, cfg); err != nil {
			return err
		}
		var err error
		if e.steps, err = e.o.Log.Partition(Topic, 0); err != nil {
			return fmt.Errorf("open topic %s: %w", Topic, err)
		}
	}
	if err := e.ensureTopics(); err != nil {
		return err
	}
	histories, err := e.readSteps()
	if err != nil {
		return err
	}
	for _, d := range e.o.Definitions {
		info, err := e.o.Log.Topic(d.From)
		if err != nil {
			return fmt.Errorf("process %q: open topic %s: %w", d.Name, d.From, err)
		}
		for p := range info.Config.Partitions {
			t, err := e.newTask(d, info.ID, p)
			if err != nil {
				return fmt.Errorf("process %q: %w", d.Name, err)
			}
			if t.past = histories[t.key]; len(t.past) > 0 {
				t.need.Store(t.past[0].offset) // before any task trims
			}
			e.tasks = append(e.tasks, t)
		}
	}
	slices.SortFunc(e.tasks, func(a, b *task) int {
		return cmp.Or(cmp.Compare(a.spec.Name, b.spec.Name), cmp.Compare(a.partition, b.partition))
	})
	e.started = true
	for _, t := range e.tasks {
		e.wg.Go(t.run)
	}
	return nil
}

// Close stops the tasks, which save their state, and waits for them. The log
// must still be open. It may be called more than once.
func (e *Engine) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.stop)
	}
	e.mu.Unlock()
	e.wg.Wait()
	return nil
}

// Stats is a snapshot of all tasks.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	tasks := e.tasks
	e.mu.Unlock()
	s := Stats{Tasks: make([]TaskStats, 0, len(tasks))}
	for _, t := range tasks {
		s.Tasks = append(s.Tasks, t.snapshotStats())
	}
	return s
}

func (e *Engine) ensureTopic(name string, cfg record.TopicConfig) (record.TopicInfo, error) {
	info, err := e.o.Log.Topic(name)
	if errors.Is(err, record.ErrUnknownTopic) {
		info, err = e.o.Log.CreateTopic(name, cfg)
		if errors.Is(err, record.ErrTopicExists) {
			info, err = e.o.Log.Topic(name)
		}
	}
	if err != nil {
		return info, fmt.Errorf("create topic %s: %w", name, err)
	}
	return info, nil
}

// ensureTopics creates inputs and outputs. An output that is missing gets as
// many partitions as its input, so inputs come first along a chain.
func (e *Engine) ensureTopics() error {
	left := slices.Clone(e.o.Definitions)
	for len(left) > 0 {
		made := func(topic string) bool {
			return slices.ContainsFunc(left, func(d Definition) bool { return d.To == topic || d.To+LateSuffix == topic })
		}
		i := slices.IndexFunc(left, func(d Definition) bool { return !made(d.From) })
		if i < 0 {
			i = 0 // a circle; New has refused it
		}
		d := left[i]
		in, err := e.ensureTopic(d.From, record.DefaultTopicConfig())
		if err != nil {
			return fmt.Errorf("process %q: %w", d.Name, err)
		}
		cfg := record.DefaultTopicConfig()
		cfg.Partitions = in.Config.Partitions
		if _, err := e.ensureTopic(d.To, cfg); err != nil {
			return fmt.Errorf("process %q: %w", d.Name, err)
		}
		left = slices.Delete(left, i, i+1)
	}
	return nil
}

// readSteps collects the steps of all tasks by key.
func (e *Engine) readSteps() (map[string]history, error) {
	out := make(map[string]history)
	if e.steps == nil {
		return out, nil
	}
	off := e.steps.Offsets()
	var buf []byte
	for next := off.LogStart; next < off.HighWatermark; {
		f, err := e.steps.Fetch(next, 256<<10, buf[:0])
		if err != nil {
			return nil, fmt.Errorf("read topic %s at offset %d: %w", Topic, next, err)
		}
		buf = f.Batches
		from := next
		if _, err := record.Batches(buf, func(h record.Header, raw []byte) error {
			next = h.NextOffset()
			return record.Records(raw, func(r *record.Record) error {
				s, err := parseStep(r.Value)
				if err != nil {
					e.o.Logger.Warn("step does not read: passed over", "topic", Topic, "offset", r.Offset, "err", err)
					return nil
				}
				h := out[string(r.Key)]
				h.add(stepAt{s, r.Offset})
				out[string(r.Key)] = h
				return nil
			})
		}); err != nil {
			return nil, fmt.Errorf("read topic %s at offset %d: %w", Topic, next, err)
		}
		if next == from {
			break
		}
	}
	return out, nil
}

// trim removes steps that no task needs any more (E4).
func (e *Engine) trim() {
	e.mu.Lock()
	tasks := e.tasks
	e.mu.Unlock()
	off := e.steps.Offsets()
	need := off.HighWatermark
	for _, t := range tasks {
		n := t.need.Load()
		if n < 0 {
			continue
		}
		if need = min(need, n); off.HighWatermark-n > e.refreshSlack {
			select {
			case t.refresh <- struct{}{}:
			default:
			}
		}
	}
	if need-off.LogStart < e.trimSlack {
		return
	}
	if err := e.steps.DeleteBefore(need); err != nil {
		e.o.Logger.Warn("trim steps", "topic", Topic, "err", err)
	}
}

func (e *Engine) newTask(d Definition, topic record.TopicID, p int32) (*task, error) {
	sp, err := compile(d)
	if err != nil {
		return nil, err
	}
	src, err := e.o.Log.Partition(d.From, p)
	if err != nil {
		return nil, fmt.Errorf("open %s/%d: %w", d.From, p, err)
	}
	t := &task{
		e: e, spec: sp, partition: p, src: src,
		key:     d.Name + "/" + strconv.Itoa(int(p)),
		in:      &input{spec: sp, decoder: e.o.Decoder(d.From)},
		store:   store{fs: e.o.FS, dir: filepath.Join(e.o.Dir, d.Name, strconv.Itoa(int(p)))},
		logger:  e.o.Logger.With("process", d.Name, "partition", p),
		refresh: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
	}
	t.lineage.topic, t.lineage.spec = topic, sp.id
	t.need.Store(-1)
	t.stats = TaskStats{Process: d.Name, From: d.From, To: d.To, Partition: p, State: "restoring"}
	return t, nil
}
