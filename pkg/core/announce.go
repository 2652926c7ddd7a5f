package core

import (
	"context"
	"fmt"
	"net"
	"sort"
	"strconv"
	"sync"
	"time"

	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
)

// Subjects between the nodes.
const (
	leadsSubject = "hub.leads" // announcements
	pokeSubject  = "hub.poke"  // the metadata has changed, or a node wants announcements
)

// Times of announcements.
const (
	announceEvery = time.Second
	nodeTimeout   = 4 * time.Second // silent nodes are left out of Metadata
)

// announcement tells the other nodes what a node leads and where its Kafka
// clients find it. It is sent every second and at every change.
type announcement struct {
	Node  int32  `cbor:"1,keyasint"`
	Name  string `cbor:"2,keyasint"`
	Host  string `cbor:"3,keyasint"`
	Port  int32  `cbor:"4,keyasint"`
	Leads []lead `cbor:"5,keyasint"`
	// Coordinator is the office number (higher wins) of the groups'
	// coordinator, 0 if the node is not.
	Coordinator uint64 `cbor:"6,keyasint"`
	Leaving     bool   `cbor:"7,keyasint,omitempty"`
}

type lead struct {
	Topic     record.TopicID `cbor:"1,keyasint"`
	Partition int32          `cbor:"2,keyasint"`
	Epoch     int32          `cbor:"3,keyasint"`
}

type leadKey struct {
	topic     record.TopicID
	partition int32
}

// nodes is what this node heard of all nodes, itself included.
type nodes struct {
	mu      sync.Mutex
	m       map[int32]*nodeState
	changed chan struct{} // closed and renewed at every announcement heard
}

type nodeState struct {
	announcement
	leads map[leadKey]int32
	heard time.Time
}

func newNodes() *nodes {
	return &nodes{m: map[int32]*nodeState{}, changed: make(chan struct{})}
}

func (n *nodes) hear(a announcement, now time.Time) {
	s := &nodeState{announcement: a, leads: make(map[leadKey]int32, len(a.Leads)), heard: now}
	for _, l := range a.Leads {
		s.leads[leadKey{l.Topic, l.Partition}] = l.Epoch
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Leaving {
		delete(n.m, a.Node)
	} else {
		n.m[a.Node] = s
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// wait returns a channel that is closed at the next announcement.
func (n *nodes) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// cut forgets nodes that this one has no route to: they have died or are
// about to. Without this clients would be sent to them until nodeTimeout.
func (n *nodes) cut(self int32, routes map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, s := range n.m {
		if id != self && !routes[s.Name] {
			delete(n.m, id)
		}
	}
}

// leader is the node that leads a partition: of several claims the one with
// the highest epoch. -1: none is known.
func (n *nodes) leader(k leadKey, now time.Time) (node, epoch int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node, epoch = -1, -1
	for id, s := range n.m {
		if e, ok := s.leads[k]; ok && e > epoch && now.Sub(s.heard) < nodeTimeout {
			node, epoch = id, e
		}
	}
	return node, epoch
}

// coordinator is the node that coordinates groups.
func (n *nodes) coordinator(now time.Time) (record.Broker, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var best *nodeState
	for _, s := range n.m {
		if s.Coordinator > 0 && now.Sub(s.heard) < nodeTimeout && (best == nil || s.Coordinator > best.Coordinator) {
			best = s
		}
	}
	if best == nil {
		return record.Broker{}, false
	}
	return record.Broker{ID: best.Node, Host: best.Host, Port: best.Port}, true
}

// brokers are the nodes heard of lately, by id.
func (n *nodes) brokers(now time.Time) []record.Broker {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []record.Broker
	for _, s := range n.m {
		if now.Sub(s.heard) < nodeTimeout {
			out = append(out, record.Broker{ID: s.Node, Host: s.Host, Port: s.Port})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// announce makes the announcer speak soon.
func (c *Core) announce() { notify(c.announcing) }

// announcer speaks until ctx ends.
func (c *Core) announcer(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		c.speak(false)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.announcing:
		}
	}
}

func (c *Core) speak(leaving bool) {
	id := c.nodeID.Load()
	if id == 0 {
		return
	}
	a := announcement{Node: id, Name: c.opt.Node, Coordinator: c.groups.office(), Leaving: leaving}
	if c.opt.Advertise != nil {
		a.Host, a.Port = splitAdvertise(c.opt.Advertise())
	}
	for _, p := range c.partitions() {
		p.mu.Lock()
		if p.serving {
			a.Leads = append(a.Leads, lead{Topic: p.topic, Partition: p.num, Epoch: p.epoch})
		}
		p.mu.Unlock()
	}
	c.nodes.hear(a, time.Now())
	b, err := cborEnc.Marshal(&a)
	if err == nil {
		err = c.nc.Publish(leadsSubject, b)
	}
	if err != nil {
		c.log.Debug("announcement not sent", "error", err)
	}
}

func (c *Core) onAnnouncement(m *nats.Msg) {
	var a announcement
	if err := cborDec.Unmarshal(m.Data, &a); err != nil {
		c.log.Warn("announcement of another version", "error", err)
		return
	}
	if a.Node != c.nodeID.Load() {
		c.nodes.hear(a, time.Now())
	}
}

func splitAdvertise(s string) (string, int32) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s, 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, int32(n)
}

// waitLeaders waits until every partition of a topic has a leader.
func (c *Core) waitLeaders(ctx context.Context, id record.TopicID, partitions int32) error {
	for {
		changed := c.nodes.wait()
		missing := int32(-1)
		for p := range partitions {
			if n, _ := c.nodes.leader(leadKey{id, p}, time.Now()); n < 0 {
				missing = p
				break
			}
		}
		if missing < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: partition %d has no leader yet", record.ErrUnavailable, missing)
		case <-changed:
		case <-time.After(announceEvery):
		}
	}
}
