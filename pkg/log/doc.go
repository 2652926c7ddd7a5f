// Package log keeps topics of partitions of records on one disk: one journal,
// many segments. docs/log-format.md has the bytes, docs/durability.md what is
// durable when.
//
// An append lands in memory. The committer, one goroutine, writes all that is
// pending of all partitions as one journal entry, syncs it once, and only then
// moves the high watermarks and answers. The flusher, another goroutine, turns
// committed records into large compressed batches in the partitions' segments;
// journal space is used again once they are synced.
//
// # Invariants
//
//	J1: one commit is in flight, so only the last entry of the journal can be
//	    torn. A valid entry of a higher sequence behind a bad one means rot.
//	J2: a block that holds acknowledged bytes is not rewritten until they are
//	    released: entries begin on blocks of their own, and every sync of a
//	    segment ends on a block border.
//	J3: only slots wholly below the tail of a durable entry are used again.
//	J4: the tail passes an entry only after the segments that hold its records,
//	    and their names in the directory, are synced.
//	J5: replay is idempotent by (topic id, partition, offset): what a segment
//	    holds soundly is not replayed; what it does not, the journal supplies.
//	    An entry that carries a head again holds all of it, so that a record
//	    that the journal holds twice is the same in both places.
//	J6: the next offset of a partition is the highest that slot tables, journal
//	    and segments know. A shortfall is a hole, never used again.
//	J7: log starts and deletions are journal entries before files are unlinked.
//	J8: a segment without a sound footer is scanned; a bad batch in it is
//	    quarantined with its exact offsets, and reading goes on behind it.
//
// # Locks
//
// In this order: Log.admin, offsetTable.mu, Log.gate (shared for appenders,
// exclusive for the committer's swap), Partition.mu, then the leaves
// (Log.topicsMu, Log.waitMu, Log.genMu, Log.flushMu, Log.statMu, segCache.mu).
// None is held during I/O except admin, and segCache.mu while a segment is
// opened for reading.
package log
