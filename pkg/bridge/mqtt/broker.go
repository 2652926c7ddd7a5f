// Package mqtt is the hub's MQTT broker and its MQTT client: the only package
// that imports mochi-mqtt (the engine) and paho.
//
// The engine does MQTT: sessions, subscriptions, retained messages, QoS
// states, properties. This package stands on both sides of it: a listener of
// its own hands it wrapped connections (conn), and a hook sees every publish.
// Between the two lies the promise that an acknowledgement means "on disk":
// the hook appends to the log and the connection holds the PUBACK or PUBREC
// until the record is durable, without stopping the reading of the device's
// further publishes. See docs/ack-path.md.
//
// Lock order: conn.mu, then nothing.
package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"

	engine "github.com/mochi-mqtt/server/v2"

	"edgehub/pkg/bridge"
	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

// DefaultMaxPacket is the default of Options.MaxPacket: 1 MiB.
const DefaultMaxPacket = 1 << 20

// Options are a Broker's.
type Options struct {
	Log            *log.Log     // required; must outlive the Broker
	Listen         string       // host:port; port 0 takes a free one
	AllowAnonymous bool         // without it nobody is let in, as there are no users yet
	Routes         *route.Table // nil: everything to route.DefaultTopic
	Site           string       // header site of every record; "": none
	// EnsureTopic creates a log topic if it is missing. nil: with default
	// settings.
	EnsureTopic func(name string) error
	// ClockTrusted says whether the system clock is known to be set. nil: it
	// is.
	ClockTrusted func() bool
	Logger       *slog.Logger // nil: discard
	// MaxPacket is the largest packet that is accepted, in bytes. 0:
	// DefaultMaxPacket.
	MaxPacket int
}

// EnsureDefaults fills zero fields.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = DefaultMaxPacket
	}
}

// Validate says what cannot work.
func (o *Options) Validate() error {
	switch {
	case o.Log == nil:
		return errors.New("mqtt: a broker needs a log")
	case o.Listen == "":
		return errors.New("mqtt: a broker needs an address to listen on, host:port")
	case o.MaxPacket < 128 || int64(o.MaxPacket) > math.MaxInt32:
		return fmt.Errorf("mqtt: largest packet %d: use 128 to %d bytes", o.MaxPacket, math.MaxInt32)
	}
	return nil
}

// Broker is a running MQTT broker.
type Broker struct {
	opt      Options
	log      *slog.Logger
	server   *engine.Server
	ln       *listener
	ingest   *bridge.Ingest
	counts   counters
	quiet    [bridge.Refusals]pace
	lastLSN  atomic.Uint64  // the highest commit that a QoS 1 or 2 publish waits for
	flushers sync.WaitGroup // of the connections
	close    sync.Once
}

// Listen binds the address and serves. It creates the log topics that the
// routes name.
func Listen(o Options) (*Broker, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{opt: o, log: o.Logger}
	var err error
	if b.ln, err = listen(b, o.Listen); err != nil {
		return nil, err
	}
	b.ingest, err = bridge.NewIngest(bridge.IngestOptions{
		Log: o.Log, Routes: o.Routes, Site: o.Site, EnsureTopic: o.EnsureTopic, ClockTrusted: o.ClockTrusted,
	})
	if err == nil {
		err = b.start()
	}
	if err != nil {
		_ = b.ln.ln.Close()
		return nil, fmt.Errorf("mqtt: %w", err)
	}
	return b, nil
}

func (b *Broker) start() error {
	caps := engine.NewDefaultServerCapabilities()
	caps.ReceiveMaximum = math.MaxUint16  // the engine applies it to MQTT 3.1.1 too and disconnects
	caps.MaximumMessageExpiryInterval = 0 // else retained messages vanish after a day
	caps.MaximumClientWritesPending = 128 // each slot costs memory for each connection
	caps.MaximumPacketSize = uint32(b.opt.MaxPacket)
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	b.server = engine.New(&engine.Options{
		Capabilities:           caps,
		Logger:                 slog.New(engineLog{b.log.Handler()}),
		SysTopicResendInterval: sysSeconds,
	})
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return err
	}
	if err := b.server.AddListener(b.ln); err != nil {
		return err
	}
	return b.server.Serve()
}

// sysSeconds is how often $SYS topics are published; each time stops the
// world for a moment to measure memory.
const sysSeconds = 10

// Addr is the address that the broker listens on.
func (b *Broker) Addr() net.Addr { return b.ln.ln.Addr() }

// SetRoutes replaces the routes for publishes that come from now on.
func (b *Broker) SetRoutes(t *route.Table) error { return b.ingest.SetRoutes(t) }

// tail is the commit that everything appended for QoS 1 and 2 so far waits
// for.
func (b *Broker) tail() log.LSN { return log.LSN(b.lastLSN.Load()) }

func (b *Broker) raise(lsn log.LSN) {
	for {
		was := b.lastLSN.Load()
		if uint64(lsn) <= was || b.lastLSN.CompareAndSwap(was, uint64(lsn)) {
			return
		}
	}
}

// Close says goodbye, ends all connections and joins their goroutines. Acks
// that still wait are not sent: those devices send again. It is idempotent.
func (b *Broker) Close() error {
	var err error
	b.close.Do(func() {
		err = b.server.Close()
		b.flushers.Wait()
	})
	return err
}
