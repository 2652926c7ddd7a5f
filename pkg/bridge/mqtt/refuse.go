package mqtt

import (
	engine "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"edgehub/pkg/bridge"
)

// refuse answers a publish that is not stored. MQTT 5 has a negative ack for
// it, which takes its turn behind the acks before it; MQTT 3.1.1 knows none,
// so the connection ends. A QoS 0 publish is just lost, and counted.
func (b *Broker) refuse(cl *engine.Client, c *conn, pk *packets.Packet, why bridge.Refusal, err error) {
	b.refused(why, cl.ID, err)
	switch {
	case why.Ends():
		code := packets.Code{Code: why.DisconnectReason(), Reason: why.String()}
		if c.version.Load() >= 5 {
			_ = b.server.DisconnectClient(cl, code)
		}
		cl.Stop(code)
	case pk.FixedHeader.Qos == 0:
	case c.version.Load() >= 5:
		kind := byte(typePuback)
		if pk.FixedHeader.Qos == 2 {
			kind = typePubrec
		}
		_ = c.hold([]byte{kind << 4, 3, byte(pk.PacketID >> 8), byte(pk.PacketID), why.AckReason()})
	default:
		cl.Stop(packets.Code{Code: why.DisconnectReason(), Reason: why.String()})
	}
}

// refused counts a refusal and logs it, each reason at most once a second.
func (b *Broker) refused(why bridge.Refusal, client string, err error) {
	n := b.counts.refused[why].Add(1)
	if b.quiet[why].allow() {
		b.log.Warn("mqtt message refused", "reason", why.String(), "client", client, "count", n, "err", err)
	}
}
