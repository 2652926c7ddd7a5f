// Package forward holds the messages between an uplink and the core: what
// they say, how they are encoded, how large they may be. It is a leaf: both
// sides import it, it imports neither.
//
// A message is one NATS payload:
//
//	0 version uint8 (1) | 1 kind uint8 | 2 length uint32 (big endian) | 6 CBOR of that length | record batches
//
// Kinds: Hello and HelloReply open a session of a site; Open, Append and
// Reply are a lane: one source partition to the leader of its core partition.
//
// The exchange. The uplink asks any core node with Hello where its topics go.
// For each of its partitions it then sends Open, with the partition's epochs,
// to LaneSubject; the leader answers with the Position to go on from. It
// sends Appends from there, several in flight within the granted window, in
// order; the leader answers each once its frame is durable. An Append that
// does not continue the source's mark is answered with CodeMismatch and the
// mark, one whose lane the leader does not know with CodeReopen.
package forward

import (
	"encoding/binary"
	"errors"
	"fmt"

	"edgehub/pkg/log/record"

	"github.com/fxamacker/cbor/v2"
)

// Version is the version of the messages here. A peer with another answers
// CodeVersion.
const Version = 1

// Limits of a message, enforced before anything is allocated.
const (
	MaxControlBytes = 256 << 10 // CBOR part
	MaxEpochs       = 512       // epochs in an Open: the newest ones
	MaxTopics       = 1024      // topics in a Hello
	MaxSiteName     = 128       // bytes
	// MaxBatchBytes bounds the batches of one Append, or is one larger batch
	// alone (up to the core's max_payload of 8 MB).
	MaxBatchBytes = 512 << 10
)

// ID is 16 random bytes: of a log, of an epoch.
type ID [16]byte

// String is the id as 32 hex digits.
func (id ID) String() string { return fmt.Sprintf("%x", id[:]) }

// Source names a partition of an edge's log. Marks at the core are kept by
// source.
type Source struct {
	Site      string         `cbor:"1,keyasint"`
	Log       ID             `cbor:"2,keyasint"`
	Topic     record.TopicID `cbor:"3,keyasint"`
	Partition int32          `cbor:"4,keyasint"`
}

// Epoch is one life of the edge's log as a partition saw it: its offsets
// [Start, next epoch's Start) were given in it. Number stands in the
// batches' leader epoch field.
type Epoch struct {
	Number int32 `cbor:"1,keyasint"`
	ID     ID    `cbor:"2,keyasint"`
	Start  int64 `cbor:"3,keyasint"`
}

// Position is a place in a source: the next offset to send, and the epoch in
// which it was (or will be) given. The mark of a source is the Position
// behind the last record that the core has.
type Position struct {
	Epoch ID    `cbor:"1,keyasint"`
	Next  int64 `cbor:"2,keyasint"`
}

// Reasons of a Gap.
const (
	GapLost      = "lost"      // the edge's disk lost them
	GapRetention = "retention" // retention or disk full dropped them
	GapCompacted = "compacted"
)

// Gap declares offsets [From, To) of an epoch that the edge cannot send any
// more. It is stored in the same frame as the batches behind it.
type Gap struct {
	Epoch  ID     `cbor:"1,keyasint"`
	From   int64  `cbor:"2,keyasint"`
	To     int64  `cbor:"3,keyasint"`
	Reason string `cbor:"4,keyasint"`
}

// Hello introduces a site.
type Hello struct {
	Site   string       `cbor:"1,keyasint"`
	Log    ID           `cbor:"2,keyasint"`
	Topics []HelloTopic `cbor:"3,keyasint"`
}

// HelloTopic is a topic that the site wants to forward. A core that lacks it
// creates it with as many partitions.
type HelloTopic struct {
	Name       string         `cbor:"1,keyasint"`
	ID         record.TopicID `cbor:"2,keyasint"`
	Partitions int32          `cbor:"3,keyasint"`
}

// HelloReply says where the topics go, in the Hello's order.
type HelloReply struct {
	Code    Code         `cbor:"1,keyasint"`
	Message string       `cbor:"2,keyasint,omitempty"`
	Core    string       `cbor:"3,keyasint"` // cluster id of the core
	Routes  []TopicRoute `cbor:"4,keyasint"`
}

// TopicRoute is where one topic goes: edge partition i to core partition
// Map[i] of the core's topic ID.
type TopicRoute struct {
	Code    Code           `cbor:"1,keyasint"`
	Message string         `cbor:"2,keyasint,omitempty"`
	Name    string         `cbor:"3,keyasint"`
	ID      record.TopicID `cbor:"4,keyasint"`
	Map     []int32        `cbor:"5,keyasint"`
}

// Open opens the lane of a source. Epochs are those of this partition, oldest
// first; those that gave no offset here may be left out. LogStart and Next
// are the edge's range now: [LogStart, Next).
type Open struct {
	Source   Source  `cbor:"1,keyasint"`
	Epochs   []Epoch `cbor:"2,keyasint"`
	LogStart int64   `cbor:"3,keyasint"`
	Next     int64   `cbor:"4,keyasint"`
}

// Append carries batches of one epoch, First to Last without a hole, whose
// base offsets are the edge's and whose producer fields are cleared. Gaps, if
// any, lie directly before First, oldest first. With no batches it declares
// gaps alone (First = Last+1).
type Append struct {
	Source Source `cbor:"1,keyasint"`
	Epoch  ID     `cbor:"2,keyasint"`
	First  int64  `cbor:"3,keyasint"`
	Last   int64  `cbor:"4,keyasint"`
	Gaps   []Gap  `cbor:"5,keyasint,omitempty"`
}

// Reply answers Open and Append. Mark is always the source's durable mark
// (zero Position if the core has nothing of it). On Open, Resume is where to
// go on: in an epoch of the Open.
type Reply struct {
	Code    Code     `cbor:"1,keyasint"`
	Message string   `cbor:"2,keyasint,omitempty"`
	Mark    Position `cbor:"3,keyasint"`
	Resume  Position `cbor:"4,keyasint"`
	Window  int64    `cbor:"5,keyasint"` // bytes that may be in flight from now on, ≥ 0; one batch always may
}

// Code says how a request went.
type Code uint8

// Codes. All but CodeOK and CodeRefused ask for another try: at once after
// CodeMismatch and CodeReopen, after a pause else.
const (
	CodeOK       Code = 0
	CodeMismatch Code = 1 // does not continue the mark: go on from Mark (Open again)
	CodeReopen   Code = 2 // the leader does not know the lane or the epoch: Open again
	CodeBusy     Code = 3 // over the window, or the store is full: later
	CodeNoLeader Code = 4 // not (or not yet) the leader: later
	CodeRefused  Code = 5 // the message is malformed, a batch is damaged or not permitted
	CodeVersion  Code = 6 // the peer speaks another version
)

func (c Code) String() string {
	switch c {
	case CodeOK:
		return "ok"
	case CodeMismatch:
		return "mismatch"
	case CodeReopen:
		return "reopen"
	case CodeBusy:
		return "busy"
	case CodeNoLeader:
		return "no leader"
	case CodeRefused:
		return "refused"
	case CodeVersion:
		return "version"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Kind of a message.
type Kind uint8

// Kinds.
const (
	KindHello      Kind = 1
	KindHelloReply Kind = 2
	KindOpen       Kind = 3
	KindAppend     Kind = 4
	KindReply      Kind = 5
)

// ErrMalformed is an undecodable message; ErrVersion one of another version.
var (
	ErrMalformed = errors.New("malformed message")
	ErrVersion   = errors.New("message of another version")
)

const prefix = 6

var (
	encMode = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode())
	decMode = must(cbor.DecOptions{
		MaxNestedLevels:  8,
		MaxArrayElements: 4096,
		MaxMapPairs:      64,
		IndefLength:      cbor.IndefLengthForbidden,
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Encode appends the message, with the batches behind it, to dst.
func Encode(dst []byte, k Kind, control any, batches ...[]byte) ([]byte, error) {
	c, err := encMode.Marshal(control)
	if err != nil {
		return nil, err
	}
	if len(c) > MaxControlBytes {
		return nil, fmt.Errorf("%w: %d bytes of control, at most %d", ErrMalformed, len(c), MaxControlBytes)
	}
	dst = append(dst, Version, byte(k))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(c)))
	dst = append(dst, c...)
	for _, b := range batches {
		dst = append(dst, b...)
	}
	return dst, nil
}

// KindOf is the kind of a message, for dispatch. Errors: ErrMalformed,
// ErrVersion.
func KindOf(b []byte) (Kind, error) {
	if len(b) < prefix {
		return 0, ErrMalformed
	}
	if b[0] != Version {
		return 0, fmt.Errorf("%w: %d, this is %d", ErrVersion, b[0], Version)
	}
	return Kind(b[1]), nil
}

// Decode decodes a message of kind k into control, a pointer to the kind's
// type, and returns the batches behind it, which alias b.
func Decode(b []byte, k Kind, control any) (batches []byte, err error) {
	got, err := KindOf(b)
	if err != nil {
		return nil, err
	}
	if got != k {
		return nil, fmt.Errorf("%w: kind %d instead of %d", ErrMalformed, got, k)
	}
	n := binary.BigEndian.Uint32(b[2:])
	if n > MaxControlBytes || uint64(n) > uint64(len(b)-prefix) {
		return nil, fmt.Errorf("%w: control of %d bytes", ErrMalformed, n)
	}
	if err := decMode.Unmarshal(b[prefix:prefix+n], control); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return b[prefix+n:], nil
}

// CheckSite accepts site names that may stand in a NATS subject: 1 to
// MaxSiteName of [a-zA-Z0-9_-].
func CheckSite(s string) error {
	if s == "" || len(s) > MaxSiteName {
		return fmt.Errorf("site name %q must have 1 to %d characters", s, MaxSiteName)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return fmt.Errorf("site name %q: use a-z A-Z 0-9 _ and - only", s)
		}
	}
	return nil
}

// HelloSubject is where a site sends Hello: any core node answers.
func HelloSubject(site string) string { return "up." + site + ".hello" }

// LaneSubject is where a site sends Open and Append for a core partition: its
// leader answers.
func LaneSubject(site string, coreTopic record.TopicID, partition int32) string {
	return fmt.Sprintf("up.%s.%s.%d", site, coreTopic, partition)
}

// LaneWildcard is LaneSubject for every site.
func LaneWildcard(coreTopic record.TopicID, partition int32) string {
	return fmt.Sprintf("up.*.%s.%d", coreTopic, partition)
}

// InboxPrefix is the prefix of the inboxes of a site's connection.
func InboxPrefix(site string) string { return "_INBOX." + site }

// SiteOf is the site of a subject that HelloSubject or LaneSubject made, ""
// if it is none. The server's permissions make it trustworthy: a message whose
// Source names another site is refused.
func SiteOf(subject string) string {
	const p = "up."
	if len(subject) <= len(p) || subject[:len(p)] != p {
		return ""
	}
	for i := len(p); i < len(subject); i++ {
		if subject[i] == '.' {
			return subject[len(p):i]
		}
	}
	return ""
}
