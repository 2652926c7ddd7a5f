// Package core is the core role of a hub: it embeds nats-server with
// JetStream and keeps topics of partitions in replicated streams, to which
// Kafka clients and uplinks write through the hub that leads the partition.
//
// One partition is one stream; one stored message is one frame: an empty
// keyframe or a run of RecordBatches together with the marks of the sources
// that they came from (docs/core-frames.md has the bytes). The state of a
// partition is the fold of its last keyframe and the frames behind it
// (state, fold.go). The node that leads the stream leads the partition.
//
// Invariants, named in code and tests:
//
//   - C1: a frame counts only if it was stored directly behind the sequence
//     that its writer had folded (Prev). One that was not is void: every reader
//     skips it, so two writers can never both be believed, whatever the server
//     let through.
//   - C2: one frame of a partition is in flight. Whatever happens to it, all
//     further attempts carry the same Prev until the tail has been read again,
//     so at most one of them counts.
//   - C3: a leader serves and accepts only after its own empty keyframe with a
//     raised epoch is stored; an answer leaves only after its frame's.
//   - C4: offsets are dense: base == next of the frame before, each batch's CRC
//     and base hold. A reader that sees otherwise quarantines the partition on
//     its node and gives up leadership; it never serves across.
//   - C5: a source's offset is taken once: an Append is stored only if it
//     continues the lane's cursor, which Open derived from the durable spans.
//   - C6: purging never passes the last keyframe, and never the last frame.
//
// Goroutines belong to Core and are joined by Close.
package core
