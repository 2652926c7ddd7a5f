package core

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options of a core node.
type Options struct {
	Name         string   // of the cluster; default "core"
	Node         string   // of this node: unique, and the same at every start
	Dir          string   // JetStream's files; made if missing
	ClientListen string   // host:port of uplinks; default "127.0.0.1:4222", port 0: random
	RouteListen  string   // host:port of the other nodes; "", or 1 replica and at most one route: a node alone
	Routes       []string // host:port of all nodes' RouteListen, this one's may be among them
	Replicas     int      // of every stream: 3, or 1 on a node alone; 0: 3 with RouteListen, else 1
	Secret       string   // of the routes; required unless RouteListen is on loopback
	Sites        []Site   // who may forward; see AllowAnonymous
	// AllowAnonymous lets uplinks in without credentials where no sites are
	// configured and ClientListen is not on loopback (where they always are).
	AllowAnonymous bool
	TLS            *tls.Config   // of ClientListen; nil: none
	Advertise      func() string // this node's Kafka host:port for clients
	CacheBytes     int           // recent frames kept in memory; default 16 MB
	WindowBytes    int64         // in flight from all lanes; default 64 MB

	RetentionInterval time.Duration // how often retention looks; default 30 s
	KeyframeInterval  time.Duration // default 60 s

	Logger *slog.Logger // nil: discarded
}

func (o *Options) ensureDefaults() error {
	if o.Name == "" {
		o.Name = "core"
	}
	if o.ClientListen == "" {
		o.ClientListen = "127.0.0.1:4222"
	}
	if o.Replicas == 0 {
		o.Replicas = 1
		if o.RouteListen != "" {
			o.Replicas = 3
		}
	}
	if o.Replicas == 1 && len(o.Routes) <= 1 {
		o.RouteListen = "" // a cluster of one would wait for a second node for ever
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.WindowBytes == 0 {
		o.WindowBytes = 64 << 20
	}
	if o.RetentionInterval == 0 {
		o.RetentionInterval = 30 * time.Second
	}
	if o.KeyframeInterval == 0 {
		o.KeyframeInterval = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Node == "" || o.Dir == "":
		return errors.New("a core node needs a name and a directory")
	case o.Replicas != 1 && o.Replicas != 3 && o.Replicas != 5:
		return fmt.Errorf("%d replicas: use 1, 3 or 5", o.Replicas)
	}
	return nil
}

// Times of the node's loops.
const (
	pollEvery    = 50 * time.Millisecond // who leads what
	refreshEvery = 250 * time.Millisecond
	healthEvery  = 2 * time.Second
	listenWait   = 5 * time.Second // for the listener, in Start
	drainWait    = 2 * time.Second // for what is queued, in Close
	stopWait     = 7 * time.Second // for the server, in Close
)

// Core is a core node. Its methods are safe for concurrent use; those of
// kafka.Store answer record.ErrUnavailable until the node has found its
// cluster.
type Core struct {
	opt       Options
	log       *slog.Logger
	ns        *server.Server
	serverLog *serverLog
	password  string
	nc        *nats.Conn
	js        streams
	meta      *kv
	groups    *groups
	nodes     *nodes
	cache     *frameCache
	lanes     *grants
	stats     counters
	anonymous bool

	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	hellos     chan struct{} // capacity: Hellos worked on at once
	announcing chan struct{}
	pokes      chan struct{}
	nodeID     atomic.Int32
	cluster    atomic.Pointer[string]
	laneBytes  atomic.Int64 // of lanes' messages in work
	closing    atomic.Bool
	closeOnce  sync.Once

	mu     sync.Mutex
	joined bool // nothing is spawned any more
	topics map[string]*topic
	known  []int32 // ids of all nodes there ever were, ascending
	state  error   // why the node does not serve, nil if it does
	// producer ids in hand, and a block in reserve
	ids, spareIDs idBlock
}

// errStarting is the state before the cluster has been found.
var errStarting = errors.New("the node is starting")

// Start starts a core node. It returns as soon as the listeners are there and
// does not wait for the other nodes; Ready tells when it serves. It fails for
// what waiting does not mend: options, ports, an unusable directory.
func Start(o Options) (*Core, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("core directory: %w", err)
	}
	password := randomHex(32)
	so, err := serverOptions(&o, password)
	if err != nil {
		return nil, err
	}
	if err := probe("cluster clients", so.Host, so.Port); err != nil {
		return nil, err
	}
	if o.RouteListen != "" {
		if err := probe("cluster listen", so.Cluster.Host, so.Cluster.Port); err != nil {
			return nil, err
		}
	}
	ns, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	log := o.Logger.With("node", o.Node)
	c := &Core{
		opt: o, log: log, ns: ns, serverLog: &serverLog{log: log.With("part", "nats")}, password: password,
		nodes: newNodes(), cache: newFrameCache(o.CacheBytes), lanes: newGrants(o.WindowBytes), anonymous: o.open(),
		hellos: make(chan struct{}, maxHellos), announcing: make(chan struct{}, 1), pokes: make(chan struct{}, 1),
		topics: map[string]*topic{}, state: errStarting,
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	ns.SetLoggerV2(c.serverLog, false, false, false)
	started := make(chan struct{})
	c.spawn(func() { // recovery of large stores takes its time
		defer close(started)
		ns.Start()
	})
	if err := c.listening(); err != nil {
		c.shutdown()
		return nil, err
	}
	c.spawn(func() {
		<-started
		c.run(c.ctx)
	})
	return c, nil
}

// spawn runs f in a goroutine that Close joins; not at all once it does.
func (c *Core) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined {
		return false
	}
	c.wg.Go(f)
	return true
}

// listening waits for the listener, or for what keeps it from coming up. A
// store that takes long to recover keeps neither from being said.
func (c *Core) listening() error {
	deadline := time.Now().Add(listenWait)
	for time.Now().Before(deadline) {
		if c.ns.ReadyForConnections(50 * time.Millisecond) {
			break
		}
		if err := c.serverLog.err(); err != nil {
			return err
		}
	}
	nc, err := nats.Connect("", nats.InProcessServer(c.ns), nats.UserInfo(hubUser, c.password), nats.Name("hub"),
		nats.CustomInboxPrefix("_hub."+randomHex(8)), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectBufSize(-1), nats.Timeout(10*time.Second), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.log.Debug("nats", "error", err) }))
	if err != nil {
		return fmt.Errorf("embedded server: %w", err)
	}
	c.nc, c.js = nc, newStreams(nc)
	c.meta = newKV(c.js, "hub")
	c.groups = newGroups(c)
	return nil
}

// run finds the cluster, then keeps the node's loops going until ctx ends.
func (c *Core) run(ctx context.Context) {
	pause, patience := 100*time.Millisecond, time.Second
	for {
		// While a stream has no leader, requests are not answered at all.
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := c.findCluster(attempt)
		cancel()
		patience = min(patience*5/4, 10*time.Second)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		c.setState(fmt.Errorf("%w: %w", errStarting, err))
		c.log.Debug("cluster is not there yet", "error", err)
		if sleep(ctx, pause) != nil {
			return
		}
		pause = min(pause*3/2, time.Second)
	}
	c.setState(nil)
	c.log.Info("core node serves", "id", c.nodeID.Load(), "cluster", c.clusterID(), "clients", c.ClientAddr())
	for _, loop := range []func(context.Context){c.follow, c.announcer, c.groups.follow, c.refresher, c.keeper} {
		c.spawn(func() { loop(ctx) })
	}
	// Others speak at once, so that this node knows the leaders.
	c.poke()
}

// findCluster makes what every node needs: the two KV streams, an id of the
// cluster and of this node, the subscriptions.
func (c *Core) findCluster(ctx context.Context) error {
	if err := c.serverLog.err(); err != nil {
		return err
	}
	if !c.ns.JetStreamEnabled() {
		return errors.New("JetStream is not enabled")
	}
	if err := c.meta.ensure(ctx, c.opt.Replicas); err != nil {
		return err
	}
	if err := c.groups.kv.ensure(ctx, c.opt.Replicas); err != nil {
		return err
	}
	if err := c.meta.sync(ctx); err != nil {
		return err
	}
	e, _, err := c.meta.create(ctx, "cluster", []byte(c.opt.Name+"/"+randomHex(16)))
	if err != nil {
		return err
	}
	id := string(e.value)
	if err := c.findNodeID(ctx); err != nil {
		return err
	}
	c.syncTopics()
	if c.cluster.Swap(&id) != nil {
		return nil
	}
	for subject, f := range map[string]nats.MsgHandler{
		leadsSubject: c.onAnnouncement,
		pokeSubject: func(*nats.Msg) {
			notify(c.pokes)
			c.announce()
		},
	} {
		if _, err := c.nc.Subscribe(subject, f); err != nil {
			return err
		}
	}
	_, err = c.nc.QueueSubscribe(forward.HelloSubject("*"), "hub", c.onHello)
	return err
}

// nodeEntry is a node in the metadata KV.
type nodeEntry struct {
	Name string `json:"name"`
}

func nodeKey(id int32) string { return fmt.Sprintf("node.%d", id) }

// wantedID is the number at the end of a node's name, so that core-2 becomes
// node 2 if it can; else 1.
func wantedID(name string) int32 {
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	if n, err := strconv.ParseInt(digits, 10, 32); err == nil && n >= 1 && n <= 9999 {
		return int32(n)
	}
	return 1
}

// findNodeID finds or takes the small number of this node's name.
func (c *Core) findNodeID(ctx context.Context) error {
	b, err := json.Marshal(nodeEntry{c.opt.Node})
	if err != nil {
		return err
	}
	for id := wantedID(c.opt.Node); ; {
		for known, n := range c.nodeEntries() {
			if n.Name == c.opt.Node {
				c.nodeID.Store(known)
				return nil
			}
		}
		for c.nodeEntries()[id].Name != "" {
			id++
		}
		if _, _, err := c.meta.create(ctx, nodeKey(id), b); err != nil {
			return err
		}
		if _, err := c.meta.refresh(ctx); err != nil {
			return err
		}
	}
}

func (c *Core) nodeEntries() map[int32]nodeEntry {
	out := map[int32]nodeEntry{}
	c.meta.list("node.", func(key string, e kvEntry) {
		var id int32
		var n nodeEntry
		if _, err := fmt.Sscanf(key, "node.%d", &id); err == nil && json.Unmarshal(e.value, &n) == nil {
			out[id] = n
		}
	})
	return out
}

// follow starts and stops leaders as the streams change theirs.
func (c *Core) follow(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range c.partitions() {
			leads := c.leads(p.stream)
			p.mu.Lock()
			leading, stop := p.leading, p.stop
			start := leads && !leading && !p.closed && c.now() >= p.nextStart
			if start {
				c.lead(ctx, p)
			}
			p.mu.Unlock()
			if !leads && leading {
				stop()
			}
		}
	}
}

// lead starts p's leader. p.mu is held.
func (c *Core) lead(ctx context.Context, p *partition) {
	ctx, p.stop = context.WithCancel(ctx)
	p.leading = true
	l := &leader{c: c, p: p, log: c.log.With("partition", p.String())}
	c.spawn(func() {
		l.run(ctx)
		p.mu.Lock()
		p.leading = false
		p.stop()
		p.mu.Unlock()
	})
}

// refresher keeps the metadata fresh.
func (c *Core) refresher(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.pokes:
		}
		c.cutNodes()
		changed, err := c.meta.refresh(ctx)
		if err != nil {
			c.log.Debug("metadata not refreshed", "error", err)
		}
		if changed {
			c.syncTopics()
		}
	}
}

// cutNodes forgets nodes whose routes are down. Every node has a route to
// every other one.
func (c *Core) cutNodes() {
	if c.opt.RouteListen == "" {
		return
	}
	rz, err := c.ns.Routez(nil)
	if err != nil {
		return
	}
	routes := map[string]bool{}
	for _, r := range rz.Routes {
		routes[r.RemoteName] = true
	}
	c.nodes.cut(c.nodeID.Load(), routes)
}

// keeper watches the health of the cluster and finishes what was left half
// done.
func (c *Core) keeper(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := c.js.info(ctx, c.meta.stream)
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("the cluster has no leader or no quorum: %w", err)
		}
		c.setState(err)
		c.lanes.expire(time.Now())
		if err == nil {
			c.stockIDs(ctx)
		}
		if err == nil && c.leads(c.meta.stream) {
			c.finishTopics(ctx)
		}
	}
}

// leads says whether this node leads a stream. It costs no request.
func (c *Core) leads(stream string) bool {
	return !c.closing.Load() && c.ns.GlobalAccount().JetStreamIsStreamLeader(stream)
}

// stepDown gives the leadership of a stream away.
func (c *Core) stepDown(stream string) {
	if c.opt.Replicas > 1 {
		if err := c.ns.JetStreamStepdownStream(c.ns.GlobalAccount().Name, stream); err != nil {
			c.log.Debug("leadership not given away", "stream", stream, "error", err)
		}
	}
}

// poke tells all nodes that metadata has changed.
func (c *Core) poke() {
	if err := c.nc.Publish(pokeSubject, nil); err != nil {
		c.log.Debug("poke not sent", "error", err)
	}
}

func (c *Core) now() int64 { return time.Now().UnixMilli() }

func (c *Core) setState(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = err
}

// up says why no request can be served, wrapping record.ErrUnavailable or
// record.ErrClosed.
func (c *Core) up() error {
	if c.closing.Load() {
		return record.ErrClosed
	}
	if c.cluster.Load() == nil {
		return fmt.Errorf("%w: %w", record.ErrUnavailable, errStarting)
	}
	return nil
}

func (c *Core) clusterID() string {
	if id := c.cluster.Load(); id != nil {
		return *id
	}
	return ""
}

func (c *Core) nodeIDs() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int32(nil), c.known...)
}

// Ready is nil when the node serves: JetStream works, the cluster has a
// leader, and the metadata is known. Quarantined partitions are told apart.
func (c *Core) Ready() error {
	if c.closing.Load() {
		return record.ErrClosed
	}
	if err := c.serverLog.err(); err != nil {
		return fmt.Errorf("embedded server: %w", err)
	}
	c.mu.Lock()
	err := c.state
	c.mu.Unlock()
	return err
}

// Quarantined are the partitions that this node refuses to serve, with the
// reason. Other replicas may serve them.
func (c *Core) Quarantined() map[string]error {
	out := map[string]error{}
	for _, p := range c.partitions() {
		p.mu.Lock()
		if p.sick != nil {
			out[p.String()] = p.sick
		}
		p.mu.Unlock()
	}
	return out
}

// ClientAddr is the address on which uplinks are served, "" before it is
// known.
func (c *Core) ClientAddr() string {
	a := c.ns.Addr()
	if a == nil {
		return ""
	}
	return a.String()
}

// Close gives leaderships away, stops serving and joins everything, within
// about 10 s. The other nodes take over within a fraction of a second.
func (c *Core) Close() error {
	c.closeOnce.Do(func() {
		if c.cluster.Load() != nil {
			c.speak(true)
		}
		var led []string
		drain, cancel := context.WithTimeout(c.ctx, drainWait)
		defer cancel()
		parts := c.partitions()
		for _, p := range parts {
			p.refuse()
		}
		for _, p := range parts {
			p.drain(drain)
			if c.leads(p.stream) {
				led = append(led, p.stream)
			}
		}
		for _, k := range []*kv{c.groups.kv, c.meta} {
			if c.leads(k.stream) {
				led = append(led, k.stream)
			}
		}
		c.closing.Store(true)
		c.cancel()
		for _, s := range led {
			c.stepDown(s)
		}
		if len(led) > 0 && c.opt.Replicas > 1 {
			time.Sleep(100 * time.Millisecond) // the others elect before this node goes
		}
		c.shutdown()
	})
	return nil
}

// kill is Close without goodbye, for tests of what a crash leaves.
func (c *Core) kill() {
	c.closeOnce.Do(func() {
		c.closing.Store(true)
		c.cancel()
		c.shutdown()
	})
}

func (c *Core) shutdown() {
	c.cancel()
	if c.nc != nil {
		c.nc.Close()
	}
	stopped := make(chan struct{})
	go func() { // owned by the server, which may hang on a dead disk
		defer close(stopped)
		c.ns.Shutdown()
		c.ns.WaitForShutdown()
	}()
	select {
	case <-stopped:
		c.mu.Lock()
		c.joined = true
		c.mu.Unlock()
		c.wg.Wait()
	case <-time.After(stopWait):
		c.log.Error("embedded server does not stop")
	}
}

// SetSites replaces the sites that may forward, without a restart. A site
// that is gone is disconnected. It cannot open or close the listener for
// clients without credentials: that takes a restart.
func (c *Core) SetSites(sites []Site) error {
	c.mu.Lock()
	o := c.opt
	c.mu.Unlock()
	if o.open() != (len(sites) == 0) {
		return errors.New("the first site and none at all take a restart: they change who may connect without credentials")
	}
	o.Sites = sites
	so, err := serverOptions(&o, c.password)
	if err != nil {
		return err
	}
	if so.Port < 0 { // a random port stays the one that was found
		if _, so.Port, err = splitListen(c.ClientAddr()); err != nil {
			return err
		}
	}
	if a := c.ns.ClusterAddr(); so.Cluster.Port < 0 && a != nil {
		so.Cluster.Port = a.Port
	}
	if err := c.ns.ReloadOptions(so); err != nil {
		return fmt.Errorf("reload sites: %w", err)
	}
	c.mu.Lock()
	c.opt.Sites = sites
	c.mu.Unlock()
	return nil
}
