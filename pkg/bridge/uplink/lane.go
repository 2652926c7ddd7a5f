package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Why a session ends. Each is answered by the next session; judge says when
// that begins.
var (
	errHubChanged = errors.New("the hub began another epoch or is another one")
	errGone       = errors.New("the partition is not part of the hub any more")
	errNoAnswer   = errors.New("the core does not answer")
	errNoCore     = errors.New("no connection to the core")
	errResume     = errors.New("the core resumes at a place that the hub never had")
)

// haltTime is about how long a halted lane rests before it tries again.
const haltTime = time.Minute

// hubError is a failed request to the hub.
type hubError struct{ err error }

func (e *hubError) Error() string { return "hub: " + e.err.Error() }
func (e *hubError) Unwrap() error { return e.err }

// lane forwards one source partition. Its goroutine runs one session after
// the other; only its statistics are shared.
type lane struct {
	u        *Uplink
	key      laneKey
	priority int
	reader   Reader
	logger   *slog.Logger

	pause    backoff
	eager    bool // the session made progress: the next may begin at once
	srtt     time.Duration
	routeGen uint64

	said   string // the last error logged, and when
	saidAt time.Time

	mu       sync.Mutex
	st       LaneStats
	ackEpoch int32 // number of the epoch of st.Acked
}

func newLane(u *Uplink, k laneKey, priority int) *lane {
	return &lane{
		u: u, key: k, priority: priority, reader: u.source.Read(k.Partition),
		logger: u.logger.With("topic", k.Topic, "partition", k.Partition.Partition),
		pause:  backoff{min: 50 * time.Millisecond, max: time.Second},
		eager:  true,
		st: LaneStats{Topic: k.Topic, TopicID: k.ID.String(), Partition: k.Partition.Partition, Priority: priority,
			State: StateStarting, Acked: -1, Committed: -1},
	}
}

// run forwards until ctx ends.
func (l *lane) run(ctx context.Context) {
	defer l.reader.Close()
	for ctx.Err() == nil {
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		l.update(func(st *LaneStats) { st.Retries++; st.LastError = err.Error() })
		if wait := l.judge(err); wait > 0 {
			l.wait(ctx, wait)
		}
	}
}

// judge says how long to wait after a session that ended with err, tells
// people and sets the state.
func (l *lane) judge(err error) time.Duration {
	var (
		code    *codeError
		damaged *damagedError
		hub     *hubError
	)
	errors.As(err, &code)
	refused := code != nil && (code.code == forward.CodeRefused || code.code == forward.CodeVersion)
	switch {
	case refused, errors.As(err, &damaged), errors.Is(err, ErrTooLarge):
		// U5. Whether the core was misconfigured or the batch is bad, a human
		// must look; trying again costs little and heals the former.
		l.update(func(st *LaneStats) { st.Refused++; st.State = StateHalted })
		l.u.routes.forget(l.routeGen)
		l.say(slog.LevelError, "lane halted: this offset cannot be forwarded", err)
		return (&backoff{min: haltTime, max: haltTime}).next()
	case errors.As(err, &hub):
		l.update(func(st *LaneStats) { st.State = StateHub })
		l.u.hubTrouble(err)
		return l.pause.next()
	case errors.Is(err, errNoCore):
		l.update(func(st *LaneStats) { st.State = StateCore })
		return 0 // Connect has waited
	}
	l.update(func(st *LaneStats) { st.State = StateCore })
	l.say(slog.LevelInfo, "lane opens again", err)
	switch {
	case errors.Is(err, errGone):
		l.u.kickOwner() // which ends this lane
		return time.Second
	case errors.Is(err, ErrNoResponders), errors.Is(err, errNoRoute), errors.Is(err, errNoAnswer),
		code != nil && code.code == forward.CodeNoLeader:
		// A core that was made anew has other topics; its leaders may want
		// to be told of this site again.
		l.u.routes.forget(l.routeGen)
	}
	again := errors.Is(err, errHubChanged) || errors.Is(err, errChain) || errors.Is(err, ErrDisconnected) ||
		code != nil && (code.code == forward.CodeMismatch || code.code == forward.CodeReopen)
	if again && l.eager {
		l.eager = false
		return 0
	}
	return l.pause.next()
}

// say logs an error once, and again every minute while it lasts.
func (l *lane) say(level slog.Level, msg string, err error) {
	if text := err.Error(); text != l.said || time.Since(l.saidAt) >= time.Minute {
		l.said, l.saidAt = text, time.Now()
		l.logger.Log(context.Background(), level, msg, "offset", l.stats().Acked, "err", err)
	}
}

// wait sleeps, and keeps the backlog in the statistics true meanwhile.
func (l *lane) wait(ctx context.Context, d time.Duration) {
	const look = 5 * time.Second
	for ; d > look; d -= look {
		if sleep(ctx, look) != nil {
			return
		}
		if o, err := l.reader.Offsets(ctx); err == nil {
			l.sawOffsets(o.LogStart, o.HighWatermark)
		}
	}
	_ = sleep(ctx, d)
}

func (l *lane) update(f func(*LaneStats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.st)
}

func (l *lane) stats() LaneStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.st
	st.RTT = Duration(l.srtt)
	from := st.Acked
	if from < 0 {
		from = st.Committed
	}
	st.Backlog = max(0, st.HighWatermark-max(from, st.LogStart))
	return st
}

func (l *lane) sawOffsets(logStart, hw int64) {
	l.update(func(st *LaneStats) { st.LogStart, st.HighWatermark = logStart, hw })
}

// progress says that the core has everything before next.
func (l *lane) progress(next int64, epoch int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.st.Acked, l.ackEpoch = next, epoch
}

// cursor is what may be committed in the hub; ok if that differs from what
// is (U4).
func (l *lane) cursor() (o record.GroupOffset, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o = record.GroupOffset{
		TopicPartition: record.TopicPartition{Topic: l.key.Topic, Partition: l.key.Partition.Partition},
		Offset:         l.st.Acked, LeaderEpoch: l.ackEpoch,
	}
	return o, l.st.Acked >= 0 && l.st.Acked != l.st.Committed
}

// open does all of a session that comes before its first Append.
func (l *lane) open(ctx context.Context) (*session, error) {
	hub, chain, offs, err := l.look(ctx)
	if err != nil {
		return nil, err
	}
	l.u.hubTrouble(nil)
	l.sawOffsets(offs.LogStart, offs.HighWatermark)
	if err := l.u.connect(ctx, hub.Site); err != nil {
		return nil, err
	}
	topic, partition, gen, err := l.u.routes.route(ctx, hub, l.key)
	l.routeGen = gen
	if err != nil {
		return nil, err
	}
	s := &session{
		lane: l, hub: hub, chain: chain,
		source:  forward.Source{Site: hub.Site, Log: hub.Log, Topic: l.key.ID, Partition: l.key.Partition.Partition},
		subject: forward.LaneSubject(hub.Site, topic, partition),
		fetched: make(chan struct{}),
	}
	var reply forward.Reply
	err = l.u.exchange(ctx, s.subject, forward.KindOpen,
		&forward.Open{Source: s.source, Epochs: chain, LogStart: offs.LogStart, Next: offs.HighWatermark},
		forward.KindReply, &reply)
	if err != nil {
		return nil, fmt.Errorf("open the lane: %w", err)
	}
	if reply.Code != forward.CodeOK {
		return nil, fmt.Errorf("open the lane: %w", &codeError{reply.Code, reply.Message})
	}
	at, ok := placeOf(chain, reply.Resume)
	if !ok {
		return nil, fmt.Errorf("%w: epoch %s, offset %d", errResume, reply.Resume.Epoch, reply.Resume.Next)
	}
	s.window = reply.Window
	s.cutter = newCutter(chain, at, l.u.codec)
	l.progress(at.next, chain[at.epoch].Number)
	l.update(func(st *LaneStats) { st.Opens++; st.State = StateStreaming; st.LastError = "" })
	l.logger.Debug("lane opened", "offset", at.next, "epoch", chain[at.epoch].Number, "next", offs.HighWatermark)
	return s, nil
}

// look reads what an Open says. The range lies between two descriptions of
// the hub that agree, so all of it is of one run (U3).
func (l *lane) look(ctx context.Context) (*Hub, []forward.Epoch, record.Offsets, error) {
	var before []forward.Epoch
	if hub := l.u.hub.current(); hub != nil && hub.has(l.key) {
		before, _ = hub.Chain(l.key.Partition)
	}
	for {
		offs, err := l.reader.Offsets(ctx)
		if err != nil && !errors.Is(err, record.ErrUnknownTopic) {
			return nil, nil, offs, &hubError{err}
		}
		gone := err != nil
		hub, err := l.u.hub.refresh(ctx)
		if err != nil {
			return nil, nil, offs, &hubError{err}
		}
		if !hub.has(l.key) || gone {
			return nil, nil, offs, errGone
		}
		chain, err := hub.Chain(l.key.Partition)
		if err != nil {
			return nil, nil, offs, &hubError{err}
		}
		if slices.Equal(chain, before) {
			return hub, chain, offs, nil
		}
		before = chain
	}
}

// placeOf finds a Position in a chain: its epoch must be there and must have
// given its offset, or end there.
func placeOf(chain []forward.Epoch, p forward.Position) (place, bool) {
	for i := len(chain) - 1; i >= 0; i-- {
		if chain[i].ID != p.Epoch {
			continue
		}
		last := i == len(chain)-1
		ok := p.Next >= chain[i].Start && (last || p.Next <= chain[i+1].Start)
		// Of a chain that was cut at forward.MaxEpochs the first epoch also
		// stands for those before it.
		return place{i, p.Next}, ok || i == 0 && p.Next >= 0 && p.Next < chain[i].Start
	}
	return place{}, false
}
