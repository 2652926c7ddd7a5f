package record

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// What every store of topics answers with. Protocol front-ends map them to
// their codes in one table.
var (
	ErrUnknownTopic      = errors.New("unknown topic or partition")
	ErrTopicExists       = errors.New("topic exists already")
	ErrInvalidTopic      = errors.New("invalid topic name")
	ErrInvalidPartitions = errors.New("invalid number of partitions")
	ErrInvalidConfig     = errors.New("invalid topic configuration")
	ErrOffsetOutOfRange  = errors.New("offset out of range")
	ErrNotLeader         = errors.New("this node does not lead the partition")
	ErrNotCoordinator    = errors.New("this node does not coordinate the group")
	ErrUnavailable       = errors.New("not available now, try again")
	ErrTooLarge          = errors.New("batch larger than the topic allows")
	ErrStorage           = errors.New("the disk refuses: nothing more is acknowledged")
	ErrOutOfOrderSeq     = errors.New("sequence number out of order")
	ErrProducerFenced    = errors.New("producer epoch is fenced")
	ErrClosed            = errors.New("closed")
)

// TopicID names one life of a topic: a topic deleted and created again has
// another.
type TopicID [16]byte

// String is the id as 32 hex digits.
func (id TopicID) String() string { return hex.EncodeToString(id[:]) }

// ParseTopicID is the inverse of String.
func ParseTopicID(s string) (TopicID, error) {
	var id TopicID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("topic id %q is not 32 hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// MaxTopicName is the longest topic name, in bytes, as in Kafka.
const MaxTopicName = 249

// CheckTopicName accepts Kafka's names: 1 to 249 of [a-zA-Z0-9._-], not "."
// or "..".
func CheckTopicName(s string) error {
	if s == "" || s == "." || s == ".." || len(s) > MaxTopicName {
		return fmt.Errorf("%w: %q: use 1 to %d of a-z A-Z 0-9 . _ -", ErrInvalidTopic, s, MaxTopicName)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: %q: use 1 to %d of a-z A-Z 0-9 . _ -", ErrInvalidTopic, s, MaxTopicName)
		}
	}
	return nil
}

// InternalPrefix begins the names of topics that the hub keeps for itself.
const InternalPrefix = "__"

// Durability says what an acknowledgement means. The zero value is fsync.
type Durability uint8

// Durabilities.
const (
	DurabilityFsync Durability = iota
	DurabilityInterval
	DurabilityNone
)

// Priority orders topics when the disk is full: Low goes first.
type Priority uint8

// Priorities. The zero value is normal.
const (
	PriorityNormal Priority = iota
	PriorityLow
	PriorityHigh
)

// Defaults of a topic.
const (
	DefaultRetentionTime   = 168 * time.Hour
	DefaultRetentionBytes  = 1_000_000_000
	DefaultMaxMessageBytes = 1_048_588
	MaxPartitions          = 1000
)

// TopicConfig is how a topic is kept. Zero fields take their default
// (EnsureDefaults); -1 means without limit where said.
type TopicConfig struct {
	Partitions      int32         // 1 to MaxPartitions, default 1; never changes
	RetentionTime   time.Duration // by ingest time; default 168h; -1: no limit
	RetentionBytes  int64         // of the whole topic's stored bytes, default 1 GB; -1: no limit
	MaxMessageBytes int32         // one produced batch, default 1,048,588
	Compression     Codec         // of flushed batches; used as it is (DefaultTopicConfig has Zstd)
	Compact         bool          // keep the last record per key
	Durability      Durability
	Priority        Priority
	RetainUntil     string // a group whose cursor retention waits for; "": none
}

// DefaultTopicConfig is a topic of one partition with every default.
func DefaultTopicConfig() TopicConfig {
	c := TopicConfig{Compression: Zstd}
	c.EnsureDefaults()
	return c
}

// EnsureDefaults fills zero fields, except Compression, whose zero is None.
func (c *TopicConfig) EnsureDefaults() {
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.RetentionTime == 0 {
		c.RetentionTime = DefaultRetentionTime
	}
	if c.RetentionBytes == 0 {
		c.RetentionBytes = DefaultRetentionBytes
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = DefaultMaxMessageBytes
	}
}

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// TopicInfo is a topic as a store knows it. Partitions is indexed by
// partition number.
type TopicInfo struct {
	Name       string
	ID         TopicID
	Internal   bool
	Config     TopicConfig
	Partitions []PartitionInfo
}

// PartitionInfo is who leads a partition. Leader is -1 while nobody does.
type PartitionInfo struct {
	Leader      int32
	LeaderEpoch int32
	Replicas    []int32
}

// Broker is a node that clients can dial. An empty Host means: the address
// by which the client came.
type Broker struct {
	ID   int32
	Host string
	Port int32
}

// Cluster is a store's identity. ID of an edge hub is "<site>/<log id>".
type Cluster struct {
	ID         string
	Controller int32
	Brokers    []Broker
}

// Append asks a store to append Batch, one whole produced batch
// (CheckProduced passed), to a partition. The store stamps offset and epoch
// into Batch, so the caller must own it, and keeps it until it answers.
type Append struct {
	TopicPartition
	Batch []byte
}

// Appended is the answer to an Append. With Err nil the records are durable
// as the topic promises and have offsets from BaseOffset on; a duplicate of an
// idempotent producer's batch has the original's.
type Appended struct {
	BaseOffset int64
	LogStart   int64
	Duplicate  bool
	Err        error
}

// Fetched is what a store read: whole batches, the first of which holds the
// asked offset (it may begin before it).
type Fetched struct {
	Batches       []byte
	HighWatermark int64
	LogStart      int64
	LeaderEpoch   int32
}

// Offsets is the range of a partition: [LogStart, HighWatermark).
type Offsets struct {
	LogStart      int64
	HighWatermark int64
	LeaderEpoch   int32
}

// OffsetTime is the answer to a look-up by time. Offset -1: no record has
// that time or a later one.
type OffsetTime struct {
	Offset      int64
	Timestamp   int64
	LeaderEpoch int32
}

// GroupOffset is a consumer group's position in a partition. Offset is the
// next one to read.
type GroupOffset struct {
	TopicPartition
	Offset      int64
	LeaderEpoch int32 // -1: unknown
	Metadata    string
}

// MaxOffsetMetadata is the longest metadata of a group offset, in bytes.
const MaxOffsetMetadata = 4096
