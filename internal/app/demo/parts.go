package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/internal/app"
	"edgehub/pkg/bridge/uplink"
)

// demo is everything that runs.
type demo struct {
	o      Options
	dir    string
	began  time.Time
	table  *table
	series []*series

	cores     []*app.Hub
	edge      *app.Hub
	links     []*link
	linkUp    atomic.Bool
	up        *uplink.Uplink
	endUplink func() error

	edgeMQTT, edgeKafka string
	coreKafka           []string

	published atomic.Int64
}

// nodes of the core.
const nodes = 3

func (d *demo) start(ctx context.Context) error {
	if err := d.startCore(ctx); err != nil {
		return err
	}
	if err := d.startEdge(ctx); err != nil {
		return err
	}
	if err := d.startUplink(); err != nil {
		return err
	}
	return d.awaitCore(ctx)
}

func (d *demo) startHub(ctx context.Context, set []string) (*app.Hub, error) {
	cfg, err := app.LoadConfig("", nil, append(set, "http.listen=off", "kafka.listen=127.0.0.1:0", "clock=trusted"))
	if err != nil {
		return nil, err
	}
	return app.Start(ctx, app.Options{Config: cfg, Version: d.o.Version, Logger: d.o.Logger.With("hub", cfg.Name)})
}

func (d *demo) startCore(ctx context.Context) error {
	routes, err := freeAddresses(nodes)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	hubs := make([]*app.Hub, nodes)
	for i := range nodes {
		wg.Go(func() {
			h, err := d.startHub(ctx, []string{
				"role=core", fmt.Sprintf("name=core-%d", i+1), "data=" + filepath.Join(d.dir, fmt.Sprintf("core-%d", i+1)),
				"cluster.name=demo", "cluster.listen=" + routes[i], "cluster.clients=127.0.0.1:0",
				"cluster.routes=[" + strings.Join(routes, ", ") + "]", "cluster.replicas=3",
				fmt.Sprintf("topics.%s.partitions=%d", rawTopic, partitions), "topics." + windowTopic + "={}",
			})
			mu.Lock()
			defer mu.Unlock()
			hubs[i] = h
			if err != nil {
				errs = append(errs, fmt.Errorf("core node %d: %w", i+1, err))
			}
		})
	}
	wg.Wait()
	for _, h := range hubs {
		if h != nil {
			d.cores = append(d.cores, h)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, h := range d.cores {
		s := h.Status(ctx)
		d.coreKafka = append(d.coreKafka, s.Listeners["kafka"])
		l, err := newLink(s.Listeners["clients"])
		if err != nil {
			return err
		}
		d.links = append(d.links, l)
	}
	d.linkUp.Store(true)
	return nil
}

func (d *demo) startEdge(ctx context.Context) error {
	h, err := d.startHub(ctx, []string{
		"name=" + site, "data=" + filepath.Join(d.dir, "edge"), "mqtt.listen=127.0.0.1:0",
		"log.journal=32MiB", "log.commit_interval=10ms",
		fmt.Sprintf("topics.%s={partitions: %d, retain_until: uplink}", rawTopic, partitions),
		"topics." + windowTopic + "={retain_until: uplink}",
		`routes=[{match: "plant/{device}/telemetry", topic: ` + rawTopic + `, key: "{device}", payload: json, time: {field: ts, format: unix_ms}}]`,
		fmt.Sprintf("process=[{name: six-hours, from: %s, by: [device], window: tumbling %s, grace: %s, to: %s, compute: {mean: mean(temperature), max: max(temperature), n: count()}}]",
			rawTopic, windowSize, grace, windowTopic),
	})
	if err != nil {
		return fmt.Errorf("edge hub: %w", err)
	}
	d.edge = h
	s := h.Status(ctx)
	d.edgeMQTT, d.edgeKafka = s.Listeners["mqtt"], s.Listeners["kafka"]
	return nil
}

func (d *demo) startUplink() error {
	source, err := uplink.NewKafkaSource(d.edgeKafka)
	if err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	var servers []string
	for _, l := range d.links {
		servers = append(servers, "nats://"+l.addr())
	}
	logger := d.o.Logger.With("uplink", site)
	sink, err := uplink.NewNATSSink(uplink.NATSOptions{Servers: servers, Logger: logger})
	if err != nil {
		return errors.Join(fmt.Errorf("uplink: %w", err), source.Close())
	}
	d.up, err = uplink.New(uplink.Options{
		Source: source, Sink: sink, Logger: logger,
		Topics: []uplink.Topic{{Name: windowTopic, Priority: 5}, {Name: rawTopic, Priority: 1}},
	})
	if err != nil {
		return errors.Join(fmt.Errorf("uplink: %w", err), sink.Close(), source.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.up.Run(ctx) }()
	d.endUplink = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	return nil
}

// awaitCore waits until every node is ready and the uplink is connected.
func (d *demo) awaitCore(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 60*time.Second, errors.New("the core was not ready within 60s"))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var missing []string
		for i, h := range d.cores {
			for _, m := range h.Ready(ctx) {
				missing = append(missing, fmt.Sprintf("core-%d: %s", i+1, m))
			}
		}
		st := d.up.Stats()
		if err := st.Ready(); err != nil {
			missing = append(missing, "uplink: "+err.Error())
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), strings.Join(missing, "; "))
		}
	}
}

// close ends everything: the uplink first, so that it can save its cursor.
func (d *demo) close() error {
	var errs []error
	d.setLink(true)
	if d.endUplink != nil {
		errs = append(errs, d.endUplink())
	}
	if d.edge != nil {
		errs = append(errs, d.edge.Close())
	}
	for _, l := range d.links {
		l.close()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, h := range d.cores {
		wg.Go(func() {
			err := h.Close()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *demo) setLink(up bool) {
	d.linkUp.Store(up)
	for _, l := range d.links {
		l.set(up)
	}
}

// freeAddresses finds n loopback addresses that nobody listens on just now.
func freeAddresses(n int) ([]string, error) {
	var out []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // all at the end, so that no two are the same
		out = append(out, ln.Addr().String())
	}
	return out, nil
}

func join(s []string) string { return strings.Join(s, ",") }
