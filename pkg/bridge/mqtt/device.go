package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Defaults of DeviceOptions.
const (
	DefaultInFlight     = 1000
	DefaultReconnectMax = 5 * time.Second
	reconnectMin        = 50 * time.Millisecond
	dialTimeout         = 10 * time.Second
	goodbyeMillis       = 250
	// writeLimit is how long the broker may take to accept a packet.
	writeLimit = 3 * time.Second
)

// ErrDeviceClosed ends the publishes of a Device that was closed.
var ErrDeviceClosed = errors.New("mqtt device: closed")

// DeviceOptions are a Device's.
type DeviceOptions struct {
	Server    string // host:port, or a URL such as ssl://host:port
	ClientID  string
	Username  string
	Password  string
	KeepAlive time.Duration // whole seconds; 0: 30 s
	// InFlight is how many publishes may be unacknowledged before Publish
	// blocks: 1 to 60,000. 0: DefaultInFlight.
	InFlight int
	// Reconnect dials again when the connection is lost and sends again, in
	// order, what was not acknowledged. Without it, it fails with the
	// connection's error, as does everything after it.
	Reconnect bool
	// ReconnectMax bounds the pause between attempts. 0: DefaultReconnectMax.
	ReconnectMax time.Duration
}

// Device publishes as a sensor does: in order, many at a time, and sure of
// what was acknowledged. All methods may be called from any goroutine; the
// order is that of the calls.
//
// It keeps its own list of what is unacknowledged and gives each connection a
// client of its own: paho's automatic resume reports a publish as done when
// it sends it again, not when it is acknowledged.
type Device struct {
	opt    DeviceOptions
	ctx    context.Context
	cancel context.CancelFunc
	room   chan struct{} // a token per publish in flight
	run    sync.WaitGroup

	acked, resent, connects atomic.Int64

	mu    sync.Mutex
	queue []*outgoing // unacknowledged, in order
	sent  int         // of them, by this connection
	err   error       // set once the device has ended
	wake  chan struct{}
}

type outgoing struct {
	topic   string
	payload []byte
	qos     byte
	tried   bool
	done    chan error
}

// DeviceStats counts since Dial.
type DeviceStats struct {
	Acked    int64 // publishes acknowledged (QoS 0: written)
	Resent   int64 // publishes sent again after a lost connection
	Connects int64 // connections made
}

// Dial connects. The context bounds the first connection only.
func Dial(ctx context.Context, o DeviceOptions) (*Device, error) {
	if o.InFlight == 0 {
		o.InFlight = DefaultInFlight
	}
	if o.InFlight < 1 || o.InFlight > 60000 {
		return nil, fmt.Errorf("mqtt device: %d publishes in flight: use 1 to 60000", o.InFlight)
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 30 * time.Second
	}
	if o.ReconnectMax == 0 {
		o.ReconnectMax = DefaultReconnectMax
	}
	d := &Device{opt: o, room: make(chan struct{}, o.InFlight), wake: make(chan struct{}, 1)}
	client, lost, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.run.Go(func() { d.loop(client, lost) })
	return d, nil
}

// dial makes one connection. lost is closed when it ends.
func (d *Device) dial(ctx context.Context) (paho.Client, <-chan struct{}, error) {
	lost := make(chan struct{})
	o := paho.NewClientOptions().
		AddBroker(serverURL(d.opt.Server)).
		SetClientID(d.opt.ClientID).
		SetUsername(d.opt.Username).
		SetPassword(d.opt.Password).
		SetKeepAlive(d.opt.KeepAlive).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetConnectTimeout(dialTimeout).
		SetWriteTimeout(writeLimit).
		SetConnectionLostHandler(func(paho.Client, error) { close(lost) })
	client := paho.NewClient(o)
	token := client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		client.Disconnect(0)
		return nil, nil, fmt.Errorf("mqtt device: connect to %s: %w", d.opt.Server, ctx.Err())
	}
	if err := token.Error(); err != nil {
		return nil, nil, fmt.Errorf("mqtt device: connect to %s: %w", d.opt.Server, err)
	}
	d.connects.Add(1)
	return client, lost, nil
}

func serverURL(s string) string {
	for i := range len(s) {
		if s[i] == '/' {
			return s
		}
	}
	return "tcp://" + s
}

// Publish sends a message. done gets one value when it is acknowledged (nil)
// or when it never will be; it need not be read. payload must not change
// until then. Publish blocks while InFlight publishes are unacknowledged.
func (d *Device) Publish(topic string, payload []byte, qos byte) (done <-chan error) {
	p := &outgoing{topic: topic, payload: payload, qos: qos, done: make(chan error, 1)}
	select {
	case d.room <- struct{}{}:
	case <-d.ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		p.done <- d.err
		return p.done
	}
	d.queue = append(d.queue, p)
	d.poke()
	return p.done
}

// poke wakes the sender.
func (d *Device) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// loop runs connection after connection.
func (d *Device) loop(client paho.Client, lost <-chan struct{}) {
	for {
		err := d.session(client, lost)
		client.Disconnect(goodbyeMillis)
		if d.ctx.Err() != nil {
			d.end(ErrDeviceClosed)
			return
		}
		if !d.opt.Reconnect {
			d.end(err)
			return
		}
		if client, lost = d.redial(); client == nil {
			d.end(ErrDeviceClosed)
			return
		}
	}
}

// redial tries until it has a connection, or the device is closed: then it
// is nil.
func (d *Device) redial() (paho.Client, <-chan struct{}) {
	pause := reconnectMin
	for {
		// Jitter: devices that lost the same broker do not come back at once.
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-d.ctx.Done():
			return nil, nil
		}
		if client, lost, err := d.dial(d.ctx); err == nil {
			return client, lost
		}
		pause = min(2*pause, d.opt.ReconnectMax)
	}
}

// session publishes over one connection until it is lost or the device is
// closed. When it returns, nothing touches the queue any more.
func (d *Device) session(client paho.Client, lost <-chan struct{}) error {
	d.mu.Lock()
	d.sent = 0
	d.mu.Unlock()
	s := &session{client: client, lost: lost, quit: make(chan struct{}),
		send: make(chan *outgoing), flying: make(chan flight, d.opt.InFlight), broken: make(chan error, 1)}
	// paho's Publish hangs for up to writeLimit when it meets the end of the
	// connection, so the sender is not waited for here.
	d.run.Go(s.sender)
	var collector sync.WaitGroup
	collector.Go(func() { d.collect(s) })
	defer collector.Wait()
	defer close(s.quit)
	for {
		p := d.nextToSend()
		send, wake := s.send, (chan struct{})(nil)
		if p == nil {
			send, wake = nil, d.wake
		}
		select {
		case send <- p:
			if p.tried {
				d.resent.Add(1)
			}
			p.tried = true
		case <-wake:
		case err := <-s.broken:
			return err
		case <-lost:
			return errLost
		case <-d.ctx.Done():
			return ErrDeviceClosed
		}
	}
}

var errLost = errors.New("mqtt device: connection lost")

// session is one connection at work.
type session struct {
	client paho.Client
	lost   <-chan struct{} // closed when the connection ends
	quit   chan struct{}   // closed when the session ends
	send   chan *outgoing
	flying chan flight // sent, in order
	broken chan error  // the first publish that failed
}

type flight struct {
	p     *outgoing
	token paho.Token
}

func (s *session) sender() {
	for {
		select {
		case p := <-s.send:
			f := flight{p, s.client.Publish(p.topic, p.qos, false, p.payload)}
			select {
			case s.flying <- f:
			case <-s.quit:
				return
			}
		case <-s.quit:
			return
		}
	}
}

func (d *Device) nextToSend() *outgoing {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sent == len(d.queue) {
		return nil
	}
	p := d.queue[d.sent]
	d.sent++
	return p
}

// collect waits for the acks, which come in the order of the publishes, until
// one fails or the session ends.
func (d *Device) collect(s *session) {
	for {
		var f flight
		select {
		case f = <-s.flying:
		case <-s.quit:
			return
		}
		select {
		case <-f.token.Done():
		case <-s.lost:
			return
		case <-s.quit:
			return
		}
		if err := f.token.Error(); err != nil {
			s.broken <- fmt.Errorf("mqtt device: publish to %s: %w", f.p.topic, err)
			return
		}
		d.mu.Lock()
		d.queue[0] = nil
		d.queue = d.queue[1:]
		d.sent--
		d.mu.Unlock()
		d.acked.Add(1)
		f.p.done <- nil
		select {
		case <-d.room:
		default: // published while the device was being closed
		}
	}
}

// end fails what is unacknowledged.
func (d *Device) end(err error) {
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	for _, p := range d.queue {
		p.done <- err
	}
	d.queue = nil
}

// Close disconnects. Publishes that are not acknowledged yet fail with
// ErrDeviceClosed: wait for them first.
func (d *Device) Close() error {
	d.cancel()
	d.run.Wait()
	return nil
}

// Stats returns the counters.
func (d *Device) Stats() DeviceStats {
	return DeviceStats{Acked: d.acked.Load(), Resent: d.resent.Load(), Connects: d.connects.Load()}
}
