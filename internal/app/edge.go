package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"edgehub/internal/config"
	"edgehub/internal/obs"
	"edgehub/internal/obs/parts"
	"edgehub/internal/web"
	"edgehub/pkg/bridge/mqtt"
	"edgehub/pkg/kafka"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/payload"
	"edgehub/pkg/process"
	"edgehub/pkg/route"
)

// edge is a gateway's hub.
type edge struct {
	cfg    atomic.Pointer[config.Config] // replaced by Reload
	routes atomic.Pointer[route.Table]
	clock  *clock

	// Set while starting, read by anybody.
	log       atomic.Pointer[log.Log]
	topics    *topics
	kafka     atomic.Pointer[kafka.Server]
	kafkaPort atomic.Int32
	engine    atomic.Pointer[process.Engine]
	mqtt      atomic.Pointer[mqtt.Broker]

	logFailed chan struct{} // stands for the log's while there is none
}

func newEdgeRole(c *config.Config) *edge {
	e := &edge{logFailed: make(chan struct{})}
	e.cfg.Store(c)
	return e
}

func (e *edge) start(_ context.Context, h *Hub) error {
	c := e.cfg.Load()
	table, err := route.Compile(rules(c))
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	e.routes.Store(table)

	h.enter("the log is being opened")
	l, err := log.Open(log.Options{
		Dir: c.Data, JournalBytes: c.Log.Journal, CommitInterval: commitInterval(c),
		Compression: c.Log.Compression, Logger: h.logger,
	})
	if err != nil {
		return fmt.Errorf("data folder %s: %w", c.Data, err)
	}
	e.log.Store(l)
	e.clock = newClock(c.Clock, logFloor(l))
	e.reportRecovery(h, l.Recovery())

	h.enter("topics are being created")
	e.topics = &topics{log: l, cfg: e.cfg.Load, logger: h.logger}
	problems, err := e.topics.ensureAll(c)
	if err != nil {
		return err
	}
	h.warn(problems...)

	if c.Kafka.On() {
		h.enter("the Kafka listener is being opened")
		id := fmt.Sprintf("%s/%x", c.Name, l.ID())
		srv, err := kafka.Listen(kafka.Options{
			Store:  kafka.NewEdgeStore(l, id, func() int32 { return e.kafkaPort.Load() }),
			Listen: c.Kafka.Listen, Advertise: c.Kafka.Advertise, AutoCreate: true,
			DefaultTopic: defaultTopic(c), Logger: h.logger,
		})
		if err != nil {
			return listenError("kafka.listen", c.Kafka.Listen, err)
		}
		e.kafkaPort.Store(int32(srv.Addr().(*net.TCPAddr).Port))
		e.kafka.Store(srv)
	}

	h.enter("processes are being resumed")
	engine, err := process.New(process.Options{
		Log: l, Dir: filepath.Join(c.Data, "process"), Definitions: definitions(c),
		Decoder: e.decoder, ClockTrusted: e.clock.trusted, Logger: h.logger,
	})
	if err == nil {
		err = engine.Start()
	}
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	e.engine.Store(engine)

	if c.MQTT.On() {
		h.enter("the MQTT listener is being opened")
		b, err := mqtt.Listen(mqtt.Options{
			Log: l, Listen: c.MQTT.Listen, AllowAnonymous: c.MQTT.AllowAnonymous || config.Loopback(c.MQTT.Listen),
			Routes: table, Site: c.Name, EnsureTopic: e.topics.ensure, ClockTrusted: e.clock.trusted, Logger: h.logger,
		})
		if err != nil {
			return listenError("mqtt.listen", c.MQTT.Listen, err)
		}
		e.mqtt.Store(b)
	}
	return nil
}

func commitInterval(c *config.Config) time.Duration {
	if c.Log.CommitInterval == config.CommitAuto {
		return log.CommitAuto
	}
	return c.Log.CommitInterval
}

// reportRecovery logs what opening the log found and did.
func (e *edge) reportRecovery(h *Hub, r log.RecoveryReport) {
	switch {
	case r.Created:
		h.logger.Info("log created", "dir", e.cfg.Load().Data)
	case !r.Clean:
		h.logger.Info("log recovered", "records", r.RecordsReplayed, "entries", r.EntriesReplayed, "took", r.Duration)
	}
	if r.Torn {
		h.logger.Warn("the journal ended in an incomplete entry, which was cut: nothing of it had been acknowledged", "file", r.TornFile, "sequence", r.TornSequence)
	}
	for _, d := range r.Quarantined { // health tells of them
		h.logger.Warn("damage found", "damage", d.String())
	}
	if r.MetaRebuilt {
		h.logger.Warn("meta.db was lost or damaged and was built anew", "setAside", r.MetaSetAside)
	}
}

// decoder decodes the values of a topic as the first route that leads there
// does. The event time is the record's timestamp by then.
func (e *edge) decoder(topic string) payload.Decoder {
	kind := payload.Kind(e.routes.Load().PayloadOf(topic))
	d, err := payload.New(kind, payload.Options{})
	if err != nil { // route.Compile has checked the kind
		d, err = payload.New(payload.Auto, payload.Options{})
		if err != nil {
			panic(err)
		}
	}
	return d
}

func (e *edge) close() error {
	var errs []error
	if b := e.mqtt.Load(); b != nil {
		errs = append(errs, b.Close())
	}
	if p := e.engine.Load(); p != nil {
		errs = append(errs, p.Close())
	}
	if k := e.kafka.Load(); k != nil {
		errs = append(errs, k.Close())
	}
	if l := e.log.Load(); l != nil {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (e *edge) failed() <-chan struct{} {
	if l := e.log.Load(); l != nil {
		return l.Failed()
	}
	return e.logFailed
}

func (e *edge) err() error {
	if l := e.log.Load(); l != nil {
		return l.Err()
	}
	return nil
}

func (e *edge) ready(context.Context) []string {
	c, l := e.cfg.Load(), e.log.Load()
	if err := l.Err(); err != nil {
		return []string{"the log failed: " + err.Error()}
	}
	return e.topics.missing(c)
}

func (e *edge) health(context.Context) ([]string, bool) {
	if err := e.log.Load().Err(); err != nil {
		return []string{"the log failed, nothing is acknowledged until the hub starts again: " + err.Error()}, true
	}
	out := append(e.disk(), damages(e.log.Load().Damages())...)
	if !e.clock.trusted() {
		out = append(out, "the system's clock is not to be believed yet: windows close by event time only")
	}
	for _, p := range processStatus(e.engine.Load().Stats()) {
		if p.Error != "" {
			out = append(out, fmt.Sprintf("process %s: %s", p.Name, p.Error))
		}
	}
	return out, false
}

// diskRoom is how much room the log wants to see: a segment grows by less.
const diskRoom = 1 << 20

// disk says that the disk is full, if it is.
func (e *edge) disk() []string {
	dir := e.cfg.Load().Data
	free, known := diskFree(dir)
	if !known || free >= diskRoom {
		return nil
	}
	s := fmt.Sprintf("the disk of %s is full, %d bytes are free: make room, or let topics keep less", dir, free)
	if st := e.log.Load().Stats(); st.PendingBytes > 0 && st.JournalSlotsFree == 0 {
		s += "; until then publishes may not be acknowledged"
	}
	return []string{s}
}

// maxDamages bounds the damages that health names.
const maxDamages = 10

func damages(all []log.Damage) []string {
	var out []string
	for i, d := range all {
		if i == maxDamages {
			return append(out, fmt.Sprintf("%d more damages: stop the hub and see hub log verify", len(all)-i))
		}
		out = append(out, d.String())
	}
	return out
}

// Reload takes over what a running hub can: routes. It says why not if
// something else has changed.
func (h *Hub) Reload(c *config.Config) error {
	e, ok := h.role.(*edge)
	if !ok {
		return errors.New("a core node takes over nothing while it runs: start it again")
	}
	old := e.cfg.Load()
	same, then := *old, *c
	same.Routes, then.Routes = nil, nil
	same.Topics, then.Topics = nil, nil
	if !reflect.DeepEqual(same, then) {
		return errors.New("something else than routes and topics has changed: start the hub again")
	}
	table, err := route.Compile(rules(c))
	if err != nil {
		return err
	}
	problems, err := e.topics.ensureAll(c)
	if err != nil {
		return err
	}
	h.warn(problems...)
	if b := e.mqtt.Load(); b != nil {
		if err := b.SetRoutes(table); err != nil {
			return err
		}
	}
	e.routes.Store(table)
	e.cfg.Store(c)
	h.logger.Info("routes and topics taken over", "routes", len(c.Routes), "topics", len(c.Topics))
	return nil
}

func (e *edge) scrape(s *obs.Scrape) {
	if l := e.log.Load(); l != nil {
		parts.Log(s, l.Stats())
	}
	if k := e.kafka.Load(); k != nil {
		parts.Kafka(s, k.Stats())
	}
	if p := e.engine.Load(); p != nil {
		parts.Process(s, p.Stats())
	}
	if b := e.mqtt.Load(); b != nil {
		parts.MQTT(s, b.Stats())
	}
}

func (e *edge) status(_ context.Context, s *web.Status) {
	l := e.log.Load()
	st := l.Stats()
	s.Problems = append(append(s.Problems, e.disk()...), damages(l.Damages())...)
	s.Clock = "untrusted"
	if e.clock.trusted() {
		s.Clock = "trusted"
	}
	bytes := map[record.TopicPartition]log.PartitionStats{}
	for _, p := range st.Partitions {
		bytes[record.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = p
	}
	for _, t := range l.Topics() {
		wt := topicStatus(&t)
		for i := range wt.Partitions {
			p := bytes[record.TopicPartition{Topic: t.Name, Partition: int32(i)}]
			wt.Partitions[i].Start, wt.Partitions[i].End = p.LogStart, p.HighWatermark
			wt.Partitions[i].Bytes = p.Bytes + p.HeadBytes
		}
		s.Topics = append(s.Topics, wt)
	}
	s.Log = logStatus(&st)
	if b := e.mqtt.Load(); b != nil {
		s.Listeners["mqtt"] = b.Addr().String()
		s.MQTT = mqttStatus(b.Stats())
	}
	if k := e.kafka.Load(); k != nil {
		s.Listeners["kafka"] = k.Addr().String()
		s.Kafka = kafkaStatus(k.Stats())
	}
	if p := e.engine.Load(); p != nil {
		s.Processes = processStatus(p.Stats())
	}
}
