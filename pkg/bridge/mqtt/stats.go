package mqtt

import (
	"sync/atomic"

	"edgehub/pkg/bridge"
)

type counters struct {
	connects, panics      atomic.Int64
	handshakes, logins    atomic.Int64
	publishes             [3]atomic.Int64
	wills                 atomic.Int64
	held, acks, ackWrites atomic.Int64
	refused               [bridge.Refusals]atomic.Int64
}

// Stats is a snapshot of a broker. All but the gauges count since Listen.
type Stats struct {
	Connections      int64 // gauge: open now, with those that have not said CONNECT
	ConnectionsTotal int64
	Sessions         int64    // gauge: known client ids, also of devices that are away
	Subscriptions    int64    // gauge
	Retained         int64    // gauge: retained messages
	Publishes        [3]int64 // received, by QoS
	Wills            int64    // wills stored
	bridge.IngestStats
	// Refused counts messages that were not stored, by reason.
	Refused     map[string]int64
	HeldAcks    int64 // gauge: acks that wait for the disk or the device
	AcksSent    int64 // PUBACK and PUBREC
	AckWrites   int64 // writes that they took
	Delivered   int64 // publishes sent to subscribers
	Undelivered int64 // publishes dropped because a subscriber was slow
	Panics      int64 // connections that ended by a bug of the engine
	// HandshakesFailed are connections that ended before MQTT: no TLS, a
	// certificate of somebody unknown, no WebSocket.
	HandshakesFailed int64
	LoginsRefused    int64 // CONNECTs of somebody unknown or not permitted
}

// Stats returns a snapshot.
func (b *Broker) Stats() Stats {
	i := b.server.Info
	s := Stats{
		Connections:      b.open(),
		ConnectionsTotal: b.counts.connects.Load(),
		Sessions:         int64(b.server.Clients.Len()),
		Subscriptions:    atomic.LoadInt64(&i.Subscriptions),
		Retained:         atomic.LoadInt64(&i.Retained),
		Wills:            b.counts.wills.Load(),
		IngestStats:      b.ingest.Stats(),
		Refused:          make(map[string]int64, bridge.Refusals),
		HeldAcks:         b.counts.held.Load(),
		AcksSent:         b.counts.acks.Load(),
		AckWrites:        b.counts.ackWrites.Load(),
		Delivered:        atomic.LoadInt64(&i.MessagesSent),
		Undelivered:      atomic.LoadInt64(&i.MessagesDropped),
		Panics:           b.counts.panics.Load(),
		LoginsRefused:    b.counts.logins.Load(),
		HandshakesFailed: b.counts.handshakes.Load(),
	}
	for q := range s.Publishes {
		s.Publishes[q] = b.counts.publishes[q].Load()
	}
	for r := range bridge.Refusals {
		s.Refused[r.String()] = b.counts.refused[r].Load()
	}
	return s
}

func (b *Broker) open() (n int64) {
	for _, l := range b.ways {
		n += int64(l.count())
	}
	return n
}
