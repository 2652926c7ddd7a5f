package mqtt

import (
	engine "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"edgehub/pkg/bridge"
)

// hook is where the engine tells of what happens on its connections.
type hook struct {
	engine.HookBase
	b *Broker
}

// ID implements engine.Hook.
func (h *hook) ID() string { return "hub" }

// Provides implements engine.Hook. The engine asks for each event of each
// packet.
func (h *hook) Provides(event byte) bool {
	switch event {
	case engine.OnConnect, engine.OnConnectAuthenticate, engine.OnACLCheck,
		engine.OnSessionEstablish, engine.OnSessionEstablished, engine.OnPacketEncode,
		engine.OnPublish, engine.OnPacketProcessed, engine.OnWill, engine.OnWillSent:
		return true
	}
	return false
}

// OnConnect refuses everybody once the log has failed: nothing could be
// acknowledged.
func (h *hook) OnConnect(cl *engine.Client, _ packets.Packet) error {
	if h.b.opt.Log.Err() == nil {
		return nil
	}
	h.b.refused(bridge.RefusedFailed, cl.ID, h.b.opt.Log.Err())
	_ = h.b.server.SendConnack(cl, packets.ErrServerUnavailable, false, nil)
	return packets.ErrServerUnavailable
}

// OnConnectAuthenticate implements engine.Hook.
func (h *hook) OnConnectAuthenticate(*engine.Client, packets.Packet) bool {
	return h.b.opt.AllowAnonymous
}

// OnACLCheck implements engine.Hook. Who is let in may do everything.
func (h *hook) OnACLCheck(*engine.Client, string, bool) bool { return true }

// OnSessionEstablish tells the connection who it is, just before CONNACK.
func (h *hook) OnSessionEstablish(cl *engine.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.clientID = cl.ID
		c.version.Store(uint32(cl.Properties.ProtocolVersion))
	}
}

// OnSessionEstablished comes when the engine has sent what the session had in
// flight and begins to read.
func (h *hook) OnSessionEstablished(cl *engine.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.established.Store(true)
	}
}

// OnPacketEncode tells MQTT 5 clients in CONNACK how large a packet may be
// [MQTT5 3.2.2.3.6], which the engine enforces but does not say. And it holds
// the goroutine that delivers to a device that does not keep up, before the
// engine takes the device's lock: the engine's queue of that device fills, and
// nobody who publishes waits.
func (h *hook) OnPacketEncode(cl *engine.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		pk.Properties.MaximumPacketSize = uint32(h.b.opt.MaxPacket)
	case packets.Publish:
		if c, ok := cl.Net.Conn.(*conn); ok {
			c.keepUp()
		}
	}
	return pk
}

// OnPacketProcessed holds the goroutine that reads from a device that does not
// take the answers.
func (h *hook) OnPacketProcessed(cl *engine.Client, _ packets.Packet, _ error) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.keepUp()
	}
}

// OnPublish appends the message to the log. It runs on the goroutine that
// reads the connection; a device that has too many unacknowledged publishes,
// or a log that has too much uncommitted, stops that goroutine and with it
// the reading of that device's socket.
func (h *hook) OnPublish(cl *engine.Client, pk packets.Packet) (packets.Packet, error) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return pk, nil // the hub's own
	}
	h.b.counts.publishes[pk.FixedHeader.Qos].Add(1)
	if pk.FixedHeader.Qos > 0 && !c.admit() {
		return pk, packets.ErrRejectPacket
	}
	if pk.TopicName == "" { // an alias that was never set [MQTT-3.3.2-8]
		h.b.refuse(cl, c, &pk, bridge.RefusedProtocol, packets.ErrTopicAliasInvalid)
		return pk, packets.ErrRejectPacket
	}
	lsn, err := h.b.ingest.Store(pk.TopicName, pk.Payload)
	if err != nil {
		h.b.refuse(cl, c, &pk, bridge.RefusalOf(err, h.b.opt.Log.Err() != nil), err)
		return pk, packets.ErrRejectPacket
	}
	if pk.FixedHeader.Qos > 0 && lsn > 0 {
		h.b.raise(lsn)
		c.note(lsn)
	}
	return pk, nil
}

// OnWill makes sure that OnWillSent hears of every will: the engine does not
// call it for a delayed will whose session is gone by then. A will is due
// when its session ends, whatever its delay [MQTT-3.1.2-10].
func (h *hook) OnWill(cl *engine.Client, will engine.Will) (engine.Will, error) {
	p := &cl.Properties
	if p.Will.WillDelayInterval == 0 {
		return will, nil
	}
	if p.Props.SessionExpiryInterval == 0 {
		p.Will.WillDelayInterval = 0
	} else if p.Will.WillDelayInterval+willMargin > p.Props.SessionExpiryInterval {
		p.Will.WillDelayInterval = p.Props.SessionExpiryInterval - min(willMargin, p.Props.SessionExpiryInterval)
	}
	will.WillDelayInterval = p.Will.WillDelayInterval
	return will, nil
}

// willMargin is how many seconds a will is sent before its session expires:
// the engine looks for both every second, in no fixed order.
const willMargin = 3

// OnWillSent stores a will; the engine sends it past OnPublish.
func (h *hook) OnWillSent(cl *engine.Client, pk packets.Packet) {
	if _, err := h.b.ingest.Store(pk.TopicName, pk.Payload); err != nil {
		h.b.refused(bridge.RefusalOf(err, h.b.opt.Log.Err() != nil), cl.ID, err)
		return
	}
	h.b.counts.wills.Add(1)
}
