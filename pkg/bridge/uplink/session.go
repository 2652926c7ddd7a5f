package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Bounds of a session.
const (
	maxFlights  = 64          // Appends in flight of one lane
	fetchBytes  = 1 << 20     // about as much per fetch,
	fetchTotal  = 8 << 20     // and as much for all lanes together,
	fetchLeast  = 64 << 10    // but this for each
	fetchMin    = 64 << 10    // gather as much,
	fetchWait   = time.Second // but not longer
	minPatience = 3 * time.Second
	lastWords   = time.Second // for answers under way when the uplink stops
)

// session is a lane from its Open to its first trouble.
type session struct {
	*lane
	hub     *Hub
	chain   []forward.Epoch
	source  forward.Source
	subject string
	cutter  *cutter // of the fetcher
	window  int64   // bytes that may be in flight

	fetched  chan struct{} // closed when the fetcher has ended,
	fetchErr error         // with this

	flights []flight // oldest first
	flying  int64    // their bytes
}

// flight is an Append sent and not answered.
type flight struct {
	call    *Call
	ticket  *ticket
	sent    time.Time
	next    int64 // offset behind it
	epoch   int32
	bytes   int64
	records int64
	gaps    int64
	gapped  int64
}

// session opens the lane and forwards until something goes wrong; then it
// returns why. With ctx ended it returns nil or any error.
func (l *lane) session(ctx context.Context) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	fctx, stop := context.WithCancel(ctx)
	messages := make(chan *message)
	go func() {
		defer close(s.fetched)
		s.fetchErr = s.fetch(fctx, messages)
	}()
	err = s.send(ctx, messages)
	stop()
	<-s.fetched
	for _, f := range s.flights {
		f.call.Cancel()
		s.u.pacer.done(f.ticket, false)
	}
	return err
}

// fetch reads from the cutter's place on and hands messages over, until
// something goes wrong.
func (s *session) fetch(ctx context.Context, to chan<- *message) error {
	o := FetchOptions{MinBytes: fetchMin, Wait: fetchWait}
	if s.priority >= UrgentPriority {
		o.MinBytes = 1
	}
	var trusted uint64 // the session of the hub that the chain was read behind
	known := false
	for {
		// What is fetched is cut for the link as it is now and waits for its
		// turn: many lanes fetch less, and so do those of a slow link.
		target := s.u.pacer.target(forward.MaxBatchBytes)
		o.MaxBytes = min(max(min(fetchTotal/max(1, int(s.u.laneCount.Load())), 4*target), fetchLeast), fetchBytes)
		f, err := s.reader.Fetch(ctx, s.cutter.at.next, o)
		switch {
		case errors.Is(err, record.ErrOffsetOutOfRange):
			offs, err := s.reader.Offsets(ctx)
			if err != nil {
				return &hubError{err}
			}
			if s.cutter.at.next >= offs.LogStart {
				// Beyond what the hub has: it lost what it had, or is another.
				return errHubChanged
			}
			f = Fetched{HighWatermark: offs.HighWatermark, LogStart: offs.LogStart}
			known = false
		case errors.Is(err, record.ErrUnknownTopic):
			return errGone
		case err != nil:
			return &hubError{err}
		}
		if !known || f.Session != trusted {
			// U3: what came over a new connection may come from a hub that
			// began another epoch, under the same number even if its disk
			// was restored. Describe begins after the fetch has ended and
			// each run adds a random id, so equal chains mean one run.
			if err := s.unchanged(ctx); err != nil {
				return err
			}
			trusted, known = f.Session, f.Session != 0
		}
		s.sawOffsets(f.LogStart, f.HighWatermark)
		messages, err := s.cutter.cut(f.Batches, f.LogStart, target, s.u.pacer.slow())
		for _, m := range messages {
			select {
			case to <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

// unchanged reads the hub's description again and compares.
func (s *session) unchanged(ctx context.Context) error {
	hub, err := s.u.hub.refresh(ctx)
	if err != nil {
		return &hubError{err}
	}
	if !hub.has(s.key) || hub.Site != s.hub.Site {
		return errGone
	}
	chain, err := hub.Chain(s.key.Partition)
	if err != nil {
		return &hubError{err}
	}
	if !slices.Equal(chain, s.chain) {
		return errHubChanged
	}
	return nil
}

// send sends messages as window and pacer allow and takes the answers, until
// something goes wrong. When the fetcher ends it waits for the answers to
// what is in flight, then returns the fetcher's error.
func (s *session) send(ctx context.Context, messages <-chan *message) error {
	var (
		cur      *message // the next to go
		encoded  []byte   // as it goes
		want     *ticket  // for cur
		fetchErr error
		ended    = s.fetched
		progress = time.Now()
		tick     = time.NewTicker(time.Second)
		done     = ctx.Done()
		lastCall <-chan time.Time // set once ctx has ended
	)
	defer tick.Stop()
	defer func() {
		if want != nil {
			s.u.pacer.cancel(want)
		}
	}()
	for {
		if fetchErr != nil && cur == nil && len(s.flights) == 0 {
			return fetchErr
		}
		var (
			more   <-chan *message
			grant  <-chan struct{}
			answer <-chan Answer
		)
		if len(s.flights) > 0 {
			answer = s.flights[0].call.C
		}
		switch {
		case lastCall != nil:
			if len(s.flights) == 0 {
				return ctx.Err()
			}
		case cur == nil:
			more = messages
		case want == nil && (len(s.flights) == 0 || s.flying+int64(len(encoded)) <= s.window && len(s.flights) < maxFlights):
			want = s.u.pacer.request(s.priority, int64(len(encoded)))
			grant = want.C
		case want != nil:
			grant = want.C
		}
		select {
		case cur = <-more:
			var err error
			if encoded, err = s.encode(cur); err != nil {
				return err
			}
		case <-ended:
			ended, fetchErr = nil, s.fetchErr
		case <-grant:
			if len(s.flights) == 0 {
				progress = time.Now()
			}
			t := want
			want = nil
			if err := s.launch(cur, encoded, t); err != nil {
				return err
			}
			cur, encoded = nil, nil
		case a := <-answer:
			if err := s.answered(a); err != nil {
				return err
			}
			progress = time.Now()
		case <-tick.C:
			if len(s.flights) == 0 {
				continue
			}
			if moved := s.flights[0].call.Moved(); moved.After(progress) {
				progress = moved
			}
			s.u.sink.Heard() // so that the link is known to be alive or not
			patience := max(minPatience, 4*s.srtt) + s.u.pacer.allowance()
			if quiet := time.Since(progress); quiet >= patience {
				s.u.stalled(patience)
				return fmt.Errorf("%w: offset %d for %s", errNoAnswer, s.stats().Acked, quiet.Round(time.Millisecond))
			}
		case <-done:
			// Answers under way still move the cursor.
			done = nil
			t := time.NewTimer(lastWords)
			defer t.Stop()
			lastCall = t.C
			cur = nil
		case <-lastCall:
			return ctx.Err()
		}
	}
}

func (s *session) encode(m *message) ([]byte, error) {
	b, err := forward.Encode(make([]byte, 0, m.bytes+512), forward.KindAppend, &forward.Append{
		Source: s.source, Epoch: s.chain[m.epoch].ID, First: m.first, Last: m.last, Gaps: m.gaps,
	}, m.batches...)
	if err != nil {
		return nil, err
	}
	if most := s.u.sink.MaxMessage(); most > 0 && int64(len(b)) > most {
		return nil, fmt.Errorf("%w: offsets %d to %d are %d bytes, at most %d: raise the core's limit", ErrTooLarge, m.first, m.last, len(b), most)
	}
	return b, nil
}

func (s *session) launch(m *message, encoded []byte, t *ticket) error {
	sent := time.Now()
	call, err := s.u.sink.Send(s.subject, encoded)
	if err != nil {
		s.u.pacer.cancel(t)
		return err
	}
	f := flight{call: call, ticket: t, sent: sent, next: m.last + 1, epoch: s.chain[m.epoch].Number,
		bytes: int64(len(encoded)), records: m.records, gaps: int64(len(m.gaps))}
	for _, g := range m.gaps {
		f.gapped += g.To - g.From
		s.logger.Warn("offsets are gone at the hub: told to the core", "from", g.From, "to", g.To, "reason", g.Reason)
	}
	s.flights = append(s.flights, f)
	s.flying += f.bytes
	return nil
}

// answered takes the answer to the oldest flight.
func (s *session) answered(a Answer) error {
	f := s.flights[0]
	s.flights = slices.Delete(s.flights, 0, 1)
	s.flying -= f.bytes
	var reply forward.Reply
	err := a.Err
	if err == nil {
		err = decodeReply(a.Msg, forward.KindReply, &reply)
	}
	if err == nil && reply.Code != forward.CodeOK {
		err = &codeError{reply.Code, reply.Message}
	}
	s.u.pacer.done(f.ticket, err == nil)
	if a.Err == nil {
		s.u.touch()
	}
	if err != nil {
		return err
	}
	took := time.Since(f.sent)
	s.window = reply.Window
	s.pause.reset()
	s.eager = true
	if time.Since(s.saidAt) > 10*time.Second {
		s.said = ""
	}
	s.progress(f.next, f.epoch)
	s.update(func(st *LaneStats) {
		if s.srtt == 0 {
			s.srtt = took
		}
		s.srtt += (took - s.srtt) / 8
		st.Records += f.records
		st.Bytes += f.bytes
		st.Messages++
		st.Gaps += f.gaps
		st.GapRecords += f.gapped
		st.LastAck = time.Now().UnixMilli()
	})
	return nil
}

func decodeReply(b []byte, k forward.Kind, reply any) error {
	if _, err := forward.Decode(b, k, reply); err != nil {
		if errors.Is(err, forward.ErrVersion) {
			return &codeError{forward.CodeVersion, err.Error()}
		}
		return fmt.Errorf("answer of the core: %w", err)
	}
	return nil
}
