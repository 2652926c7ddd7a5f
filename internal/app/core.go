package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"edgehub/internal/config"
	"edgehub/internal/obs"
	"edgehub/internal/obs/parts"
	"edgehub/internal/web"
	"edgehub/pkg/core"
	"edgehub/pkg/kafka"
	"edgehub/pkg/log/record"
)

// coreRole is a core node's hub.
type coreRole struct {
	cfg   *config.Config
	lock  *os.File
	core  atomic.Pointer[core.Core]
	kafka atomic.Pointer[kafka.Server]
	never chan struct{}

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	topics error // why the configured topics are not there yet
}

func newCoreRole(c *config.Config) *coreRole {
	return &coreRole{cfg: c, never: make(chan struct{}), topics: errors.New("the configured topics have not been looked at yet")}
}

func (r *coreRole) start(_ context.Context, h *Hub) error {
	c := r.cfg
	var err error
	if r.lock, err = lockData(c.Data); err != nil {
		return err
	}
	o := core.Options{
		Name: c.Cluster.Name, Node: c.Name, Dir: filepath.Join(c.Data, "core"),
		ClientListen: c.Cluster.Clients, RouteListen: c.Cluster.Listen, Routes: c.Cluster.Routes,
		Replicas: c.Cluster.Replicas, AllowAnonymous: c.Cluster.AllowAnonymous,
		Advertise: r.advertise, Logger: h.logger,
	}
	if len(c.Cluster.Routes) == 0 {
		o.RouteListen = "" // alone: no cluster
	}
	if c.Cluster.Secret != "" {
		if o.Secret, err = config.ReadSecret(c.Cluster.Secret); err != nil {
			return err
		}
	}
	if c.Cluster.Sites != "" {
		sites, err := config.LoadSites(c.Cluster.Sites)
		if err != nil {
			return err
		}
		if len(sites) == 0 && !c.Cluster.AllowAnonymous && !config.Loopback(c.Cluster.Clients) {
			return fmt.Errorf("cluster.sites: %s holds no site, so that no uplink could log in: enroll one by `hub enroll`", c.Cluster.Sites)
		}
		for _, s := range sites {
			o.Sites = append(o.Sites, core.Site{Name: s.Name, NKey: s.NKey})
		}
	}
	h.enter("the core is being started")
	n, err := core.Start(o)
	if err != nil {
		return coreError(c, err)
	}
	r.core.Store(n)

	h.enter("the Kafka listener is being opened")
	srv, err := kafka.Listen(kafka.Options{
		Store: n, Listen: c.Kafka.Listen, Advertise: c.Kafka.Advertise, AutoCreate: true,
		DefaultTopic: defaultTopic(c), Logger: h.logger,
	})
	if err != nil {
		return listenError("kafka.listen", c.Kafka.Listen, err)
	}
	r.kafka.Store(srv)

	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.wg.Go(func() { r.ensureTopics(ctx, h.logger) })
	return nil
}

// coreError names the key when an address cannot be had.
func coreError(c *config.Config, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("cluster.listen %s or cluster.clients %s: %w: stop the other program, or set another address", c.Cluster.Listen, c.Cluster.Clients, err)
	}
	return fmt.Errorf("core: %w", err)
}

// advertise is the Kafka address of this node for clients of all nodes; ""
// while there is none.
func (r *coreRole) advertise() string {
	if a := r.cfg.Kafka.Advertise; a != "" {
		return a
	}
	srv := r.kafka.Load()
	if srv == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(srv.Addr().String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		// Listening everywhere: clients find this machine by its name.
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return net.JoinHostPort(host, port)
}

// ensureTopics creates the configured topics once there is a majority.
func (r *coreRole) ensureTopics(ctx context.Context, logger *slog.Logger) {
	want := map[string]record.TopicConfig{}
	for _, t := range r.cfg.Topics {
		want[t.Name] = t.Config
	}
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := r.core.Load().Ready()
		if err == nil && len(want) > 0 {
			attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
			err = r.core.Load().EnsureTopics(attempt, want)
			cancel()
		}
		r.mu.Lock()
		r.topics = err
		r.mu.Unlock()
		if err == nil {
			logger.Info("core node is ready", "topics", len(want))
			return
		}
		logger.Debug("configured topics are not there yet", "err", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (r *coreRole) close() error {
	if r.cancel != nil {
		r.cancel()
	}
	var errs []error
	if k := r.kafka.Load(); k != nil {
		errs = append(errs, k.Close())
	}
	r.wg.Wait()
	if n := r.core.Load(); n != nil {
		errs = append(errs, n.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	return errors.Join(errs...)
}

func (r *coreRole) failed() <-chan struct{} { return r.never }
func (r *coreRole) err() error              { return nil }

func (r *coreRole) ready(context.Context) []string {
	if err := r.core.Load().Ready(); err != nil {
		return []string{"core: " + err.Error()}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.topics != nil {
		return []string{"topics: " + r.topics.Error()}
	}
	return nil
}

func (r *coreRole) health(ctx context.Context) ([]string, bool) {
	return r.ready(ctx), false
}

func (r *coreRole) scrape(s *obs.Scrape) {
	if n := r.core.Load(); n != nil {
		parts.Core(s, n.Stats())
	}
	if k := r.kafka.Load(); k != nil {
		parts.Kafka(s, k.Stats())
	}
}

func (r *coreRole) status(ctx context.Context, s *web.Status) {
	n := r.core.Load()
	st := n.Stats()
	s.Core = &web.Core{Cluster: r.cfg.Cluster.Name, Node: r.cfg.Name, Leads: st.Led, Ready: "yes"}
	if err := n.Ready(); err != nil {
		s.Core.Ready = err.Error()
	}
	s.Listeners["clients"] = n.ClientAddr()
	if k := r.kafka.Load(); k != nil {
		s.Listeners["kafka"] = k.Addr().String()
		s.Kafka = kafkaStatus(k.Stats())
	}
	led := map[record.TopicPartition]core.PartitionStats{}
	for _, p := range st.Partitions {
		led[record.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = p
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	infos, err := n.Topics(ctx, nil)
	if err != nil {
		s.Problems = append(s.Problems, "topics: "+err.Error())
	}
	for _, t := range infos {
		wt := topicStatus(&t)
		for i := range wt.Partitions {
			// Other nodes know the offsets of what they lead.
			wt.Partitions[i].Start, wt.Partitions[i].End = -1, -1
			if p, ok := led[record.TopicPartition{Topic: t.Name, Partition: int32(i)}]; ok {
				wt.Partitions[i].Start, wt.Partitions[i].End, wt.Partitions[i].Bytes = p.LogStart, p.Next, p.Bytes
			}
		}
		s.Topics = append(s.Topics, wt)
	}
}

// lockData keeps a second core node out of a data folder. The kernel releases
// it with the process.
func lockData(dir string) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dir, cause(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data folder %s is in use by another hub: stop it, or name another folder by data", dir)
	}
	return f, nil
}
