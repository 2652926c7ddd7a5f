package log

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

const (
	journalDir = "journal"
	topicsDir  = "topics"
)

// Log is an open log. Its methods are safe for concurrent use.
//
// It owns three goroutines: the committer, the flusher and, for a while after
// the first Open, the one that makes the rest of the journal's slots. Close
// joins them.
type Log struct {
	opt    Options
	log    *slog.Logger
	fs     vfs.FS
	meta   metaStore
	id     [16]byte
	epoch  int32
	report RecoveryReport

	// Between recovery and the first commit.
	epochID   [16]byte
	newTopics []topicMeta // that the journal must hear of

	// admin serialises what changes topics and metadata.
	admin        sync.Mutex
	nextProducer int64 // guarded by admin: next id to give
	endProducer  int64 // guarded by admin: end of the persisted block

	topicsMu sync.RWMutex
	topics   map[string]*topic
	byID     map[record.TopicID]*topic
	parts    []*Partition // copied on change

	// gate is held shared by appenders, from giving offsets to having put the
	// records into the open generation, and exclusively by the committer while
	// it takes that generation: so each append falls wholly into one commit.
	gate    sync.RWMutex
	gen     *generation // the one that gathers
	closing bool        // guarded by gate

	genMu sync.Mutex // guards dirty and control of gen, under a shared gate

	pending   atomic.Int64 // bytes appended and not yet committed
	pendLimit int64
	pendMu    sync.Mutex
	pendFree  *sync.Cond // pending went down, or the log failed or closes

	kicked   atomic.Bool
	commitCh chan struct{}
	hurryCh  chan struct{} // ends gathering early
	closeCh  chan struct{} // closed by Close
	done     sync.WaitGroup
	stopped  chan struct{} // committer has ended
	finished atomic.Bool
	closeErr error
	closed   chan struct{} // Close has ended

	interval time.Duration
	j        *journal
	raw      []byte // committer's buffer
	recap    []recapped
	builders sync.Pool // *record.Builder

	durable atomic.Uint64 // LSN
	waitMu  sync.Mutex
	waits   map[LSN]chan struct{}
	notes   []note
	failErr error // guarded by waitMu
	failed  chan struct{}

	flush flusher
	cache segCache

	time      atomic.Int64 // hybrid, ms
	headBytes atomic.Int64

	offsets *offsetTable
	space   space
	ledger  ledger
	stat    counters
}

// Open opens the log in o.Dir, or makes one, and recovers what a crash has
// left: what had been acknowledged is there again before Open returns, and
// nothing else but whole records that were on their way. It begins an epoch,
// which is durable on return; where the disk is too full for that, before
// anything else of the epoch is.
//
// Errors: ErrLocked if another process has the directory; any other error
// means that the directory cannot be used as it is. Damage is no error: it is
// quarantined and in Recovery.
func Open(o Options) (*Log, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.EnsureDefaults()
	began := time.Now()
	meta, err := o.openMeta(&o)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", o.Dir, err)
	}
	l, err := recoverLog(o, meta)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", o.Dir, errors.Join(err, meta.close()))
	}
	l.start()
	if err := l.waitOrFull(1); err != nil { // the epoch's commit
		return nil, fmt.Errorf("open log %s: %w", o.Dir, errors.Join(err, l.Close()))
	}
	if err := l.enterFound(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", o.Dir, errors.Join(err, l.Close()))
	}
	l.report.Duration = time.Since(began)
	return l, nil
}

// waitOrFull waits for a commit of Open's, but not for room on a full disk:
// then the log serves reads and refuses records, and what was to be committed
// leads everything else once there is room (P8).
func (l *Log) waitOrFull(n LSN) error {
	for {
		ctx, cancel := context.WithTimeout(noCtx, 100*time.Millisecond)
		err := l.Wait(ctx, n)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if l.space.blocked.Load() && l.space.refusal.Load() != nil {
			l.log.Error("the disk is too full to begin an epoch: the log can be read, records are refused until there is room", "dir", l.opt.Dir)
			return nil
		}
	}
}

// newLog is a log without state.
func newLog(o Options, meta metaStore) *Log {
	l := &Log{
		opt:      o,
		log:      o.Logger,
		fs:       o.FS,
		meta:     meta,
		topics:   map[string]*topic{},
		byID:     map[record.TopicID]*topic{},
		gen:      &generation{lsn: 1},
		commitCh: make(chan struct{}, 1),
		hurryCh:  make(chan struct{}, 1),
		closeCh:  make(chan struct{}),
		stopped:  make(chan struct{}),
		closed:   make(chan struct{}),
		waits:    map[LSN]chan struct{}{},
		failed:   make(chan struct{}),
		interval: o.CommitInterval,
	}
	l.pendFree = sync.NewCond(&l.pendMu)
	l.builders.New = func() any { return new(record.Builder) }
	l.flush.init(l)
	l.cache.init(l)
	l.offsets = newOffsetTable(l)
	return l
}

// start runs the goroutines.
func (l *Log) start() {
	l.done.Go(l.commitLoop)
	l.done.Go(l.flush.loop)
	l.done.Go(func() { l.j.makeRest(l.closeCh, l.log) })
}

// Close commits what is pending, writes the heads to the segments as far as
// that takes 5 s (the journal keeps the rest), marks the end in the journal and
// releases the directory. Appends that have not begun get ErrClosed. It is
// idempotent; later calls wait for the first and return its error.
func (l *Log) Close() error {
	if !l.finished.CompareAndSwap(false, true) {
		<-l.closed
		return l.closeErr
	}
	l.gate.Lock()
	l.closing = true
	l.gate.Unlock()
	l.wakePending()
	close(l.closeCh)
	l.flush.wake()
	l.done.Wait()
	err := l.Err()
	if err == nil {
		err = l.finish()
	}
	l.endWaits(record.ErrClosed)
	l.cache.closeAll()
	l.j.close()
	if merr := l.meta.close(); err == nil {
		err = merr
	}
	l.closeErr = err
	close(l.closed)
	return err
}

// finish is the last work of a sound log, after its goroutines have ended.
func (l *Log) finish() error {
	l.flush.last(time.Now().Add(5 * time.Second))
	if err := l.Err(); err != nil {
		return err
	}
	l.raw = append(l.raw[:0], zeros[:entryHeader]...)
	l.raw = appendSection(l.raw, sectionClose, nil)
	_, err := l.writeEntry(l.raw)
	if err == nil {
		err = writeMeta(l.meta, map[string][]byte{
			keyTime:     u64bytes(uint64(l.now())),
			keyProducer: u64bytes(uint64(l.endProducer)),
		})
	}
	if isFull(err) {
		l.log.Warn("disk full: the log closes without a mark, as after a power cut", "err", err)
		return nil
	}
	return err
}

// ID is the random name of this log, made at its first Open and kept.
func (l *Log) ID() [16]byte { return l.id }

// Epoch is the number of this Open: one more than the highest before.
func (l *Log) Epoch() int32 { return l.epoch }

// Recovery is what Open found and did.
func (l *Log) Recovery() RecoveryReport { return l.report }

// Err is not nil once the log is poisoned: a write or sync failed, and nothing
// is acknowledged any more. Reads go on. The process should end: the next Open
// reads what the device really holds.
func (l *Log) Err() error {
	l.waitMu.Lock()
	defer l.waitMu.Unlock()
	return l.failErr
}

// Failed is closed when the log is poisoned.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// fail poisons the log: the first error counts.
func (l *Log) fail(err error) {
	l.waitMu.Lock()
	if l.failErr != nil {
		l.waitMu.Unlock()
		return
	}
	l.failErr = fmt.Errorf("%w: %w", record.ErrStorage, err)
	close(l.failed)
	l.waitMu.Unlock()
	l.log.Error("the disk refuses; nothing more is acknowledged until a restart", "dir", l.opt.Dir, "err", err)
	l.endWaits(nil)
	l.wakePending()
	l.flush.wake()
}

// now is hybrid time in ms: the system's, never behind what has been given
// before.
func (l *Log) now() int64 {
	t := l.opt.Clock().UnixMilli()
	for {
		old := l.time.Load()
		if t <= old {
			return old
		}
		if l.time.CompareAndSwap(old, t) {
			return t
		}
	}
}

// NewProducerID gives a producer id that no one has got from this log before.
// Blocks of 1000 are persisted, so a restart may skip some.
func (l *Log) NewProducerID() (int64, error) {
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.nextProducer == l.endProducer {
		end := l.endProducer + producerBlock
		if err := writeMeta(l.meta, map[string][]byte{keyProducer: u64bytes(uint64(end))}); err != nil {
			return 0, fmt.Errorf("%w: producer ids: %w", record.ErrStorage, err)
		}
		l.endProducer = end
	}
	l.nextProducer++
	return l.nextProducer - 1, nil
}

const producerBlock = 1000

// random16 is a fresh random name.
func random16() (id [16]byte) {
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

func (l *Log) path(elem ...string) string {
	return filepath.Join(append([]string{l.opt.Dir}, elem...)...)
}
