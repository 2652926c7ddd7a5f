package mqtt

import "errors"

// MQTT control packet types (the high half of a packet's first byte) that the
// connection looks at [MQTT5 2.1.2].
const (
	typeConnect    = 1
	typeConnack    = 2
	typePublish    = 3
	typePuback     = 4
	typePubrec     = 5
	typeDisconnect = 14
)

// maxLengthBytes is the longest remaining-length field [MQTT5 1.5.5].
const maxLengthBytes = 4

var (
	errLength = errors.New("remaining length takes more than four bytes")
	errFrame  = errors.New("write of a partial packet")
)

// piece is what scanner.next found.
type piece uint8

const (
	more   piece = iota // all bytes are consumed, the packet goes on
	header              // first byte and remaining length are complete
	body                // bytes of the body
	end                 // the packet is complete
)

// scanner walks over the bytes of an MQTT stream, in pieces of any size, and
// says where packets and the packet ids of publishes lie. It keeps no bytes.
//
// S1: the consumed counts of all calls add up to the bytes given.
// S2: what it says does not depend on how the stream is cut into pieces.
type scanner struct {
	first     byte  // of the packet
	lenBytes  int   // of remaining length, so far
	remaining int64 // bytes of the body
	at        int64 // bytes of the body consumed
	state     piece // what comes next: more (first byte), header (length), body, end

	topicLen int64  // of a PUBLISH; valid from body offset 2 on
	packetID uint16 // of a PUBLISH with QoS > 0; valid from behind it on
}

// complete reports whether the packet's last byte is consumed, which next says
// when it is asked once more.
func (s *scanner) complete() bool { return s.state == body && s.at == s.remaining }

func (s *scanner) kind() byte { return s.first >> 4 }

// qos, dup and retain are the flags of a PUBLISH.
func (s *scanner) qos() byte { return s.first >> 1 & 3 }
func (s *scanner) dup() bool { return s.first&8 != 0 }

// size is the length of the whole packet; valid from header on.
func (s *scanner) size() int64 { return 1 + int64(s.lenBytes) + s.remaining }

// next consumes bytes of b and says how many and what they were. After end
// and header it may be called with the rest of b, which can be empty; more
// means that it wants bytes.
func (s *scanner) next(b []byte) (n int, p piece, err error) {
	switch s.state {
	case more, header:
		for n < len(b) {
			c := b[n]
			n++
			if s.state == more {
				*s = scanner{first: c, state: header}
				continue
			}
			if s.lenBytes == maxLengthBytes {
				return n, more, errLength
			}
			s.remaining |= int64(c&0x7f) << (7 * s.lenBytes)
			s.lenBytes++
			if c&0x80 == 0 {
				s.state = body
				return n, header, nil
			}
			if s.lenBytes == maxLengthBytes {
				return n, more, errLength
			}
		}
		return n, more, nil
	case body:
		if s.at == s.remaining {
			s.state = more
			return 0, end, nil
		}
		if len(b) == 0 {
			return 0, more, nil
		}
		n = int(min(int64(len(b)), s.remaining-s.at))
		if s.kind() == typePublish {
			s.publishHead(b[:n])
		}
		s.at += int64(n)
		return n, body, nil
	}
	panic("mqtt: scanner in an unknown state")
}

// publishHead picks topic length and packet id out of the bytes of a PUBLISH's
// body that begin at s.at.
func (s *scanner) publishHead(b []byte) {
	for i := s.at; i < 2 && i-s.at < int64(len(b)); i++ {
		s.topicLen = s.topicLen<<8 | int64(b[i-s.at])
	}
	if s.qos() == 0 {
		return
	}
	id := s.idOffset()
	if s.at+int64(len(b)) <= 2 {
		return // topicLen is not complete
	}
	for i := max(s.at, id); i < id+2 && i-s.at < int64(len(b)); i++ {
		s.packetID = s.packetID<<8 | uint16(b[i-s.at])
	}
}

// idOffset is where in the body the packet id of a PUBLISH lies.
func (s *scanner) idOffset() int64 { return 2 + s.topicLen }

// split cuts the first packet off b, which holds whole packets.
func split(b []byte) (packet, rest []byte, err error) {
	var remaining int
	for i := 1; ; i++ {
		if i > maxLengthBytes {
			return nil, nil, errLength
		}
		if i >= len(b) {
			return nil, nil, errFrame
		}
		remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			n := i + 1 + remaining
			if n > len(b) {
				return nil, nil, errFrame
			}
			return b[:n:n], b[n:], nil
		}
	}
}

// ackOf returns what an ack frame of split says: its packet id and reason.
// ok is false if it is too short to be one.
func ackOf(packet []byte) (id uint16, reason byte, ok bool) {
	// Acks are short; a longer length field means long v5 properties.
	i := 1
	for packet[i]&0x80 != 0 {
		i++
	}
	b := packet[i+1:]
	if len(b) < 2 {
		return 0, 0, false
	}
	if len(b) > 2 {
		reason = b[2]
	}
	return uint16(b[0])<<8 | uint16(b[1]), reason, true
}
