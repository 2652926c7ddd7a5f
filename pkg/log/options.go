package log

import (
	"fmt"
	"log/slog"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// CommitAuto as Options.CommitInterval chooses by the device below Dir: 100 ms
// on SD cards and eMMC, 0 elsewhere.
const CommitAuto time.Duration = -1

// flashCommitInterval is what CommitAuto means on SD cards and eMMC.
const flashCommitInterval = 100 * time.Millisecond

// Options is how a log is opened. Zero fields take the default named beside
// them.
type Options struct {
	// Dir is the hub's data directory. The log owns journal/, topics/, meta.db
	// and lock in it. It is created if missing. No default.
	Dir string
	// FS is where Dir is; default vfs.OS().
	FS vfs.FS
	// JournalBytes is the size of the journal, all slots together; default
	// 64 MB, at most 1/16 of the file system, at least 4 MB. It counts when the
	// journal is first made; an existing journal keeps its slots.
	JournalBytes int64
	// CommitInterval is how long a commit may gather records before it goes to
	// the device. 0: as soon as the last commit is done. CommitAuto: by device.
	CommitInterval time.Duration
	// Compression is the codec of the log's own internal topics; None means
	// zstd.
	Compression record.Codec
	// HeadBytes bounds the records in memory that are committed but not yet in
	// segments, of all partitions together; default 16 MB. Commits wait for
	// the flusher beyond it.
	HeadBytes int64
	// PendingBytes bounds what is appended but not yet committed; default
	// 4 MB, at most half a journal slot. Append waits beyond it.
	PendingBytes int64
	// KeepFree is the high-water mark of the file system: with fewer bytes
	// free, the oldest segments are evicted, by priority of their topics, and
	// if that does not help, records are refused. Default 5 % of the file
	// system, at least 32 MB, at most 1 GB; never more than an eighth of it.
	KeepFree int64
	// Logger gets what an operator should know; nil: nothing is logged.
	Logger *slog.Logger
	// Clock is the system's time; default time.Now. The log never goes back
	// behind a time that it has persisted (hybrid time).
	Clock func() time.Time

	// For tests of this package.
	openMeta     func(o *Options) (metaStore, error) // default: bbolt and a lock file
	slotBytes    int64                               // 0: from JournalBytes
	slots        int
	preallocAll  bool             // make every slot before Open returns, not behind it
	segBytes     int64            // 0: by the topic
	ballastBytes int64            // 0: by the file system; negative: none
	ticks        <-chan time.Time // instead of the flusher's own ticker
}

// Defaults.
const (
	defaultJournalBytes = 64 << 20
	defaultHeadBytes    = 16 << 20
	defaultPendingBytes = 4 << 20

	minSlotBytes = 1 << 20
	maxSlotBytes = 8 << 20
	minSlots     = 4

	// fullSlotBytes is the smallest slot, in whole blocks, whose entries take a
	// batch of the default max_message_bytes (maxItem).
	fullSlotBytes = (2*record.DefaultMaxMessageBytes + maxBlock - 1) &^ (maxBlock - 1)
)

// EnsureDefaults fills zero fields.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.JournalBytes == 0 {
		o.JournalBytes = defaultJournalBytes
	}
	if o.Compression == record.None {
		o.Compression = record.Zstd
	}
	if o.HeadBytes == 0 {
		o.HeadBytes = defaultHeadBytes
	}
	if o.PendingBytes == 0 {
		o.PendingBytes = defaultPendingBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.openMeta == nil {
		o.openMeta = openBoltMeta
	}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Dir == "":
		return fmt.Errorf("log: no directory given: set data")
	case o.JournalBytes < 0 || o.HeadBytes < 0 || o.PendingBytes < 0 || o.KeepFree < 0:
		return fmt.Errorf("log: journal, head, pending and free sizes must not be negative")
	case o.CommitInterval < 0 && o.CommitInterval != CommitAuto:
		return fmt.Errorf("log: commit_interval %v is negative: use auto, 0 or a duration", o.CommitInterval)
	case o.CommitInterval > 10*time.Second:
		return fmt.Errorf("log: commit_interval %v is longer than 10s: publishers would time out", o.CommitInterval)
	case o.Compression > record.Zstd:
		return fmt.Errorf("log: compression %v is unknown", o.Compression)
	}
	return nil
}

// geometry is the size and number of the slots of a new journal. total is the
// size of the file system, 0 if unknown.
func (o *Options) geometry(total int64) (slotBytes int64, slots int) {
	if o.slotBytes != 0 {
		return o.slotBytes, max(o.slots, minSlots)
	}
	want := o.JournalBytes
	if total > 0 {
		want = min(want, total/16)
	}
	slotBytes = want / 8 &^ (maxBlock - 1)
	if slotBytes < fullSlotBytes {
		// Fewer slots rather than smaller ones, as long as there are enough.
		slotBytes = min(fullSlotBytes, want/minSlots&^(maxBlock-1))
	}
	slotBytes = min(max(slotBytes, minSlotBytes), maxSlotBytes)
	return slotBytes, int(max(want/slotBytes, minSlots))
}
