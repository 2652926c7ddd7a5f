package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
)

// ackTimeout is how long a leader waits for a frame's ack before it reads the
// tail to learn what happened. Too short only costs that read.
const ackTimeout = 3 * time.Second

// Pauses of a leader whose stream does not answer.
const (
	retryMin = 20 * time.Millisecond
	retryMax = time.Second
)

// leader writes and serves one partition on the node that leads its stream.
// Everything in it belongs to the goroutine of run.
type leader struct {
	c      *Core
	p      *partition
	log    *slog.Logger
	writer uint64
	number uint64
	st     *state
	lanes  map[forward.Source]*lane
	// attempts are the frames sent with the present Prev whose fate is not
	// known; C2: at most one of them counts.
	attempts []*draft
	sub      *nats.Subscription
}

// run leads until ctx ends.
func (l *leader) run(ctx context.Context) {
	defer l.finish()
	pause := retryMin
	retry := func(what string, err error) bool {
		if ctx.Err() != nil {
			return false
		}
		l.c.stats.retries.Add(1)
		l.log.Debug("leader retries", "what", what, "error", err)
		pause = min(pause*2, retryMax)
		return sleep(ctx, pause) == nil
	}
	for ctx.Err() == nil {
		if err := l.takeOffice(ctx); err != nil {
			if sickness(err) {
				l.quarantine(ctx, err)
				return
			}
			if !retry("take office", err) {
				return
			}
			continue
		}
		pause = retryMin
		if err := l.serve(ctx); err != nil {
			if sickness(err) {
				l.quarantine(ctx, err)
				return
			}
			if !retry("serve", err) {
				return
			}
		}
	}
}

// sickness says that the error is one of the data, not of the moment.
func sickness(err error) bool {
	return errors.Is(err, errChain) || errors.Is(err, errFrame) || errors.Is(err, errFrameVersion)
}

// finish gives up office: the queue is told to look elsewhere.
func (l *leader) finish() {
	if l.sub != nil {
		l.sub.Unsubscribe()
	}
	l.p.unserve(fmt.Errorf("%w: %s", record.ErrNotLeader, l.p))
	l.c.lanes.drop(l.p)
	l.c.announce()
}

// quarantine makes the partition refuse service on this node, says so, and
// asks another replica to lead. It is tried again after a while, since the
// replica may have been repaired.
func (l *leader) quarantine(ctx context.Context, err error) {
	l.log.Error("partition quarantined: its frames on this node do not add up; another replica should lead, re-seed this one", "error", err)
	l.c.stats.quarantines.Add(1)
	l.p.mu.Lock()
	l.p.sick = err
	l.p.nextStart = time.Now().Add(time.Minute).UnixMilli()
	l.p.mu.Unlock()
	l.c.stepDown(l.p.stream)
}

// takeOffice folds the tail and stores the keyframe that raises the epoch;
// then the partition serves (C3).
func (l *leader) takeOffice(ctx context.Context) error {
	open := l.attempts
	if err := l.fold(ctx); err != nil {
		return err
	}
	now := l.c.now()
	f := l.st.keyframeOf(raiseEpoch(l.st.epoch, now), now)
	seq, err := l.store(ctx, f)
	if err == nil {
		err = l.settle(seq, f)
	}
	if err != nil {
		l.attempts = nil
		found, rerr := l.resolve(ctx, err)
		l.attempts = open
		if rerr != nil {
			return rerr
		}
		if !found {
			return err
		}
	}
	// The keyframe took a sequence, so what was sent before is decided.
	l.attempts = nil
	l.lanes = map[forward.Source]*lane{}
	if err := l.decide(ctx, open); err != nil {
		l.attempts = open
		return err
	}
	l.c.lanes.drop(l.p)
	if l.sub == nil {
		sub, err := l.c.nc.Subscribe(forward.LaneWildcard(l.p.topic, l.p.num), func(m *nats.Msg) { l.c.onLane(l.p, m) })
		if err != nil {
			return fmt.Errorf("subscribe lanes of %s: %w", l.p, err)
		}
		sub.SetPendingLimits(-1, 2*maxQueued)
		l.sub = sub
	}
	l.p.mu.Lock()
	l.p.serving, l.p.sick = true, nil
	l.p.wakeWatchers()
	l.p.mu.Unlock()
	notify(l.p.wake) // what was queued while office was taken again
	l.c.stats.elections.Add(1)
	l.log.Info("leads partition", "epoch", l.st.epoch, "offset", l.st.next, "sequence", l.st.seq)
	l.c.announce()
	return nil
}

// decide looks whether one of the drafts, sent before office was taken again,
// counts: it stands at the sequence that they all asked for (C2). Without
// this a batch without producer id would be stored twice.
func (l *leader) decide(ctx context.Context, drafts []*draft) error {
	if len(drafts) == 0 {
		return nil
	}
	m, err := l.c.js.get(ctx, l.p.stream, drafts[0].f.Prev+1, "")
	if errors.Is(err, errNoMessage) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := parseFrameHeader(m.header)
	if err != nil {
		return fmt.Errorf("sequence %d: %w", m.seq, err)
	}
	for _, d := range drafts {
		if h.Writer == d.f.Writer && h.Number == d.f.Number && h.Prev+1 == m.seq {
			l.adopt(d)
		}
	}
	return nil
}

// raiseEpoch is above epoch and at least the minutes since 2020, so that a
// core restored from a backup does not repeat an epoch.
func raiseEpoch(epoch int32, nowMs int64) int32 {
	const y2020 = 1_577_836_800_000
	minutes := min(max((nowMs-y2020)/60_000, 0), math.MaxInt32/2)
	return max(epoch+1, int32(minutes))
}

// serve stores what is queued until ctx ends or something goes wrong. An
// error that is no sickness means: take office again.
func (l *leader) serve(ctx context.Context) error {
	tick := time.NewTicker(l.c.opt.RetentionInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := l.retain(ctx); err != nil {
				l.log.Warn("retention waits", "error", err)
			}
		case <-l.p.wake:
			for {
				more, err := l.step(ctx)
				if err != nil {
					return err
				}
				if !more {
					break
				}
			}
		}
	}
}

// step answers Opens at the queue's head and stores one frame of what
// follows. more: there may be more in the queue.
func (l *leader) step(ctx context.Context) (more bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	queue := l.p.peek()
	n := 0
	for ; n < len(queue) && queue[n].kind == openRequest; n++ {
		if err := l.open(ctx, queue[n]); err != nil {
			l.p.drop(n)
			return false, err
		}
	}
	l.p.drop(n)
	queue = queue[n:]
	if len(queue) == 0 {
		return false, nil
	}
	if err := l.keyframe(ctx); err != nil {
		return false, err
	}
	l.number++
	l.p.mu.Lock()
	maxMessage := l.p.cfg.MaxMessageBytes
	l.p.mu.Unlock()
	d := build(l.st, l.lanes, queue, maxMessage, l.writer, l.number, l.c.now())
	if d.empty() {
		l.answer(d)
		return true, nil
	}
	// A declared gap is in the ledger before the frame that takes it.
	if err := l.c.ledgerGaps(ctx, l.p, d.f.Gaps); err != nil {
		return false, err
	}
	l.attempts = append(l.attempts, d)
	seq, err := l.store(ctx, &d.f)
	if err == nil {
		if err = l.settle(seq, &d.f); err == nil {
			l.adopt(d)
			return true, nil
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if _, err = l.resolve(ctx, err); err != nil {
		return false, err
	}
	return true, nil
}

// store sends one frame. C2 is kept by the caller: it comes back with
// another frame only after resolve.
func (l *leader) store(ctx context.Context, f *frame) (uint64, error) {
	f.Writer = l.writer
	if f.isKeyframe() {
		l.number++
		f.Number = l.number
	}
	body, err := f.encodeBody()
	if err != nil {
		return 0, err
	}
	h := expectLast(f.Prev)
	h.Set(frameHeaderName, f.frameHeader.encode())
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	begin := time.Now()
	seq, err := l.c.js.publish(ctx, l.p.subject, h, body)
	if err != nil {
		return 0, err
	}
	l.c.stats.frames.Add(1)
	l.c.stats.frameBytes.Add(int64(len(body)))
	l.c.stats.observeAck(time.Since(begin))
	return seq, nil
}

// settle folds a frame that was acked at seq. One that landed elsewhere is
// void (C1): errConflict.
func (l *leader) settle(seq uint64, f *frame) error {
	if seq != f.Prev+1 {
		l.c.stats.voids.Add(1)
		return fmt.Errorf("%w: frame for sequence %d was stored at %d", errConflict, f.Prev+1, seq)
	}
	if _, err := l.st.apply(seq, f); err != nil {
		return err
	}
	l.attempts = l.attempts[:0:0]
	l.entered(seq, f)
	return nil
}

// adopt answers the requests of a draft whose frame counts, and moves its
// lanes.
func (l *leader) adopt(d *draft) {
	for key, cursor := range d.cursors {
		if ln := l.lanes[key]; ln != nil {
			ln.cursor = cursor
		}
	}
	l.answer(d)
}

func (l *leader) answer(d *draft) {
	l.p.mu.Lock()
	logStart := l.p.logStart
	l.p.mu.Unlock()
	l.p.drop(len(d.requests))
	for i, r := range d.requests {
		o := d.outcomes[i]
		o.logStart = logStart
		r.done(o)
	}
}

// entered makes a folded frame visible.
func (l *leader) entered(seq uint64, f *frame) {
	if f.Count > 0 {
		l.c.cache.put(l.p.stream, seq, f)
	}
	l.p.enter(seq, &f.frameHeader)
}

// resolve learns the fate of the attempts by reading the tail from the
// stream's leader, which is this node. One that is found is adopted; found is
// also true for a keyframe of ours. If another writer came first the epoch is
// no longer ours: an error, and office must be taken again. With the tail as
// it was, nothing is known yet: the caller tries again with the same Prev.
func (l *leader) resolve(ctx context.Context, cause error) (found bool, err error) {
	l.c.stats.conflicts.Add(1)
	l.log.Debug("frame not acked, reading the tail", "error", cause)
	if err := sleep(ctx, retryMin); err != nil {
		return false, err
	}
	if !l.c.leads(l.p.stream) {
		return false, fmt.Errorf("%w: %s", record.ErrNotLeader, l.p)
	}
	info, err := l.c.js.info(ctx, l.p.stream)
	if err != nil {
		return false, err
	}
	if info.State.LastSeq < l.st.seq {
		l.log.Error("the stream has lost frames that were acked", "last", info.State.LastSeq, "acked", l.st.seq)
		return false, fmt.Errorf("stream of %s ends at sequence %d, %d was acked", l.p, info.State.LastSeq, l.st.seq)
	}
	for l.st.seq < info.State.LastSeq {
		got, err := l.c.load(ctx, l.p, l.st.seq+1, info.State.LastSeq, 4<<20)
		if err != nil {
			return found, l.hole(ctx, l.st.seq+1, err)
		}
		for _, f := range got {
			seq := l.st.seq + 1
			void, err := l.st.apply(seq, f)
			if err != nil {
				return found, err
			}
			if void {
				continue
			}
			l.entered(seq, f)
			if f.Writer != l.writer {
				l.attempts = nil
				return found, fmt.Errorf("%w: sequence %d of %s is of epoch %d", errConflict, seq, l.p, f.Epoch)
			}
			found = true
			for _, d := range l.attempts {
				if d.f.Number == f.Number {
					l.adopt(d)
				}
			}
			l.attempts = nil
		}
	}
	return found, nil
}

// hole turns a message at seq that the stream's leader lacks, between its
// first and last, into sickness. One that has just been purged is none.
func (l *leader) hole(ctx context.Context, seq uint64, err error) error {
	if !errors.Is(err, errNoMessage) {
		return err
	}
	info, ierr := l.c.js.info(ctx, l.p.stream)
	if ierr != nil {
		return ierr
	}
	if seq < info.State.FirstSeq || seq > info.State.LastSeq {
		return err
	}
	return fmt.Errorf("%w: %w", errChain, err)
}

// fold reads the stream's last keyframe and what came behind it.
func (l *leader) fold(ctx context.Context) error {
	info, err := l.c.js.info(ctx, l.p.stream)
	if err != nil {
		return err
	}
	first, last := info.State.FirstSeq, info.State.LastSeq
	st := newState()
	l.writer, l.number = randomUint64(), 0
	l.p.mu.Lock()
	l.p.serving = false
	l.p.index, l.p.logStart, l.p.firstSeq, l.p.lastSeq, l.p.high, l.p.maxTime, l.p.bytesAt = nil, 0, 0, 0, 0, noTime, 0
	l.p.mu.Unlock()
	if last == 0 || info.State.Msgs == 0 {
		if last != 0 {
			return fmt.Errorf("%w: the stream is empty behind sequence %d", errChain, last)
		}
		l.st = st
		return nil
	}
	key, err := l.lastKeyframe(ctx, first, last)
	if err != nil {
		return err
	}
	l.st = st
	for seq := key; seq <= last; {
		got, err := l.c.load(ctx, l.p, seq, last, 8<<20)
		if err != nil {
			return l.hole(ctx, seq, err)
		}
		for _, f := range got {
			void, err := st.apply(seq, f)
			if err != nil {
				return err
			}
			if !void {
				l.entered(seq, f)
			}
			seq++
		}
	}
	return l.findStart(ctx, first)
}

// lastKeyframe is the sequence of the last keyframe, as the last frame that
// counts names it.
func (l *leader) lastKeyframe(ctx context.Context, first, last uint64) (uint64, error) {
	for seq := last; seq >= first; seq-- {
		m, err := l.c.js.get(ctx, l.p.stream, seq, "")
		if err != nil {
			return 0, l.hole(ctx, seq, err)
		}
		h, err := parseFrameHeader(m.header)
		if err != nil {
			return 0, fmt.Errorf("sequence %d: %w", seq, err)
		}
		if h.Prev+1 != seq {
			continue // void
		}
		if h.Keyframe < first {
			return 0, fmt.Errorf("%w: keyframe %d lies before the first message, %d", errChain, h.Keyframe, first)
		}
		return h.Keyframe, nil
	}
	return 0, fmt.Errorf("%w: no frame counts between sequences %d and %d", errChain, first, last)
}

// findStart finds the first live frame: its base is the log start.
func (l *leader) findStart(ctx context.Context, first uint64) error {
	for seq := first; ; seq++ {
		got, err := l.c.load(ctx, l.p, seq, seq, 1)
		if err != nil {
			return l.hole(ctx, seq, err)
		}
		f := got[0]
		if f.Prev+1 != seq {
			continue
		}
		l.p.mu.Lock()
		l.p.trim(indexEntry{seq: seq, base: f.Base, next: f.next(), maxTime: f.MaxTime}, f.Bytes-int64(len(f.Batches)))
		l.p.mu.Unlock()
		return nil
	}
}

// keyframe stores one if it is due: by time, by bytes, or forced by retain.
func (l *leader) keyframe(ctx context.Context) error {
	now := l.c.now()
	if now-l.st.keyTime < l.c.opt.KeyframeInterval.Milliseconds() && l.st.bytes-l.st.keyBytes < keyframeBytes {
		return nil
	}
	return l.storeKeyframe(ctx, now)
}

// keyframeBytes is how many bytes of batches may lie behind a keyframe.
const keyframeBytes = 64 << 20

func (l *leader) storeKeyframe(ctx context.Context, now int64) error {
	for {
		f := l.st.keyframeOf(l.st.epoch, now)
		seq, err := l.store(ctx, f)
		if err == nil {
			if err = l.settle(seq, f); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found, err := l.resolve(ctx, err)
		if err != nil || found {
			return err
		}
	}
}

// open answers the Open of a lane from durable state.
func (l *leader) open(ctx context.Context, r *request) error {
	key := r.open.Source
	src := l.st.sources[key]
	reply := forward.Reply{Mark: src.mark()}
	ln, lost, err := openLane(src, r.open)
	if err != nil {
		reply.Code, reply.Message = forward.CodeRefused, err.Error()
		r.done(outcome{reply: reply})
		return nil
	}
	if err := l.c.ledgerRewind(ctx, l.p, key, lost); err != nil {
		return err
	}
	l.lanes[key] = ln
	reply.Resume = ln.resume()
	r.done(outcome{reply: reply})
	return nil
}
