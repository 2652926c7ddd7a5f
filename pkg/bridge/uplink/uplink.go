package uplink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Topic is a topic to forward.
type Topic struct {
	Name string
	// Priority orders topics when the link is short: higher goes first. From
	// UrgentPriority on records are sent at once instead of being gathered for
	// up to a second.
	Priority int
}

// UrgentPriority is the lowest priority whose records are not gathered.
const UrgentPriority = 5

// helloPatience is how long a Hello may take over a link that is alive.
const helloPatience = 25 * time.Second

// DefaultGroup is the consumer group in which the cursor is kept.
const DefaultGroup = "uplink"

// Options of an Uplink.
type Options struct {
	Source Source // required; Run closes it
	Sink   Sink   // required; Run closes it
	Topics []Topic
	// Group is the consumer group in the hub that holds the cursor; default
	// DefaultGroup.
	Group string
	// Bandwidth bounds what goes to the core, in bytes/s; 0: no bound.
	Bandwidth int64
	// CommitInterval is how often the cursor is saved if it moved; default
	// 2 s.
	CommitInterval time.Duration
	// Compression of the batches that the uplink makes of small ones; nil:
	// zstd.
	Compression *record.Codec
	Logger      *slog.Logger // nil: nothing is logged
}

// Uplink forwards the topics of one hub to one core.
type Uplink struct {
	source Source
	sink   Sink
	topics []Topic
	group  string
	every  time.Duration
	codec  record.Codec
	logger *slog.Logger

	hub    *hubView
	routes *routes
	pacer  *pacer
	kick   chan struct{}

	commits   atomic.Int64
	commitErr atomic.Int64
	drops     atomic.Int64
	running   atomic.Bool
	laneCount atomic.Int32

	mu        sync.Mutex
	lanes     map[laneKey]*lane
	missing   []string
	hubErr    error
	counted   int64 // records acknowledged, when they were counted, and
	countedAt time.Time
	perSecond float64 // how many in a second
	trouble   bool    // the hub cannot be read, and when that was last told
	troubleAt time.Time
	answerAt  time.Time // when the core last answered anything, or a link was dropped
}

// New makes an Uplink. It does nothing before Run.
func New(o Options) (*Uplink, error) {
	switch {
	case o.Source == nil || o.Sink == nil:
		return nil, errors.New("uplink: no source or no sink")
	case len(o.Topics) == 0:
		return nil, errors.New("uplink: no topics to forward: name some under topics")
	case len(o.Topics) > forward.MaxTopics:
		return nil, fmt.Errorf("uplink: %d topics, at most %d", len(o.Topics), forward.MaxTopics)
	case o.Bandwidth < 0:
		return nil, fmt.Errorf("uplink: bandwidth %d is negative", o.Bandwidth)
	}
	names := make([]string, 0, len(o.Topics))
	for _, t := range o.Topics {
		if err := record.CheckTopicName(t.Name); err != nil {
			return nil, fmt.Errorf("uplink: topics: %w", err)
		}
		if slices.Contains(names, t.Name) {
			return nil, fmt.Errorf("uplink: topic %q is named twice", t.Name)
		}
		names = append(names, t.Name)
	}
	u := &Uplink{
		source: o.Source, sink: o.Sink, topics: slices.Clone(o.Topics),
		group: cmp.Or(o.Group, DefaultGroup), every: cmp.Or(o.CommitInterval, 2*time.Second),
		codec: record.Zstd, logger: o.Logger,
		hub:   newHubView(o.Source, names),
		pacer: newPacer(o.Bandwidth),
		kick:  make(chan struct{}, 1),
		lanes: map[laneKey]*lane{},
	}
	if o.Compression != nil {
		u.codec = *o.Compression
	}
	if u.logger == nil {
		u.logger = slog.New(slog.DiscardHandler)
	}
	u.routes = &routes{ask: u.hello, sem: make(chan struct{}, 1)}
	return u, nil
}

// Run forwards until ctx ends, whatever fails: hub and core may come and go.
// Then it ends all lanes, saves the cursor if the hub answers within 3 s,
// closes Source and Sink, and returns nil. It may be called once.
func (u *Uplink) Run(ctx context.Context) error {
	if u.running.Swap(true) {
		return errors.New("uplink: Run is called twice")
	}
	u.touch()
	var wg sync.WaitGroup
	wg.Go(func() { u.commitLoop(ctx) })
	u.own(ctx)
	wg.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := u.commit(last); err != nil {
		u.logger.Warn("the cursor was not saved: the next start sends nothing twice all the same", "err", err)
	}
	u.pacer.close()
	return errors.Join(u.sink.Close(), u.source.Close())
}

// own keeps a lane running for every partition to forward.
func (u *Uplink) own(ctx context.Context) {
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	lanes := map[laneKey]running{}
	end := func(k laneKey) {
		lanes[k].cancel()
		<-lanes[k].done
		delete(lanes, k)
	}
	pause := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	quiet := backoff{min: time.Second, max: 5 * time.Second}
	for ctx.Err() == nil {
		hub, err := u.hub.refresh(ctx)
		u.mu.Lock()
		u.hubErr = err
		u.mu.Unlock()
		if err != nil {
			if ctx.Err() == nil {
				u.hubTrouble(err)
			}
			_ = sleep(ctx, pause.next())
			continue
		}
		pause.reset()
		keys := hub.keys()
		for k := range lanes {
			if !slices.Contains(keys, k) {
				u.logger.Warn("the hub does not have this partition any more", "topic", k.Topic, "partition", k.Partition.Partition, "id", k.ID.String())
				end(k)
				u.mu.Lock()
				delete(u.lanes, k)
				u.mu.Unlock()
			}
		}
		var fresh []*lane
		for _, k := range keys {
			if _, ok := lanes[k]; ok {
				continue
			}
			i := slices.IndexFunc(u.topics, func(t Topic) bool { return t.Name == k.Topic })
			l := newLane(u, k, u.topics[i].Priority)
			fresh = append(fresh, l)
			u.mu.Lock()
			u.lanes[k] = l
			u.mu.Unlock()
		}
		if len(fresh) > 0 {
			u.cursors(ctx, fresh)
		}
		for _, l := range fresh {
			lctx, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() {
				defer close(done)
				l.run(lctx)
			}()
			lanes[l.key] = running{cancel, done}
		}
		u.laneCount.Store(int32(len(lanes)))
		var missing []string
		for _, t := range u.topics {
			if hub.Topic(t.Name) == nil {
				missing = append(missing, t.Name)
			}
		}
		u.mu.Lock()
		if len(missing) > 0 && !slices.Equal(missing, u.missing) {
			u.logger.Info("the hub has no such topics yet, waiting for them", "topics", missing)
		}
		u.missing = missing
		u.mu.Unlock()
		next := 30 * time.Second
		if len(missing) > 0 {
			next = quiet.next()
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case <-u.kick:
		case <-ctx.Done():
		}
		t.Stop()
	}
	for k := range lanes {
		lanes[k].cancel() // all at once
	}
	for k := range lanes {
		end(k)
	}
}

func (u *Uplink) kickOwner() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// cursors reads the committed cursor of new lanes: until the core answers it
// is the best guess of the backlog. Only statistics depend on it.
func (u *Uplink) cursors(ctx context.Context, lanes []*lane) {
	offs, err := u.source.Cursors(ctx, u.group)
	if err != nil {
		return
	}
	for _, l := range lanes {
		for _, o := range offs {
			if o.Topic == l.key.Topic && o.Partition == l.key.Partition.Partition {
				l.update(func(st *LaneStats) { st.Committed = o.Offset })
			}
		}
	}
}

func (u *Uplink) commitLoop(ctx context.Context) {
	for sleep(ctx, u.every) == nil {
		u.measure()
		if err := u.commit(ctx); err != nil && ctx.Err() == nil {
			u.logger.Debug("the cursor was not saved, trying on", "err", err)
		}
	}
}

// measure takes the records acknowledged since the last time into their rate.
func (u *Uplink) measure() {
	total := int64(0)
	for _, l := range u.sorted() {
		total += l.stats().Records
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if !u.countedAt.IsZero() && total >= u.counted {
		rate := float64(total-u.counted) / now.Sub(u.countedAt).Seconds()
		u.perSecond += (rate - u.perSecond) / 4
	}
	u.counted, u.countedAt = total, now
}

// commit saves the cursors that moved. A cursor is a lower bound of the
// core's mark (U4): losing a commit costs nothing but retention.
func (u *Uplink) commit(ctx context.Context) error {
	var (
		offs  []record.GroupOffset
		moved []*lane
	)
	for _, l := range u.sorted() {
		if o, ok := l.cursor(); ok {
			offs = append(offs, o)
			moved = append(moved, l)
		}
	}
	if len(offs) == 0 {
		return nil
	}
	if err := u.source.Commit(ctx, u.group, offs); err != nil {
		u.commitErr.Add(1)
		return err
	}
	u.commits.Add(1)
	for i, l := range moved {
		l.update(func(st *LaneStats) { st.Committed = offs[i].Offset })
	}
	return nil
}

// sorted is the lanes by priority, topic and partition.
func (u *Uplink) sorted() []*lane {
	u.mu.Lock()
	lanes := make([]*lane, 0, len(u.lanes))
	for _, l := range u.lanes {
		lanes = append(lanes, l)
	}
	u.mu.Unlock()
	slices.SortFunc(lanes, func(a, b *lane) int {
		return cmp.Or(b.priority-a.priority, cmp.Compare(a.key.Topic, b.key.Topic),
			cmp.Compare(a.key.Partition.Partition, b.key.Partition.Partition))
	})
	return lanes
}

// connect waits a while for a connection to the core.
func (u *Uplink) connect(ctx context.Context, site string) error {
	cctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := u.sink.Connect(cctx, site); err != nil {
		if cctx.Err() != nil && ctx.Err() == nil {
			return errNoCore
		}
		return err
	}
	return nil
}

// hello asks the core where the hub's topics go.
func (u *Uplink) hello(ctx context.Context, hub *Hub) (*forward.HelloReply, error) {
	hello := forward.Hello{Site: hub.Site, Log: hub.Log}
	for _, t := range hub.Topics {
		hello.Topics = append(hello.Topics, forward.HelloTopic{Name: t.Name, ID: t.ID, Partitions: t.Partitions})
	}
	var reply forward.HelloReply
	if err := u.exchange(ctx, forward.HelloSubject(hub.Site), forward.KindHello, &hello, forward.KindHelloReply, &reply); err != nil {
		return nil, fmt.Errorf("greet the core: %w", err)
	}
	if reply.Code != forward.CodeOK {
		return nil, fmt.Errorf("greet the core: %w", &codeError{reply.Code, reply.Message})
	}
	return &reply, nil
}

// exchange sends a request and waits for its answer.
func (u *Uplink) exchange(ctx context.Context, subject string, k forward.Kind, control any, rk forward.Kind, reply any) error {
	msg, err := forward.Encode(nil, k, control)
	if err != nil {
		return err
	}
	sent := time.Now()
	call, err := u.sink.Send(subject, msg)
	if err != nil {
		return err
	}
	defer call.Cancel()
	patience := minPatience + u.pacer.allowance()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for progress := sent; ; {
		select {
		case a := <-call.C:
			if a.Err != nil {
				return a.Err
			}
			rtt := time.Since(sent)
			u.touch()
			u.pacer.observe(rtt)
			return decodeReply(a.Msg, rk, reply)
		case <-tick.C:
			if moved := call.Moved(); moved.After(progress) {
				progress = moved
			}
			heard := u.sink.Heard()
			if k == forward.KindHello && time.Since(heard) < patience && time.Since(sent) < helloPatience {
				continue // the core may be creating topics
			}
			if time.Since(progress) >= patience {
				u.stalled(patience)
				return errNoAnswer
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// touch notes that the core answered something.
func (u *Uplink) touch() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answerAt = time.Now()
}

// hubTrouble tells once that the hub cannot be read, for all lanes, and once
// that it can again (err nil).
func (u *Uplink) hubTrouble(err error) {
	u.mu.Lock()
	was, at := u.trouble, u.troubleAt
	u.trouble = err != nil
	fresh := u.trouble && (!was || time.Since(at) > time.Minute)
	if fresh {
		u.troubleAt = time.Now()
	}
	u.mu.Unlock()
	switch {
	case fresh:
		u.logger.Warn("the hub cannot be read, trying on", "err", err)
	case was && err == nil:
		u.logger.Info("the hub answers again")
	}
}

// stalled is called by who waited for an answer as long as patience in vain.
// If nobody got one in that time and the link is silent, it is dropped. A
// link that is alive is given the time that the core needs to elect a leader;
// then the node at its end is probably cut off from the others.
func (u *Uplink) stalled(patience time.Duration) {
	silent := time.Since(u.sink.Heard()) >= patience
	u.mu.Lock()
	quiet := time.Since(u.answerAt)
	drop := silent && quiet >= patience || quiet >= 4*patience
	if drop {
		u.answerAt = time.Now() // not again before the new one had its time
	}
	u.mu.Unlock()
	if drop {
		u.drops.Add(1)
		u.sink.Reconnect(fmt.Sprintf("no answer for %s", patience.Round(time.Millisecond)))
	}
}

// Stats is a snapshot.
func (u *Uplink) Stats() Stats {
	s := Stats{Link: u.sink.Stats(), Core: u.routes.cluster(), Bandwidth: u.pacer.bandwidth,
		Commits: u.commits.Load(), CommitErrors: u.commitErr.Load(), Reconnects: u.drops.Load()}
	s.Rate, s.InFlight = u.pacer.snapshot()
	if hub := u.hub.current(); hub != nil {
		s.Site, s.Log = hub.Site, hub.Log.String()
	}
	u.mu.Lock()
	s.Missing = slices.Clone(u.missing)
	s.RecordsPerSecond = math.Round(u.perSecond)
	s.HubUp = s.Site != "" && u.hubErr == nil
	if u.hubErr != nil {
		s.HubErr = u.hubErr.Error()
	}
	u.mu.Unlock()
	for _, l := range u.sorted() {
		st := l.stats()
		if st.State == StateHub {
			s.HubUp, s.HubErr = false, st.LastError
		}
		s.Lanes = append(s.Lanes, st)
	}
	return s
}
