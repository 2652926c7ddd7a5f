package mqtt

import (
	"edgehub/pkg/log"
)

// heldAcks is the queue of acks of one connection that wait for the log.
//
// H1: acks leave in the order in which they came.
// H2: an ack leaves only when everything that it and those before it wait for
// is durable.
type heldAcks struct {
	buf    []byte  // the acks, one behind the other
	groups []group // of neighbours that wait for the same commit
	count  int     // of acks in the queue
}

type group struct {
	lsn   log.LSN
	acks  int
	bytes int
}

// add puts an ack behind the others. lsn 0: it waits for those before it
// only.
func (h *heldAcks) add(ack []byte, lsn log.LSN) {
	h.buf = append(h.buf, ack...)
	h.count++
	if n := len(h.groups); n > 0 && lsn <= h.groups[n-1].lsn {
		h.groups[n-1].acks++
		h.groups[n-1].bytes += len(ack)
		return
	}
	h.groups = append(h.groups, group{lsn, 1, len(ack)})
}

// take moves the acks that may leave to dst.
func (h *heldAcks) take(durable log.LSN, dst []byte) ([]byte, int) {
	n, bytes, acks := 0, 0, 0
	for n < len(h.groups) && h.groups[n].lsn <= durable {
		bytes += h.groups[n].bytes
		acks += h.groups[n].acks
		n++
	}
	if n == 0 {
		return dst, 0
	}
	dst = append(dst, h.buf[:bytes]...)
	h.buf = h.buf[:copy(h.buf, h.buf[bytes:])]
	h.groups = h.groups[:copy(h.groups, h.groups[n:])]
	h.count -= acks
	if h.count == 0 && cap(h.buf) > keepAckBytes {
		h.buf, h.groups = nil, nil
	}
	return dst, acks
}

// next is the commit that the first ack waits for.
func (h *heldAcks) next() (log.LSN, bool) {
	if len(h.groups) == 0 {
		return 0, false
	}
	return h.groups[0].lsn, true
}

// keepAckBytes is the largest buffer that an idle connection keeps.
const keepAckBytes = 512
