package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// hubView shares one Describe among all lanes.
type hubView struct {
	source Source
	topics []string

	sem chan struct{} // held while describing

	mu      sync.Mutex
	started uint64
	done    uint64
	cur     *Hub
}

func newHubView(s Source, topics []string) *hubView {
	return &hubView{source: s, topics: topics, sem: make(chan struct{}, 1)}
}

// current is the last description, nil if there is none yet.
func (v *hubView) current() *Hub {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cur
}

// refresh returns a description of the hub that was begun after the call of
// refresh, its own or another caller's (U3 needs "after").
func (v *hubView) refresh(ctx context.Context) (*Hub, error) {
	v.mu.Lock()
	want := v.started + 1
	v.mu.Unlock()
	select {
	case v.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-v.sem }()
	v.mu.Lock()
	if v.done >= want {
		defer v.mu.Unlock()
		return v.cur, nil
	}
	v.started++
	n := v.started
	v.mu.Unlock()
	hub, err := v.source.Describe(ctx, v.topics)
	if err != nil {
		return nil, fmt.Errorf("describe the hub: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cur, v.done = hub, n
	return hub, nil
}

// laneKey names a lane: a source partition.
type laneKey struct {
	log forward.ID
	Partition
}

// keys are the lanes that a hub asks for.
func (h *Hub) keys() []laneKey {
	var keys []laneKey
	for _, t := range h.Topics {
		for p := range t.Partitions {
			keys = append(keys, laneKey{h.Log, Partition{t.Name, t.ID, p}})
		}
	}
	return keys
}

// has says whether a lane's partition is part of the hub as described.
func (h *Hub) has(k laneKey) bool {
	t := h.Topic(k.Topic)
	return h.Log == k.log && t != nil && t.ID == k.ID && k.Partition.Partition < t.Partitions
}

// codeError is an answer of the core that is not CodeOK.
type codeError struct {
	code    forward.Code
	message string
}

func (e *codeError) Error() string {
	if e.message == "" {
		return "the core answers: " + e.code.String()
	}
	return "the core answers: " + e.code.String() + ": " + e.message
}

// errNoRoute is a topic that the core does not route yet.
var errNoRoute = errors.New("the core has no route for the topic yet")

// routes asks the core where topics go, once for all lanes.
type routes struct {
	ask func(ctx context.Context, hub *Hub) (*forward.HelloReply, error)
	sem chan struct{}

	mu   sync.Mutex
	hub  *Hub // as asked
	got  map[record.TopicID]forward.TopicRoute
	core string
	gen  uint64
	at   time.Time // of the answer
}

// route returns the core topic and partition of a lane, and the generation of
// the answer, for forget.
func (r *routes) route(ctx context.Context, hub *Hub, k laneKey) (topic record.TopicID, partition int32, gen uint64, err error) {
	select {
	case r.sem <- struct{}{}:
	case <-ctx.Done():
		return topic, 0, 0, ctx.Err()
	}
	defer func() { <-r.sem }()
	r.mu.Lock()
	known := r.hub != nil && r.hub.Site == hub.Site && r.hub.Log == hub.Log && slices.Equal(r.hub.Topics, hub.Topics)
	r.mu.Unlock()
	if !known {
		reply, err := r.ask(ctx, hub)
		if err != nil {
			return topic, 0, 0, err
		}
		got := make(map[record.TopicID]forward.TopicRoute, len(reply.Routes))
		for i, t := range reply.Routes {
			if i < len(hub.Topics) { // in the Hello's order
				got[hub.Topics[i].ID] = t
			}
		}
		r.mu.Lock()
		r.hub, r.got, r.core = hub, got, reply.Core
		r.gen++
		r.at = time.Now()
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.got[k.ID]
	switch p := k.Partition.Partition; {
	case !ok:
		return topic, 0, r.gen, errNoRoute
	case t.Code != forward.CodeOK:
		return topic, 0, r.gen, &codeError{t.Code, t.Message}
	case int(p) >= len(t.Map) || t.Map[p] < 0:
		return topic, 0, r.gen, errNoRoute
	default:
		return t.ID, t.Map[p], r.gen, nil
	}
}

// forget drops the routes of generation gen, unless they are fresh: the next
// route asks again.
func (r *routes) forget(gen uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gen == gen && time.Since(r.at) > 2*time.Second {
		r.hub = nil
	}
}

// cluster is the core's cluster id as of the last Hello.
func (r *routes) cluster() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.core
}
