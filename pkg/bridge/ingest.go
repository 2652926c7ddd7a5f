package bridge

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

// ErrTopic says that the log topic of a message is missing and could not be
// created.
var ErrTopic = errors.New("no such log topic")

// IngestOptions are the parts of an Ingest.
type IngestOptions struct {
	Log    *log.Log     // required
	Routes *route.Table // nil: everything to route.DefaultTopic
	Site   string       // value of header site; "": no such header
	// EnsureTopic creates a log topic that is missing and is nil if it exists.
	// nil: one with default settings.
	EnsureTopic func(name string) error
	// ClockTrusted says whether the system clock is known to be set. nil: it is.
	ClockTrusted func() bool
}

// Ingest stores MQTT messages in the log as the routes say. All methods may
// be called from any goroutine.
type Ingest struct {
	log     *log.Log
	site    string
	ensure  func(string) error
	trusted func() bool
	routes  atomic.Pointer[route.Table]
	topics  atomic.Pointer[map[string]*topic] // copied on write
	mu      sync.Mutex                        // serialises the writers of topics
	records sync.Pool                         // *record.Record, filled by route.Table.Record
	counts  counters
}

// topic is a log topic that messages have gone to.
type topic struct {
	partitions []*log.Partition
}

type counters struct {
	stored, bytes, dropped, payloadErrors, timeFixed atomic.Int64
}

// IngestStats counts since the Ingest was made.
type IngestStats struct {
	Stored        int64 // records appended
	StoredBytes   int64 // their payload bytes
	Dropped       int64 // messages that a route drops
	PayloadErrors int64 // records stored with header payload.error
	TimeFixed     int64 // records stored with header time.fixed
}

// NewIngest makes an Ingest and creates the topics that the routes name.
func NewIngest(o IngestOptions) (*Ingest, error) {
	in := &Ingest{log: o.Log, site: o.Site, ensure: o.EnsureTopic, trusted: o.ClockTrusted}
	in.records.New = func() any { return new(record.Record) }
	if in.ensure == nil {
		in.ensure = in.create
	}
	if in.trusted == nil {
		in.trusted = func() bool { return true }
	}
	if err := in.SetRoutes(o.Routes); err != nil {
		return nil, err
	}
	return in, nil
}

func (in *Ingest) create(name string) error {
	_, err := in.log.CreateTopic(name, record.DefaultTopicConfig())
	if errors.Is(err, record.ErrTopicExists) {
		return nil
	}
	return err
}

// SetRoutes replaces the routes for messages that come from now on, after
// creating the topics that they name; with an error the old ones stay. nil:
// everything to route.DefaultTopic.
func (in *Ingest) SetRoutes(t *route.Table) error {
	if t == nil {
		t, _ = route.Compile(nil)
	}
	names := t.Topics()
	if len(names) == 0 {
		names = []string{route.DefaultTopic}
	}
	for _, name := range names {
		if err := in.ensure(name); err != nil {
			return fmt.Errorf("create topic %s of a route: %w", name, err)
		}
	}
	in.routes.Store(t.ForSite(in.site))
	return nil
}

// Store appends what the message becomes to the log. The record is durable
// when log.Log.Durable reaches lsn; lsn 0 means that a route drops the
// message, which is no error. It copies payload. It blocks while the log has
// too much uncommitted. RefusalOf says what an error means for the sender.
func (in *Ingest) Store(mqttTopic string, payload []byte) (lsn log.LSN, err error) {
	routes := in.routes.Load()
	m, _ := routes.Match(mqttTopic)
	if m.Drop() {
		in.counts.dropped.Add(1)
		return 0, nil
	}
	rec := in.records.Get().(*record.Record)
	out := routes.Record(&m, mqttTopic, payload, time.Now(), in.trusted(), rec)
	lsn, err = in.append(m.Topic(), rec)
	rec.Value = nil // not ours
	in.records.Put(rec)
	if err != nil {
		return 0, err
	}
	in.counts.stored.Add(1)
	in.counts.bytes.Add(int64(len(payload)))
	if out.PayloadError {
		in.counts.payloadErrors.Add(1)
	}
	if out.TimeFixed {
		in.counts.timeFixed.Add(1)
	}
	return lsn, nil
}

func (in *Ingest) append(name string, rec *record.Record) (log.LSN, error) {
	for again := false; ; again = true {
		t, err := in.topic(name)
		if err != nil {
			return 0, err
		}
		p := t.partitions[record.PartitionOf(rec.Key, int32(len(t.partitions)))]
		_, lsn, err := p.Append(rec)
		if errors.Is(err, record.ErrUnknownTopic) && !again {
			in.forget(name, t) // deleted since; it may have been made anew
			continue
		}
		return lsn, err
	}
}

func (in *Ingest) topic(name string) (*topic, error) {
	if m := in.topics.Load(); m != nil {
		if t := (*m)[name]; t != nil {
			return t, nil
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	info, err := in.log.Topic(name)
	if errors.Is(err, record.ErrUnknownTopic) {
		if err = in.ensure(name); err == nil {
			info, err = in.log.Topic(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrTopic, name, err)
	}
	t := new(topic)
	for i := range info.Config.Partitions {
		p, err := in.log.Partition(name, i)
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrTopic, name, err)
		}
		t.partitions = append(t.partitions, p)
	}
	in.replace(func(m map[string]*topic) { m[name] = t })
	return t, nil
}

func (in *Ingest) forget(name string, t *topic) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.replace(func(m map[string]*topic) {
		if m[name] == t {
			delete(m, name)
		}
	})
}

// replace publishes a changed copy of the topics. The caller holds mu.
func (in *Ingest) replace(change func(map[string]*topic)) {
	c := make(map[string]*topic)
	if m := in.topics.Load(); m != nil {
		for k, v := range *m {
			c[k] = v
		}
	}
	change(c)
	in.topics.Store(&c)
}

// Stats returns the counters.
func (in *Ingest) Stats() IngestStats {
	return IngestStats{
		Stored:        in.counts.stored.Load(),
		StoredBytes:   in.counts.bytes.Load(),
		Dropped:       in.counts.dropped.Load(),
		PayloadErrors: in.counts.payloadErrors.Load(),
		TimeFixed:     in.counts.timeFixed.Load(),
	}
}
