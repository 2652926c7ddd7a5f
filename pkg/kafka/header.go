package kafka

import (
	"encoding/binary"
	"errors"
)

// minHeader is key, version and correlation id: what every request begins
// with, in every version of every key.
const minHeader = 8

var errHeader = errors.New("request header is malformed")

// header is the part of a request in front of its body.
type header struct {
	key         int16
	version     int16
	correlation int32
}

// parseHeader reads the fixed beginning of a frame. rest begins at the client
// id; how to read on depends on key and version.
func parseHeader(frame []byte) (h header, rest []byte, err error) {
	if len(frame) < minHeader {
		return h, nil, errHeader
	}
	h.key = int16(binary.BigEndian.Uint16(frame[0:]))
	h.version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	return h, frame[minHeader:], nil
}

// parseClient reads the client id (a nullable string with an int16 length in
// header v1 and v2 alike) and, in flexible versions, the header's tags, which
// it bounds and ignores. client aliases b.
func parseClient(b []byte, flexible bool) (client, body []byte, err error) {
	w := walker{b: b, tags: maxTags}
	if n := w.i16(); n > 0 {
		client = w.b
		w.skip(int(n))
		if w.bad == nil {
			client = client[:n]
		}
	} else if n < -1 {
		return nil, nil, errHeader
	}
	if flexible {
		w.tagged(nil)
	}
	if w.bad != nil {
		return nil, nil, w.bad
	}
	return client, w.b, nil
}
