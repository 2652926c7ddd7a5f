// Package uplink forwards the log of an edge hub to the core, whatever the
// link does: store and forward with the hub's log as the only store.
//
// An Uplink reads from a Source (a hub, over Kafka Fetch) and writes to a Sink
// (the core, over NATS). It keeps nothing of its own: what the core has is the
// core's mark of each source partition, what the edge has is the hub's log,
// and the cursor committed in the hub as a consumer group is only a lower
// bound of the mark, for retention and for people.
//
// Each source partition has a lane. A lane lives in sessions:
//
//	Describe (log, topic id, epochs) → Hello (routes) → Open (epochs) → Resume
//	  → fetch from Resume.Next → cut → Append, Append, … → answers move the mark
//
// Anything unexpected ends the session, and the next one begins with Open
// again, so there is one way to recover and it is the way to start.
//
// Invariants, named in code and tests:
//
//   - U1: within a session Appends continue one another without a hole, from
//     Resume on; an offset that cannot be sent is declared as a Gap.
//   - U2: a Gap is declared only for offsets that the hub said it has not
//     (below its log start, or skipped by a fetch that began at them).
//   - U3: a batch is sent under the epoch id under which the hub gave its
//     offsets. A fetch over a new connection is believed only after the
//     hub's epochs have been read again, behind it, and agree.
//   - U4: the cursor in the hub never passes the core's durable mark.
//   - U5: nothing that the core refuses is skipped: the lane halts, loudly,
//     and tries again later.
//   - U6: bytes in flight stay within the window that the core grants (one
//     message always may be) and within what the link takes in one second.
//
// Goroutines: Run owns one for the lanes' life, one that commits cursors, and
// one per lane, which owns its fetcher while a session lasts. Run joins them
// all. Locks: hubView.sem and routes.sem are never held together; pacer.mu and
// the lanes' stats locks are leaves.
package uplink
