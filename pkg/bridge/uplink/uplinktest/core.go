package uplinktest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"edgehub/pkg/bridge/uplink"
	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Faults are what a Core does wrong, as chances in 1,000 per message.
type Faults struct {
	DropRequest, DropReply     int
	DelayRequest, DelayReply   int // by up to 5 s, so that others overtake
	DoubleRequest, DoubleReply int
	LoseLanes                  int // the leader forgets all lanes
	Busy, NoLeader, NoBody     int
	Cut                        int // the connection is cut
}

// Core is a core in memory, behind a link. It keeps marks as pkg/forward says
// and everything it accepted. It implements uplink.Sink; times are those of
// the time package, so a synctest bubble makes them free.
type Core struct {
	Latency time.Duration // one way
	Window  int64         // granted by each reply
	Rate    int64         // bytes/s of the link, 0: no limit

	mu         sync.Mutex
	rng        *rand.Rand
	faults     Faults
	up         bool
	dark       bool
	link       chan struct{} // closed while up
	calls      map[int]func(uplink.Answer)
	next       int
	reconnects int64
	freeAt     time.Time // the link is busy until then
	refuse     func(*forward.Append) bool
	known      map[record.TopicID]string
	topics     map[string]record.TopicID
	sources    map[forward.Source]*source
	lanes      map[forward.Source]*lane
	sent       []Sent
	problems   []string
}

// Sent is an Append that arrived.
type Sent struct {
	At    time.Time
	Topic string
	Bytes int // of the message
}

type source struct {
	mark forward.Position
	has  map[forward.ID]int64 // of each epoch, the offset behind what the core has
	got  []Got
}

type lane struct {
	epochs []forward.Epoch
	at     forward.Position
}

// Got is a record or, with Gap set, a gap as the core accepted it.
type Got struct {
	Place
	Value     string
	Timestamp int64
	Gap       string // reason
	To        int64  // of a gap: [Offset, To)
}

// NewCore makes a core that can be reached at once.
func NewCore(seed uint64) *Core {
	c := &Core{
		Latency: 10 * time.Millisecond, Window: 1 << 20,
		rng: rand.New(rand.NewPCG(seed, 2)), link: make(chan struct{}),
		calls: map[int]func(uplink.Answer){}, known: map[record.TopicID]string{}, topics: map[string]record.TopicID{},
		sources: map[forward.Source]*source{}, lanes: map[forward.Source]*lane{},
	}
	c.SetUp(true)
	return c
}

// SetFaults sets what goes wrong from now on.
func (c *Core) SetFaults(f Faults) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = f
}

// SetUp cuts the link or mends it.
func (c *Core) SetUp(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setUp(up)
}

func (c *Core) setUp(up bool) {
	switch {
	case up && !c.up:
		close(c.link)
	case !up && c.up:
		c.link = make(chan struct{})
		c.cut()
	}
	c.up = up
}

// cut fails every call on its way.
func (c *Core) cut() {
	for _, id := range slices.Sorted(maps.Keys(c.calls)) {
		c.calls[id](uplink.Answer{Err: uplink.ErrDisconnected})
	}
	clear(c.calls)
	c.freeAt = time.Time{}
}

// Refuse makes the core refuse the Appends for which f is true; nil ends it.
func (c *Core) Refuse(f func(*forward.Append) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = f
}

// LoseLanes makes the core forget its lanes, as a new leader has none.
func (c *Core) LoseLanes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.lanes)
}

// Mark is the mark of a source.
func (c *Core) Mark(s forward.Source) forward.Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	if src := c.sources[s]; src != nil {
		return src.mark
	}
	return forward.Position{}
}

// Got is what was accepted of each source, in order.
func (c *Core) Got() map[forward.Source][]Got {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[forward.Source][]Got{}
	for s, src := range c.sources {
		out[s] = slices.Clone(src.got)
	}
	return out
}

// Sent is every Append that arrived.
func (c *Core) Sent() []Sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

// Problems are breaches of the protocol that the core saw.
func (c *Core) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

// Connect implements uplink.Sink.
func (c *Core) Connect(ctx context.Context, site string) error {
	c.mu.Lock()
	link := c.link
	c.mu.Unlock()
	select {
	case <-link:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// MaxMessage implements uplink.Sink.
func (c *Core) MaxMessage() int64 { return 8 << 20 }

// Heard implements uplink.Sink.
func (c *Core) Heard() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dark {
		return time.Time{}
	}
	return time.Now()
}

// GoDark makes the connection swallow everything until it is dropped.
func (c *Core) GoDark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dark = true
}

// Reconnect implements uplink.Sink.
func (c *Core) Reconnect(string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reconnects++
	c.dark = false
	c.cut()
}

// Stats implements uplink.Sink.
func (c *Core) Stats() uplink.SinkStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uplink.SinkStats{Connected: c.up, Reconnects: c.reconnects}
}

// Close implements uplink.Sink.
func (c *Core) Close() error {
	c.SetUp(false)
	return nil
}

func (c *Core) chance(n int) bool { return n > 0 && c.rng.IntN(1000) < n }

func (c *Core) delay(n int) time.Duration {
	if c.chance(n) {
		return time.Duration(c.rng.Int64N(int64(5 * time.Second)))
	}
	return 0
}

// Send implements uplink.Sink.
func (c *Core) Send(subject string, msg []byte) (*uplink.Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.up {
		return nil, uplink.ErrDisconnected
	}
	var left time.Time // when the link is done with it
	call, answer := uplink.NewCall(func() time.Time {
		if now := time.Now(); left.After(now) {
			return now
		}
		return left
	}, nil)
	id := c.next
	c.next++
	c.calls[id] = answer
	if c.dark {
		return call, nil
	}
	if c.chance(c.faults.Cut) {
		c.cut()
		return call, nil
	}
	msg = slices.Clone(msg)
	now := time.Now()
	at := now
	if c.freeAt.After(at) {
		at = c.freeAt
	}
	if c.Rate > 0 {
		at = at.Add(time.Duration(float64(len(msg)) / float64(c.Rate) * float64(time.Second)))
	}
	c.freeAt, left = at, at
	at = at.Add(c.Latency)
	times := 1
	if c.chance(c.faults.DoubleRequest) {
		times = 2
	}
	for range times {
		if c.chance(c.faults.DropRequest) {
			continue
		}
		time.AfterFunc(at.Add(c.delay(c.faults.DelayRequest)).Sub(now), func() { c.arrive(id, subject, msg) })
	}
	return call, nil
}

// arrive takes a request and sends the answer on its way.
func (c *Core) arrive(id int, subject string, msg []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dark {
		return
	}
	reply := func(b []byte, err error) {
		times := 1
		if c.chance(c.faults.DoubleReply) {
			times = 2
		}
		for range times {
			if c.chance(c.faults.DropReply) {
				continue
			}
			time.AfterFunc(c.Latency+c.delay(c.faults.DelayReply), func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				if answer := c.calls[id]; answer != nil {
					delete(c.calls, id)
					answer(uplink.Answer{Msg: b, Err: err})
				}
			})
		}
	}
	if c.chance(c.faults.NoBody) {
		reply(nil, uplink.ErrNoResponders)
		return
	}
	if c.chance(c.faults.LoseLanes) {
		clear(c.lanes)
	}
	kind, err := forward.KindOf(msg)
	if err != nil {
		c.problem("message: %v", err)
		return
	}
	site := forward.SiteOf(subject)
	var out []byte
	switch kind {
	case forward.KindHello:
		out = c.hello(site, msg)
	case forward.KindOpen, forward.KindAppend:
		out, err = forward.Encode(nil, forward.KindReply, c.lane(site, subject, kind, msg))
	default:
		c.problem("message of kind %d", kind)
	}
	if err != nil {
		c.problem("encode: %v", err)
	}
	reply(out, nil)
}

func (c *Core) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *Core) hello(site string, msg []byte) []byte {
	var h forward.Hello
	if _, err := forward.Decode(msg, forward.KindHello, &h); err != nil || h.Site != site {
		c.problem("hello: %v, site %q by %q", err, h.Site, site)
	}
	r := forward.HelloReply{Core: "core"}
	for _, t := range h.Topics {
		id, ok := c.topics[t.Name]
		if !ok {
			for i := range id {
				id[i] = byte(c.rng.Uint32())
			}
			c.topics[t.Name], c.known[id] = id, t.Name
		}
		route := forward.TopicRoute{Name: t.Name, ID: id}
		for p := range t.Partitions {
			route.Map = append(route.Map, p)
		}
		r.Routes = append(r.Routes, route)
	}
	out, err := forward.Encode(nil, forward.KindHelloReply, &r)
	if err != nil {
		c.problem("encode: %v", err)
	}
	return out
}

// topicOf is the topic that a lane's subject names.
func (c *Core) topicOf(subject string) string {
	part := strings.Split(subject, ".")
	if len(part) != 4 {
		return ""
	}
	id, _ := record.ParseTopicID(part[2])
	return c.known[id]
}

func (c *Core) lane(site, subject string, kind forward.Kind, msg []byte) *forward.Reply {
	if c.topicOf(subject) == "" {
		c.problem("subject %s", subject)
		return &forward.Reply{Code: forward.CodeRefused}
	}
	switch {
	case c.chance(c.faults.Busy):
		return &forward.Reply{Code: forward.CodeBusy, Window: c.Window}
	case c.chance(c.faults.NoLeader):
		return &forward.Reply{Code: forward.CodeNoLeader}
	}
	var r *forward.Reply
	var src forward.Source
	if kind == forward.KindOpen {
		var o forward.Open
		if _, err := forward.Decode(msg, kind, &o); err != nil || o.Source.Site != site {
			c.problem("open: %v", err)
			return &forward.Reply{Code: forward.CodeRefused}
		}
		src = o.Source
		r = c.open(&o)
	} else {
		var a forward.Append
		batches, err := forward.Decode(msg, kind, &a)
		if err != nil || a.Source.Site != site {
			c.problem("append: %v", err)
			return &forward.Reply{Code: forward.CodeRefused}
		}
		c.sent = append(c.sent, Sent{At: time.Now(), Topic: c.topicOf(subject), Bytes: len(msg)})
		src = a.Source
		r = c.append(&a, batches)
	}
	r.Window = c.Window
	if s := c.sources[src]; s != nil {
		r.Mark = s.mark
	}
	return r
}

// open finds the last place that both sides share.
func (c *Core) open(o *forward.Open) *forward.Reply {
	if len(o.Epochs) == 0 || o.LogStart > o.Next || o.Next < o.Epochs[len(o.Epochs)-1].Start {
		c.problem("open of %d epochs with [%d, %d)", len(o.Epochs), o.LogStart, o.Next)
		return &forward.Reply{Code: forward.CodeRefused}
	}
	for i := 1; i < len(o.Epochs); i++ {
		if o.Epochs[i].Start <= o.Epochs[i-1].Start {
			c.problem("open: epoch %d begins at %d, the one before at %d", i, o.Epochs[i].Start, o.Epochs[i-1].Start)
		}
	}
	src := c.sources[o.Source]
	if src == nil {
		src = &source{has: map[forward.ID]int64{}}
		c.sources[o.Source] = src
	}
	at := forward.Position{Epoch: o.Epochs[0].ID, Next: o.Epochs[0].Start}
	// The newest of the edge's epochs that the core has anything of: an epoch
	// is begun once, on one history, so the core has all before it, too. The
	// newest of the core's own would not do: of a restored image's branch it
	// knows nothing.
	for j := len(o.Epochs) - 1; j >= 0; j-- {
		has, ok := src.has[o.Epochs[j].ID]
		if !ok {
			continue
		}
		end := o.Next
		if j+1 < len(o.Epochs) {
			end = o.Epochs[j+1].Start
		}
		switch {
		case has <= end:
			at = forward.Position{Epoch: o.Epochs[j].ID, Next: has}
		case j+1 < len(o.Epochs):
			// The edge lost what the core has; what it gave since is new.
			at = forward.Position{Epoch: o.Epochs[j+1].ID, Next: o.Epochs[j+1].Start}
		default:
			// More than the edge says it has, in its epoch of now: a range
			// read before the records came.
			return &forward.Reply{Code: forward.CodeBusy}
		}
		break
	}
	c.lanes[o.Source] = &lane{epochs: o.Epochs, at: at}
	return &forward.Reply{Resume: at}
}

// continues says whether (epoch, first) comes next after at.
func (l *lane) continues(at forward.Position, epoch forward.ID, first int64) bool {
	i := slices.IndexFunc(l.epochs, func(e forward.Epoch) bool { return e.ID == at.Epoch })
	j := slices.IndexFunc(l.epochs, func(e forward.Epoch) bool { return e.ID == epoch })
	return first == at.Next && (i == j || i >= 0 && j == i+1 && l.epochs[j].Start == first)
}

// within says whether [from, to) lies in an epoch.
func (l *lane) within(epoch forward.ID, from, to int64) bool {
	i := slices.IndexFunc(l.epochs, func(e forward.Epoch) bool { return e.ID == epoch })
	return i >= 0 && from >= l.epochs[i].Start && (i+1 == len(l.epochs) || to <= l.epochs[i+1].Start)
}

func (c *Core) append(a *forward.Append, batches []byte) *forward.Reply {
	refused := func(format string, args ...any) *forward.Reply {
		c.problem("append: "+format, args...)
		return &forward.Reply{Code: forward.CodeRefused}
	}
	l := c.lanes[a.Source]
	if l == nil || !slices.ContainsFunc(l.epochs, func(e forward.Epoch) bool { return e.ID == a.Epoch }) {
		return &forward.Reply{Code: forward.CodeReopen}
	}
	if c.refuse != nil && c.refuse(a) {
		return &forward.Reply{Code: forward.CodeRefused, Message: "the test refuses"}
	}
	at := l.at
	var got []Got
	for _, g := range a.Gaps {
		if !l.continues(at, g.Epoch, g.From) {
			return &forward.Reply{Code: forward.CodeMismatch}
		}
		if g.To <= g.From {
			return refused("gap %+v", g)
		}
		if !l.within(g.Epoch, g.From, g.To) {
			return &forward.Reply{Code: forward.CodeMismatch}
		}
		at = forward.Position{Epoch: g.Epoch, Next: g.To}
		got = append(got, Got{Place: Place{a.Source, g.Epoch, g.From}, Gap: g.Reason, To: g.To})
	}
	if !l.continues(at, a.Epoch, a.First) {
		return &forward.Reply{Code: forward.CodeMismatch}
	}
	if len(batches) == 0 && (a.Last != a.First-1 || len(a.Gaps) == 0) {
		return refused("no batches, offsets %d to %d", a.First, a.Last)
	}
	if !l.within(a.Epoch, a.First, a.Last+1) {
		// Sent before the last Open, of what the edge has lost since.
		return &forward.Reply{Code: forward.CodeMismatch}
	}
	next := a.First
	n, count := 0, 0
	for n < len(batches) {
		h, err := record.Check(batches[n:])
		if err != nil {
			return refused("batch: %v", err)
		}
		if h.BaseOffset != next || h.Count != h.LastOffsetDelta+1 || h.Idempotent() {
			return refused("batch %+v instead of %d", h, next)
		}
		err = record.Records(batches[n:n+h.Size()], func(r *record.Record) error {
			got = append(got, Got{Place: Place{a.Source, a.Epoch, r.Offset}, Value: string(r.Value), Timestamp: r.Timestamp})
			return nil
		})
		if err != nil {
			return refused("records: %v", err)
		}
		next = h.NextOffset()
		n += h.Size()
		count++
	}
	if next != a.Last+1 {
		return refused("batches end at %d, the message says %d", next, a.Last+1)
	}
	if len(batches) > forward.MaxBatchBytes && count > 1 {
		return refused("%d batches of %d bytes", count, len(batches))
	}
	l.at = forward.Position{Epoch: a.Epoch, Next: next}
	src := c.sources[a.Source]
	src.mark = l.at
	src.got = append(src.got, got...)
	for _, g := range got {
		src.has[g.Epoch] = g.Offset + 1
		if g.Gap != "" {
			src.has[g.Epoch] = g.To
		}
	}
	return &forward.Reply{}
}
