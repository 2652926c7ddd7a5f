package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/nats-io/nats.go"
)

// Bounds of Hellos on a node.
const (
	maxHellos    = 16 // worked on at once; more are not answered and come again
	helloTimeout = 20 * time.Second
)

// siteMap is where a site's topic goes, kept in KV from first contact on and
// never changed: edge partition i to core partition Map[i].
type siteMap struct {
	Site  string  `json:"site"`
	Edge  string  `json:"edge_topic"` // id
	Core  string  `json:"core_topic"` // id
	Topic string  `json:"topic"`      // name at first contact
	Map   []int32 `json:"map"`
	Time  int64   `json:"time"` // ms since 1970
}

func siteMapKey(site string, edge, core record.TopicID) string {
	return fmt.Sprintf("map.%s.%s.%s", site, edge, core)
}

// partitionMap sends edge partition e of edge partitions whole to core
// partition e mod n if n divides edge, else to (hash(site)+e) mod n.
func partitionMap(site string, edge, n int32) []int32 {
	shift := uint32(0)
	if edge%n != 0 {
		h := fnv.New32a()
		h.Write([]byte(site))
		shift = h.Sum32() % uint32(n)
	}
	m := make([]int32, edge)
	for e := range m {
		m[e] = int32((uint64(shift) + uint64(e)) % uint64(n))
	}
	return m
}

// onHello answers a site's Hello. It may have to create topics, so each runs
// in a goroutine of its own, few at once.
func (c *Core) onHello(m *nats.Msg) {
	site, ok := c.trustReply(m)
	if !ok {
		return
	}
	select {
	case c.hellos <- struct{}{}:
	default:
		c.reply(m, forward.KindHelloReply, &forward.HelloReply{Code: forward.CodeBusy, Message: "too many sites say hello at once"})
		return
	}
	c.spawn(func() {
		defer func() { <-c.hellos }()
		ctx, cancel := context.WithTimeout(c.ctx, helloTimeout)
		defer cancel()
		r := c.hello(ctx, site, m.Data)
		if r.Code == forward.CodeRefused {
			c.stats.refused.Add(1)
			c.log.Warn("hello refused", "site", site, "reason", r.Message)
		}
		c.reply(m, forward.KindHelloReply, &r)
	})
}

func (c *Core) hello(ctx context.Context, site string, data []byte) forward.HelloReply {
	var h forward.Hello
	rest, err := forward.Decode(data, forward.KindHello, &h)
	switch {
	case errors.Is(err, forward.ErrVersion):
		return forward.HelloReply{Code: forward.CodeVersion, Message: err.Error()}
	case err != nil:
		return forward.HelloReply{Code: forward.CodeRefused, Message: err.Error()}
	case h.Site != site:
		return forward.HelloReply{Code: forward.CodeRefused, Message: fmt.Sprintf("site %q spoke as %q", site, h.Site)}
	case len(rest) > 0 || len(h.Topics) > forward.MaxTopics:
		return forward.HelloReply{Code: forward.CodeRefused, Message: fmt.Sprintf("%d topics, at most %d, nothing behind them", len(h.Topics), forward.MaxTopics)}
	}
	id := c.clusterID()
	if id == "" {
		return forward.HelloReply{Code: forward.CodeNoLeader, Message: "this node is not ready"}
	}
	r := forward.HelloReply{Core: id}
	for _, t := range h.Topics {
		r.Routes = append(r.Routes, c.route(ctx, site, t))
	}
	return r
}

// route finds or makes the core topic of an edge topic and its map.
func (c *Core) route(ctx context.Context, site string, t forward.HelloTopic) forward.TopicRoute {
	r := forward.TopicRoute{Name: t.Name}
	refuse := func(code forward.Code, err error) forward.TopicRoute {
		r.Code, r.Message = code, err.Error()
		return r
	}
	if err := record.CheckTopicName(t.Name); err != nil {
		return refuse(forward.CodeRefused, err)
	}
	if strings.HasPrefix(t.Name, record.InternalPrefix) {
		return refuse(forward.CodeRefused, fmt.Errorf("topic %s is internal to the edge", t.Name))
	}
	if t.Partitions < 1 || t.Partitions > record.MaxPartitions {
		return refuse(forward.CodeRefused, fmt.Errorf("topic %s has %d partitions, 1 to %d are possible", t.Name, t.Partitions, record.MaxPartitions))
	}
	meta, err := c.findTopic(ctx, t.Name)
	if errors.Is(err, record.ErrUnknownTopic) {
		cfg := record.DefaultTopicConfig()
		cfg.Partitions = t.Partitions
		if _, err = c.CreateTopic(ctx, t.Name, cfg); err == nil || errors.Is(err, record.ErrTopicExists) {
			meta, err = c.findTopic(ctx, t.Name)
		}
	}
	if err != nil {
		return refuse(forward.CodeNoLeader, err)
	}
	r.ID = meta.ID
	key := siteMapKey(site, t.ID, meta.ID)
	want := siteMap{Site: site, Edge: t.ID.String(), Core: meta.ID.String(), Topic: t.Name,
		Map: partitionMap(site, t.Partitions, meta.Config.Partitions), Time: c.now()}
	if e, ok := c.meta.get(key); ok {
		err = json.Unmarshal(e.value, &want)
	} else {
		var b []byte
		if b, err = json.Marshal(&want); err == nil {
			if e, _, err = c.meta.create(ctx, key, b); err == nil {
				err = json.Unmarshal(e.value, &want)
				c.poke()
			}
		}
	}
	if err != nil {
		return refuse(forward.CodeNoLeader, fmt.Errorf("map of %s: %w", t.Name, err))
	}
	if len(want.Map) != int(t.Partitions) {
		return refuse(forward.CodeRefused, fmt.Errorf("topic %s had %d partitions at first contact, now %d", t.Name, len(want.Map), t.Partitions))
	}
	r.Map = want.Map
	return r
}

// mapped says whether source may be forwarded to p: the map made at Hello
// says so. Without this a mistaken uplink could store a source twice.
func (c *Core) mapped(p *partition, s forward.Source) (forward.Code, string) {
	e, ok := c.meta.get(siteMapKey(s.Site, s.Topic, p.topic))
	if !ok {
		notify(c.pokes)
		return forward.CodeNoLeader, "the topic's map is not known here yet: say hello first, or wait"
	}
	var m siteMap
	if err := json.Unmarshal(e.value, &m); err != nil {
		return forward.CodeRefused, err.Error()
	}
	if s.Partition < 0 || int(s.Partition) >= len(m.Map) || m.Map[s.Partition] != p.num {
		return forward.CodeRefused, fmt.Sprintf("edge partition %d does not go to %s", s.Partition, p)
	}
	return forward.CodeOK, ""
}
