// Package uplinktest has a hub and a core in memory, for tests of what stands
// between them: uplink.Source and uplink.Sink with everything that can go
// wrong, and the truth to compare with.
package uplinktest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"edgehub/pkg/bridge/uplink"
	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// ErrHubDown is what a hub answers while it is down.
var ErrHubDown = errors.New("hub is down")

// Place is an offset of a source in the epoch that gave it: the one name that
// a record has for ever.
type Place struct {
	Source forward.Source
	Epoch  forward.ID
	Offset int64
}

// Hub is an edge hub in memory. Its methods may be called concurrently.
type Hub struct {
	mu      sync.Mutex
	rng     *rand.Rand
	site    string
	log     forward.ID
	epochs  []record.EpochStart
	topics  map[string]*topic
	cursors map[record.TopicPartition]record.GroupOffset
	up      bool
	session uint64
	wake    chan struct{} // closed and made anew on every change

	given map[Place]string   // value of every record ever given an offset
	gone  map[Place]struct{} // those that retention or rot took
}

type topic struct {
	id    record.TopicID
	parts []*partition
}

type partition struct {
	logStart, next int64
	batches        [][]byte // ascending
}

// Image is a copy of a hub's disk.
type Image struct {
	log    forward.ID
	epochs []record.EpochStart
	topics map[string]*topic
}

// NewHub makes a hub in its first epoch, up, without topics.
func NewHub(site string, seed uint64) *Hub {
	h := &Hub{
		rng: rand.New(rand.NewPCG(seed, 1)), site: site, up: true,
		topics: map[string]*topic{}, cursors: map[record.TopicPartition]record.GroupOffset{},
		wake: make(chan struct{}), given: map[Place]string{}, gone: map[Place]struct{}{},
	}
	h.log = h.id()
	h.begin()
	return h
}

func (h *Hub) id() (id [16]byte) {
	for i := range id {
		id[i] = byte(h.rng.Uint32())
	}
	return id
}

func (h *Hub) changed() {
	close(h.wake)
	h.wake = make(chan struct{})
}

// begin begins an epoch.
func (h *Hub) begin() {
	id := h.id()
	e := record.EpochStart{ID: hex.EncodeToString(id[:])}
	if n := len(h.epochs); n > 0 {
		e.Number = h.epochs[n-1].Number + 1
	}
	for _, name := range slices.Sorted(maps.Keys(h.topics)) {
		t := h.topics[name]
		for i, p := range t.parts {
			if p.next > 0 {
				e.Starts = append(e.Starts, record.PartitionStart{Topic: t.id.String(), Partition: int32(i), Offset: p.next})
			}
		}
	}
	h.epochs = append(slices.Clone(h.epochs), e)
	h.session++
	h.changed()
}

func (h *Hub) epoch() (id forward.ID, number int32) {
	e := h.epochs[len(h.epochs)-1]
	_, _ = hex.Decode(id[:], []byte(e.ID))
	return id, e.Number
}

// Site is the hub's name.
func (h *Hub) Site() string { return h.site }

// CreateTopic creates a topic.
func (h *Hub) CreateTopic(name string, partitions int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &topic{id: h.id()}
	for range partitions {
		t.parts = append(t.parts, &partition{})
	}
	h.topics[name] = t
	h.changed()
}

// DeleteTopic deletes a topic.
func (h *Hub) DeleteTopic(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.topics, name)
	h.changed()
}

// Shape says how Append makes its batch.
type Shape struct {
	Codec      record.Codec
	Idempotent bool
	AppendTime bool // the batch says that its maximum is every record's time
}

// Append appends a batch of n records with unique values.
func (h *Hub) Append(name string, part, n int, shape Shape) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil || n == 0 {
		return
	}
	p := t.parts[part]
	id, number := h.epoch()
	var b record.Builder
	for i := range n {
		pl := Place{forward.Source{Site: h.site, Log: h.log, Topic: t.id, Partition: int32(part)}, id, p.next + int64(i)}
		value := fmt.Sprintf("%s/%d@%x:%d %d %0*d", name, part, id[:4], pl.Offset, h.rng.Uint64(), h.rng.IntN(100), 7)
		h.given[pl] = value
		rec := record.Record{Timestamp: 1_700_000_000_000 + h.rng.Int64N(1000), Value: []byte(value)}
		if h.rng.IntN(2) == 0 {
			rec.Key = []byte("k")
			rec.Headers = []record.Field{{Key: "site", Value: []byte(h.site)}, {Key: "nil"}}
		}
		b.Append(&rec)
	}
	var raw []byte
	if shape.Idempotent {
		raw = b.BuildIdempotent(nil, shape.Codec, 1000+int64(h.rng.IntN(3)), 2, 0)
		record.Stamp(raw, p.next, number)
	} else {
		raw = b.Build(nil, p.next, number, shape.Codec)
	}
	if shape.AppendTime {
		raw[22] |= 8
		record.ClearProducer(raw) // for its checksum
	}
	p.batches = append(p.batches, raw)
	p.next += int64(n)
	h.changed()
}

// Restart begins another epoch, as a hub does that crashed and came back.
func (h *Hub) Restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin()
}

// LoseTail restarts the hub with the last n records of a partition lost, as a
// card does that lied about its syncs.
func (h *Hub) LoseTail(name string, part int, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[name]; t != nil {
		p := t.parts[part]
		to := max(p.logStart, p.next-n)
		for i, b := range p.batches {
			hd, _ := record.PeekHeader(b)
			if hd.BaseOffset >= to {
				p.batches = p.batches[:i:i]
				break
			}
			if hd.NextOffset() > to { // a batch is lost as a whole
				to = max(hd.BaseOffset, p.logStart)
				p.batches = p.batches[:i:i]
				break
			}
		}
		p.next = to
	}
	h.begin()
}

// SetUp takes the hub down or up again; up begins another epoch.
func (h *Hub) SetUp(up bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if up && !h.up {
		h.begin()
	}
	h.up = up
	h.changed()
}

// Drop makes the connections to the hub break, without a restart.
func (h *Hub) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session++
	h.changed()
}

// Image copies the hub's disk.
func (h *Hub) Image() *Image {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &Image{log: h.log, epochs: slices.Clone(h.epochs), topics: cloneTopics(h.topics)}
}

// Restore puts an image back: the hub comes up with what it had then, in
// another epoch.
func (h *Hub) Restore(img *Image) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log, h.epochs, h.topics = img.log, slices.Clone(img.epochs), cloneTopics(img.topics)
	h.begin()
}

func cloneTopics(in map[string]*topic) map[string]*topic {
	out := map[string]*topic{}
	for name, t := range in {
		c := &topic{id: t.id}
		for _, p := range t.parts {
			q := *p
			q.batches = slices.Clone(p.batches)
			c.parts = append(c.parts, &q)
		}
		out[name] = c
	}
	return out
}

// Retire moves a partition's log start up by n offsets, or to its end.
func (h *Hub) Retire(name string, part int, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil {
		return
	}
	p := t.parts[part]
	to := min(p.logStart+n, p.next)
	h.take(t, part, p.logStart, to)
	p.logStart = to
	for len(p.batches) > 0 {
		hd, _ := record.PeekHeader(p.batches[0])
		if hd.NextOffset() > to {
			break
		}
		p.batches = p.batches[1:]
	}
	h.changed()
}

// Rot takes one batch of a partition away, somewhere: its offsets stay, its
// records are lost.
func (h *Hub) Rot(name string, part int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil || len(t.parts[part].batches) == 0 {
		return
	}
	p := t.parts[part]
	i := h.rng.IntN(len(p.batches))
	hd, _ := record.PeekHeader(p.batches[i])
	h.take(t, part, hd.BaseOffset, hd.NextOffset())
	p.batches = slices.Concat(p.batches[:i], p.batches[i+1:])
	h.changed()
}

// Compact takes some records out of one batch, as compaction does.
func (h *Hub) Compact(name string, part int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[name]
	if t == nil || len(t.parts[part].batches) == 0 {
		return
	}
	p := t.parts[part]
	i := h.rng.IntN(len(p.batches))
	hd, _ := record.PeekHeader(p.batches[i])
	keep := map[int64]bool{}
	for o := hd.BaseOffset; o <= hd.LastOffset(); o++ {
		if h.rng.IntN(3) > 0 {
			keep[o] = true
		} else {
			h.take(t, part, o, o+1)
		}
	}
	p.batches[i] = Sparse(p.batches[i], keep)
	h.changed()
}

// take notes that offsets are gone.
func (h *Hub) take(t *topic, part int, from, to int64) {
	src := forward.Source{Site: h.site, Log: h.log, Topic: t.id, Partition: int32(part)}
	for o := from; o < to; o++ {
		h.gone[Place{src, h.epochOf(t, part, o), o}] = struct{}{}
	}
}

// epochOf is the epoch that gave an offset of the log as it is now.
func (h *Hub) epochOf(t *topic, part int, offset int64) (id forward.ID) {
	for i := len(h.epochs) - 1; i >= 0; i-- {
		e := h.epochs[i]
		start := int64(0)
		for _, s := range e.Starts {
			if s.Topic == t.id.String() && s.Partition == int32(part) {
				start = s.Offset
			}
		}
		if start <= offset {
			_, _ = hex.Decode(id[:], []byte(e.ID))
			return id
		}
	}
	return id
}

// Next is the offset behind the last record of a partition.
func (h *Hub) Next(name string, part int) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.topics[name].parts[part].next
}

// Records is what the hub holds now: values by place.
func (h *Hub) Records() map[Place]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[Place]string{}
	for _, t := range h.topics {
		for i, p := range t.parts {
			src := forward.Source{Site: h.site, Log: h.log, Topic: t.id, Partition: int32(i)}
			for _, b := range p.batches {
				_ = record.Records(b, func(r *record.Record) error {
					if r.Offset >= p.logStart {
						out[Place{src, h.epochOf(t, i, r.Offset), r.Offset}] = string(r.Value)
					}
					return nil
				})
			}
		}
	}
	return out
}

// Given is the value that the hub once gave a place, and whether retention or
// rot took it later.
func (h *Hub) Given(p Place) (value string, given, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, given = h.given[p]
	_, gone = h.gone[p]
	return value, given, gone
}

// Ends is the place that each partition's forwarding must come to.
func (h *Hub) Ends() map[forward.Source]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[forward.Source]int64{}
	for _, t := range h.topics {
		for i, p := range t.parts {
			out[forward.Source{Site: h.site, Log: h.log, Topic: t.id, Partition: int32(i)}] = p.next
		}
	}
	return out
}

// Cursor is the committed offset of a partition, -1 if there is none.
func (h *Hub) Cursor(name string, part int) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o, ok := h.cursors[record.TopicPartition{Topic: name, Partition: int32(part)}]; ok {
		return o.Offset
	}
	return -1
}

// Describe implements uplink.Source.
func (h *Hub) Describe(_ context.Context, topics []string) (*uplink.Hub, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil, ErrHubDown
	}
	out := &uplink.Hub{Site: h.site, Log: h.log, Epochs: slices.Clone(h.epochs)}
	for _, name := range topics {
		if t := h.topics[name]; t != nil {
			out.Topics = append(out.Topics, uplink.HubTopic{Name: name, ID: t.id, Partitions: int32(len(t.parts))})
		}
	}
	return out, nil
}

// Cursors implements uplink.Source.
func (h *Hub) Cursors(context.Context, string) ([]record.GroupOffset, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil, ErrHubDown
	}
	return slices.Collect(maps.Values(h.cursors)), nil
}

// Commit implements uplink.Source.
func (h *Hub) Commit(_ context.Context, _ string, offs []record.GroupOffset) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return ErrHubDown
	}
	for _, o := range offs {
		h.cursors[o.TopicPartition] = o
	}
	return nil
}

// Close implements uplink.Source.
func (h *Hub) Close() error { return nil }

// Read implements uplink.Source.
func (h *Hub) Read(p uplink.Partition) uplink.Reader { return &reader{h, p} }

type reader struct {
	h *Hub
	p uplink.Partition
}

func (r *reader) Close() {}

func (r *reader) find() (*partition, error) {
	if !r.h.up {
		return nil, ErrHubDown
	}
	t := r.h.topics[r.p.Topic]
	if t == nil || t.id != r.p.ID {
		return nil, record.ErrUnknownTopic
	}
	return t.parts[r.p.Partition], nil
}

// Offsets implements uplink.Reader.
func (r *reader) Offsets(context.Context) (record.Offsets, error) {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	p, err := r.find()
	if err != nil {
		return record.Offsets{}, err
	}
	return record.Offsets{LogStart: p.logStart, HighWatermark: p.next}, nil
}

// Fetch implements uplink.Reader.
func (r *reader) Fetch(ctx context.Context, offset int64, o uplink.FetchOptions) (uplink.Fetched, error) {
	t := time.NewTimer(o.Wait)
	defer t.Stop()
	for last := false; ; {
		r.h.mu.Lock()
		f, err := r.fetch(offset, o)
		wake := r.h.wake
		r.h.mu.Unlock()
		if err != nil || last || len(f.Batches) >= o.MinBytes {
			return f, err
		}
		select {
		case <-wake:
		case <-t.C:
			last = true
		case <-ctx.Done():
			return f, ctx.Err()
		}
	}
}

func (r *reader) fetch(offset int64, o uplink.FetchOptions) (uplink.Fetched, error) {
	p, err := r.find()
	if err != nil {
		return uplink.Fetched{}, err
	}
	if offset < p.logStart || offset > p.next {
		return uplink.Fetched{}, fmt.Errorf("fetch at %d of [%d, %d): %w", offset, p.logStart, p.next, record.ErrOffsetOutOfRange)
	}
	f := uplink.Fetched{LogStart: p.logStart, HighWatermark: p.next, Session: r.h.session}
	for _, b := range p.batches {
		hd, _ := record.PeekHeader(b)
		if hd.LastOffset() < offset {
			continue
		}
		if len(f.Batches) > 0 && len(f.Batches)+len(b) > o.MaxBytes {
			break
		}
		f.Batches = append(f.Batches, b...)
	}
	return f, nil
}
