// Package bridge joins MQTT to the log: it turns messages into records, and
// what the log refuses into what MQTT can say about it. Both the broker and
// the client of existing brokers (package mqtt) stand on it; it speaks no
// protocol itself.
package bridge

import (
	"errors"

	"edgehub/pkg/log/record"
)

// Refusal is why a message was not stored.
type Refusal uint8

// Refusals.
const (
	RefusedTooLarge Refusal = iota // larger than its topic, or a packet, may be
	RefusedSpace                   // no room on the disk, or a limit is reached; passes by itself
	RefusedTopic                   // its log topic cannot be had
	RefusedFailed                  // the log has failed, is closed, or gave an unknown error
	RefusedProtocol                // not a message: unknown topic alias, broken packet
	RefusedDenied                  // the client may not publish to the topic
	Refusals                       // how many there are
)

// refusals is the one place where refusals meet MQTT 5 reason codes.
var refusals = [Refusals]struct {
	name   string
	ack    byte // in PUBACK and PUBREC
	reason byte // in DISCONNECT
}{
	RefusedTooLarge: {"too_large", 0x97, 0x95},
	RefusedSpace:    {"space", 0x97, 0x97},
	RefusedTopic:    {"topic", 0x90, 0x90},
	RefusedFailed:   {"failed", 0x83, 0x83},
	RefusedProtocol: {"protocol", 0x83, 0x82},
	RefusedDenied:   {"denied", 0x87, 0x87},
}

// String is the refusal's name in metrics.
func (r Refusal) String() string { return refusals[r].name }

// AckReason is the MQTT 5 reason code in a PUBACK or PUBREC.
func (r Refusal) AckReason() byte { return refusals[r].ack }

// DisconnectReason is the MQTT 5 reason code in a DISCONNECT.
func (r Refusal) DisconnectReason() byte { return refusals[r].reason }

// Ends reports whether the connection ends whatever the protocol version:
// the next message would be refused as well.
func (r Refusal) Ends() bool { return r == RefusedFailed || r == RefusedProtocol }

// RefusalOf says what an error of Ingest.Store means. failed says whether the
// log itself has failed (log.Log.Err), which tells a broken disk from a full
// one.
func RefusalOf(err error, failed bool) Refusal {
	switch {
	case failed, errors.Is(err, record.ErrClosed):
		return RefusedFailed
	case errors.Is(err, record.ErrTooLarge):
		return RefusedTooLarge
	case errors.Is(err, record.ErrStorage), errors.Is(err, record.ErrUnavailable):
		return RefusedSpace
	case errors.Is(err, ErrTopic):
		return RefusedTopic
	}
	return RefusedFailed
}
