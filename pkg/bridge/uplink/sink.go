package uplink

import (
	"context"
	"errors"
	"time"
)

// Sink is the core behind a link that may cut, lose, delay and double
// everything. Its methods may be called concurrently.
type Sink interface {
	// Connect returns nil once there is a connection for the site. It keeps
	// trying until ctx ends. A Sink connects for one site at a time; another
	// one drops the connection of the former.
	Connect(ctx context.Context, site string) error
	// Send sends a message, in the order of the calls for a subject, and
	// returns the Call by which its answer comes. It may block as long as
	// the link takes bytes. msg is not kept.
	Send(subject string, msg []byte) (*Call, error)
	// MaxMessage is the largest message that the core takes, in bytes; 0:
	// not known.
	MaxMessage() int64
	// Heard is when the other end was last heard of. Who asks makes it
	// speak: a second later the answer says whether the link is alive.
	Heard() time.Time
	// Reconnect drops the connection and makes another.
	Reconnect(reason string)
	Stats() SinkStats
	// Close ends the connection. Calls not answered end with ErrDisconnected.
	Close() error
}

// SinkStats is a snapshot of a Sink.
type SinkStats struct {
	Connected    bool   `json:"connected"`
	Server       string `json:"server"`       // the one connected to, "" if none
	Reconnects   int64  `json:"reconnects"`   // connections made after the first
	BytesWritten int64  `json:"bytesWritten"` // to the network
	LastError    string `json:"lastError,omitempty"`
}

// What a Call or a Send fails with.
var (
	ErrDisconnected = errors.New("the connection to the core is cut")
	ErrNoResponders = errors.New("nobody at the core answers for this")
	ErrTooLarge     = errors.New("message is larger than the core takes")
)

// Answer is what came back for a Call.
type Answer struct {
	Msg []byte
	Err error
}

// Call is a message on its way. C delivers at most one Answer; nothing comes
// if the message or its answer was lost.
type Call struct {
	C      <-chan Answer
	cancel func()
	moved  func() time.Time
}

// NewCall makes a Call for a Sink, and the function that answers it: it may
// be called from anywhere, any number of times, never blocks, and all but the
// first answer are lost. moved is Call.Moved. cancel, if not nil, is called
// when nobody waits for the answer any more.
func NewCall(moved func() time.Time, cancel func()) (*Call, func(Answer)) {
	c := make(chan Answer, 1)
	return &Call{C: c, cancel: cancel, moved: moved}, func(a Answer) {
		select {
		case c <- a:
		default:
		}
	}
}

// Moved is when bytes of the message, or of what goes before it, were last
// seen to leave for the core: on a slow link a message takes long without
// being lost. Once it has left, what follows it says nothing about its answer,
// and Moved stands still. It is for one goroutine.
func (c *Call) Moved() time.Time { return c.moved() }

// Cancel says that the answer is not awaited any more.
func (c *Call) Cancel() {
	if c.cancel != nil {
		c.cancel()
	}
}
