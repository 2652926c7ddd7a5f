package log

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"edgehub/pkg/log/record"
)

// topic is a topic of an open log. parts never change.
type topic struct {
	name     string
	id       record.TopicID
	internal bool // its name begins with record.InternalPrefix
	cfg      atomic.Pointer[record.TopicConfig]
	parts    []*Partition
}

func (t *topic) meta() topicMeta {
	return topicMeta{Name: t.name, ID: t.id.String(), Config: *t.cfg.Load()}
}

// Partition is one partition of a topic. It stays usable until its topic is
// deleted; then its methods return ErrUnknownTopic. Its methods are safe for
// concurrent use.
type Partition struct {
	log   *Log
	topic *topic
	index int32
	dir   string

	maxBytes atomic.Int32 // of a batch
	loose    atomic.Bool  // durability interval or none: acknowledged before the sync

	mu   sync.Mutex
	gone bool // the topic is being deleted: nothing is appended or read
	// dropped says that the deletion is durable and the files go: what is still
	// committed of the partition is not kept.
	dropped bool

	// Appending.
	next  int64 // offset of the next record
	pend  *pend // what the open generation holds of this partition
	taken *pend // committer: the same of the generation in flight
	pids  producers

	// Reading: all of it is durable.
	start      int64 // log start
	startAsked int64 // the same, on its way to the device
	hw         int64
	head       []chunk // committed, not yet in segments; copied on trim
	headBytes  int64
	segs       []*segment // by base offset; copied on change
	open       *segment   // the last of segs, if it still grows
	flushed    int64      // offset behind the last record in segments
	synced     int64      // the same, for synced ones
	epochs     []epochFrom
	damages    []hole // ranges that are known to be lost
	watchers   []chan<- struct{}

	queued   bool // in flusher.queue
	carrying bool // in generation.carry
	dirMade  bool // flusher's: the directory exists and its name is synced
}

// chunk is a run of committed batches of one commit.
type chunk struct {
	base, next int64
	seq        uint64 // of the journal entry that holds it
	own        bool   // built here; may be merged
	data       []byte // whole batches; immutable
	maxTS      int64
	time       int64 // of the commit, hybrid ms
}

// Topic is the name of the partition's topic.
func (p *Partition) Topic() string { return p.topic.name }

// TopicID is the id of the partition's topic.
func (p *Partition) TopicID() record.TopicID { return p.topic.id }

// Index is the number of the partition in its topic.
func (p *Partition) Index() int32 { return p.index }

func (p *Partition) String() string { return fmt.Sprintf("%s/%d", p.topic.name, p.index) }

func (l *Log) newTopic(m topicMeta, id record.TopicID) *topic {
	t := &topic{name: m.Name, id: id, internal: strings.HasPrefix(m.Name, record.InternalPrefix)}
	for i := range m.Config.Partitions {
		t.parts = append(t.parts, &Partition{
			log: l, topic: t, index: i,
			dir: l.path(topicsDir, m.Name, strconv.Itoa(int(i))),
		})
	}
	t.configure(m.Config)
	return t
}

func (t *topic) configure(cfg record.TopicConfig) {
	t.cfg.Store(&cfg)
	for _, p := range t.parts {
		p.maxBytes.Store(cfg.MaxMessageBytes)
		p.loose.Store(cfg.Durability != record.DurabilityFsync)
	}
}

// addTopic makes a topic known.
func (l *Log) addTopic(t *topic) {
	l.topicsMu.Lock()
	defer l.topicsMu.Unlock()
	l.topics[t.name] = t
	l.byID[t.id] = t
	l.parts = append(slices.Clip(l.parts), t.parts...)
}

// hideTopic makes lookups fail; the flusher still knows the partitions, which
// pin the tail until the deletion is durable.
func (l *Log) hideTopic(t *topic) {
	l.topicsMu.Lock()
	defer l.topicsMu.Unlock()
	delete(l.topics, t.name)
	delete(l.byID, t.id)
}

func (l *Log) removeParts(t *topic) {
	l.topicsMu.Lock()
	defer l.topicsMu.Unlock()
	l.parts = slices.DeleteFunc(slices.Clone(l.parts), func(p *Partition) bool { return p.topic == t })
}

// partitions are those of all topics; the slice must not be changed.
func (l *Log) partitions() []*Partition {
	l.topicsMu.RLock()
	defer l.topicsMu.RUnlock()
	return l.parts
}

func (l *Log) lookup(name string) (*topic, error) {
	l.topicsMu.RLock()
	defer l.topicsMu.RUnlock()
	if t := l.topics[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: %s", record.ErrUnknownTopic, name)
}

// checkConfig fills defaults and says what is wrong. On a disk too small for a
// journal that takes the default max_message_bytes, the default is what the
// journal takes.
func (l *Log) checkConfig(cfg *record.TopicConfig) error {
	cfg.EnsureDefaults()
	if cfg.MaxMessageBytes == record.DefaultMaxMessageBytes {
		cfg.MaxMessageBytes = int32(min(record.DefaultMaxMessageBytes, l.maxItem()))
	}
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s", record.ErrInvalidConfig, fmt.Sprintf(format, a...))
	}
	switch {
	case cfg.Partitions < 1 || cfg.Partitions > record.MaxPartitions:
		return fmt.Errorf("%w: %d: use 1 to %d", record.ErrInvalidPartitions, cfg.Partitions, record.MaxPartitions)
	case cfg.RetentionTime < -1 || cfg.RetentionBytes < -1:
		return bad("retention is negative: use -1 for no limit")
	case cfg.MaxMessageBytes < 1024 || int64(cfg.MaxMessageBytes) > l.maxItem():
		return bad("max_message_bytes %d: use 1024 to %d with this journal", cfg.MaxMessageBytes, l.maxItem())
	case cfg.Compression > record.Zstd:
		return bad("compression %v is unknown", cfg.Compression)
	case cfg.Durability > record.DurabilityNone:
		return bad("durability %d is unknown", cfg.Durability)
	case cfg.Priority > record.PriorityHigh:
		return bad("priority %d is unknown", cfg.Priority)
	}
	return nil
}

// CreateTopic makes a topic; it is durable on return. Zero fields of cfg take
// their default.
//
// Errors: ErrTopicExists, ErrInvalidTopic, ErrInvalidPartitions,
// ErrInvalidConfig, ErrStorage, ErrClosed.
func (l *Log) CreateTopic(name string, cfg record.TopicConfig) (record.TopicInfo, error) {
	if err := record.CheckTopicName(name); err != nil {
		return record.TopicInfo{}, err
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	if err := l.alive(); err != nil {
		return record.TopicInfo{}, err
	}
	if _, err := l.lookup(name); err == nil {
		return record.TopicInfo{}, fmt.Errorf("%w: %s", record.ErrTopicExists, name)
	}
	if err := l.checkConfig(&cfg); err != nil {
		return record.TopicInfo{}, err
	}
	t := l.newTopic(topicMeta{Name: name, Config: cfg}, random16())
	if n := l.tableBytes(t); n > l.j.slotBytes/maxTableShare {
		return record.TopicInfo{}, fmt.Errorf("%w: the table of all partitions would take %d bytes, at most %d fit: use fewer partitions or a larger journal",
			record.ErrInvalidPartitions, n, l.j.slotBytes/maxTableShare)
	}
	for _, p := range t.parts {
		p.epochs = []epochFrom{{l.epoch, 0}}
	}
	if err := l.putTopic(t.meta()); err != nil {
		return record.TopicInfo{}, err
	}
	l.addTopic(t)
	return l.info(t), nil
}

// tableBytes estimates the slot table from above, with t in it.
func (l *Log) tableBytes(t *topic) int64 {
	m := t.meta()
	n := int64(len(m.encode()) + 10 + 30*len(t.parts))
	l.topicsMu.RLock()
	defer l.topicsMu.RUnlock()
	for _, o := range l.topics {
		m := o.meta()
		n += int64(len(m.encode()) + 10 + 30*len(o.parts))
	}
	return n
}

// putTopic makes a topic's metadata durable, in meta.db and, in case that gets
// lost, in the journal.
func (l *Log) putTopic(m topicMeta) error {
	if err := writeMeta(l.meta, map[string][]byte{prefixTopic + m.Name: m.encode()}); err != nil {
		return fmt.Errorf("%w: topic %s: %w", record.ErrStorage, m.Name, err)
	}
	return l.controlWait(appendSection(nil, sectionTopic, m.encode()), nil)
}

// ConfigureTopic changes the configuration of a topic, all but Partitions,
// which must be 0 or as it is. It is durable on return.
//
// Errors: as CreateTopic, and ErrUnknownTopic.
func (l *Log) ConfigureTopic(name string, cfg record.TopicConfig) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	if err := l.alive(); err != nil {
		return err
	}
	t, err := l.lookup(name)
	if err != nil {
		return err
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = int32(len(t.parts))
	}
	if err := l.checkConfig(&cfg); err != nil {
		return err
	}
	if int(cfg.Partitions) != len(t.parts) {
		return fmt.Errorf("%w: topic %s has %d partitions, which never changes", record.ErrInvalidPartitions, name, len(t.parts))
	}
	if cfg == *t.cfg.Load() {
		return nil // each start declares its topics anew: no write for that
	}
	if err := l.putTopic(topicMeta{Name: name, ID: t.id.String(), Config: cfg}); err != nil {
		return err
	}
	t.configure(cfg)
	return nil
}

// DeleteTopic removes a topic and all its records. It is durable before any
// file is unlinked (J7); when DeleteTopic returns nil, the files are gone.
func (l *Log) DeleteTopic(name string) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	t, err := l.lookup(name)
	if err != nil {
		return err
	}
	if name == record.EpochsTopic || name == OffsetsTopic || name == LedgerTopic {
		return fmt.Errorf("%w: %s belongs to the log itself", record.ErrInvalidTopic, name)
	}
	// From here on no append passes: all of them hold the gate.
	l.gate.Lock()
	if l.closing {
		l.gate.Unlock()
		return record.ErrClosed
	}
	for _, p := range t.parts {
		p.mu.Lock()
		p.gone = true
		p.wake()
		p.mu.Unlock()
	}
	l.gate.Unlock()
	l.hideTopic(t)
	entry := uint64(0)
	err = l.controlWait(appendSection(nil, sectionDelete, t.id[:]), func(seq uint64) {
		entry = seq // before Wait returns
		l.flush.pin(seq)
	})
	if err != nil {
		return err
	}
	if err := writeMeta(l.meta, map[string][]byte{prefixTopic + name: nil}); err != nil {
		return fmt.Errorf("%w: topic %s: %w", record.ErrStorage, name, err)
	}
	gone := make(chan error, 1)
	l.flush.unlink(t, entry, gone)
	select {
	case err = <-gone:
	case <-l.failed:
		err = l.Err()
	case <-l.closeCh:
		err = record.ErrClosed // the next Open ends the work
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	return l.offsets.forgetTopic(name)
}

// removeTree unlinks a topic's directory with all that is in it.
func (l *Log) removeTree(dir string) error {
	list, err := l.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		name := filepath.Join(dir, e.Name)
		if e.Dir {
			err = l.removeTree(name)
		} else {
			err = l.fs.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	if err := l.fs.SyncDir(dir); err != nil {
		return err
	}
	return l.fs.Remove(dir)
}

// Topic describes a topic. Error: ErrUnknownTopic.
func (l *Log) Topic(name string) (record.TopicInfo, error) {
	t, err := l.lookup(name)
	if err != nil {
		return record.TopicInfo{}, err
	}
	return l.info(t), nil
}

// Topics describes all topics, internal ones too, sorted by name.
func (l *Log) Topics() []record.TopicInfo {
	l.topicsMu.RLock()
	list := make([]*topic, 0, len(l.topics))
	for _, t := range l.topics {
		list = append(list, t)
	}
	l.topicsMu.RUnlock()
	slices.SortFunc(list, func(a, b *topic) int { return strings.Compare(a.name, b.name) })
	out := make([]record.TopicInfo, len(list))
	for i, t := range list {
		out[i] = l.info(t)
	}
	return out
}

func (l *Log) info(t *topic) record.TopicInfo {
	info := record.TopicInfo{
		Name: t.name, ID: t.id, Config: *t.cfg.Load(),
		Internal:   t.internal,
		Partitions: make([]record.PartitionInfo, len(t.parts)),
	}
	for i := range info.Partitions {
		// A single node: whoever serves this log calls it node 1.
		info.Partitions[i] = record.PartitionInfo{Leader: 1, LeaderEpoch: l.epoch, Replicas: []int32{1}}
	}
	return info
}

// Partition finds a partition. Error: ErrUnknownTopic.
func (l *Log) Partition(topic string, p int32) (*Partition, error) {
	t, err := l.lookup(topic)
	if err != nil {
		return nil, err
	}
	if p < 0 || int(p) >= len(t.parts) {
		return nil, fmt.Errorf("%w: %s/%d of %d", record.ErrUnknownTopic, topic, p, len(t.parts))
	}
	return t.parts[p], nil
}

// alive is the error of a log that takes nothing any more.
func (l *Log) alive() error {
	l.gate.RLock()
	closing := l.closing
	l.gate.RUnlock()
	if closing {
		return record.ErrClosed
	}
	return l.Err()
}
