package uplink

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Source is a hub whose log is forwarded. Its methods may be called
// concurrently. An error means: try again, later; the uplink never gives up.
type Source interface {
	// Describe says what the hub is now: all answers are read from the hub
	// after the call began. Of the topics named, those that do not exist are
	// left out.
	Describe(ctx context.Context, topics []string) (*Hub, error)
	// Read begins to read a partition. The caller closes the Reader.
	Read(p Partition) Reader
	// Cursors returns the committed offsets of a group.
	Cursors(ctx context.Context, group string) ([]record.GroupOffset, error)
	// Commit stores offsets of a group; they are durable on return.
	Commit(ctx context.Context, group string, offs []record.GroupOffset) error
	// Close ends what the Source holds open. Readers fail from then on.
	Close() error
}

// Reader reads one partition of a hub. It is used by one goroutine at a time.
type Reader interface {
	// Offsets is the partition's range now. Errors: record.ErrUnknownTopic
	// if the topic has another id by now.
	Offsets(ctx context.Context) (record.Offsets, error)
	// Fetch returns whole batches, the first of which holds offset or, if
	// the hub lost it, lies behind it; at least one if there is any, even a
	// larger one than o.MaxBytes. Of an end that the hub lost there is none
	// until a record stands behind it: an empty answer declares no gap above
	// the log start. With none it waits up to o.Wait. The caller
	// owns the bytes. Errors: record.ErrOffsetOutOfRange,
	// record.ErrUnknownTopic.
	Fetch(ctx context.Context, offset int64, o FetchOptions) (Fetched, error)
	Close()
}

// FetchOptions say how much to fetch and how long to wait for it.
type FetchOptions struct {
	MinBytes int           // answer once there are as many, at least 1
	MaxBytes int           // about as many
	Wait     time.Duration // or after this time
}

// Fetched is what a Reader fetched.
type Fetched struct {
	Batches       []byte
	HighWatermark int64
	LogStart      int64
	// Session names the run of the hub that answered: two answers of the
	// same session come from the same run. Another session may be another
	// run, another disk image, another epoch: Describe tells (U3).
	Session uint64
}

// Partition names a partition of one life of a topic.
type Partition struct {
	Topic     string
	ID        record.TopicID
	Partition int32
}

func (p Partition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.Partition) }

// Hub is a hub as Describe found it. It is not changed after Describe
// returned it.
type Hub struct {
	Site   string
	Log    forward.ID
	Topics []HubTopic
	Epochs []record.EpochStart // of the whole log, oldest first
}

// HubTopic is a topic of a hub.
type HubTopic struct {
	Name       string
	ID         record.TopicID
	Partitions int32
}

// Topic returns the topic of that name, nil if the hub has none.
func (h *Hub) Topic(name string) *HubTopic {
	i := slices.IndexFunc(h.Topics, func(t HubTopic) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &h.Topics[i]
}

// Chain returns the epochs of a partition, oldest first, without those that
// gave it no offset; the last is the log's epoch now. At most
// forward.MaxEpochs, the newest.
func (h *Hub) Chain(p Partition) ([]forward.Epoch, error) {
	topic := p.ID.String()
	var chain []forward.Epoch
	for i := range h.Epochs {
		e := forward.Epoch{Number: h.Epochs[i].Number}
		if n, err := hex.Decode(e.ID[:], []byte(h.Epochs[i].ID)); err != nil || n != len(e.ID) {
			return nil, fmt.Errorf("epoch %d of the hub has the id %q, not 32 hex digits", e.Number, h.Epochs[i].ID)
		}
		for _, s := range h.Epochs[i].Starts {
			if s.Partition == p.Partition && s.Topic == topic {
				e.Start = s.Offset
				break
			}
		}
		// An epoch that begins where one before it began, or below, leaves that
		// one no offsets: it gave none, or the disk lost them.
		for len(chain) > 0 && chain[len(chain)-1].Start >= e.Start {
			chain = chain[:len(chain)-1]
		}
		chain = append(chain, e)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("the hub has no epochs in topic %s: is it an edge hub?", record.EpochsTopic)
	}
	if len(chain) > forward.MaxEpochs {
		chain = chain[len(chain)-forward.MaxEpochs:]
	}
	return chain, nil
}

// ParseClusterID splits the cluster id of an edge hub, "<site>/<log id>".
func ParseClusterID(s string) (site string, log forward.ID, err error) {
	site, id, ok := strings.Cut(s, "/")
	if ok {
		var n int
		n, err = hex.Decode(log[:], []byte(id[:min(len(id), 2*len(log))]))
		ok = err == nil && n == len(log) && len(id) == 2*len(log)
	}
	if !ok {
		return "", log, fmt.Errorf("cluster id %q is not <site>/<log id>: uplink forwards the log of an edge hub", s)
	}
	if err := forward.CheckSite(site); err != nil {
		return "", log, err
	}
	return site, log, nil
}
