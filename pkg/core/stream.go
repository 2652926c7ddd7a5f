package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Error codes of the JetStream API that decide something here.
const (
	jsStreamNotFound   = 10059
	jsNoMessage        = 10037
	jsWrongLastSeq     = 10071
	jsWrongLastSeqBusy = 10164 // another write of the subject is in flight
	jsStreamNameInUse  = 10058
)

// apiError is an error that JetStream answered with.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("jetstream: %s (%d)", e.Description, e.ErrCode)
}

func isAPIError(err error, code int) bool {
	var e *apiError
	return errors.As(err, &e) && e.ErrCode == code
}

// Errors of stream access.
var (
	errConflict  = errors.New("another writer came first")
	errNoMessage = errors.New("no message there")
)

// apiTimeout bounds one request to JetStream whose caller has set no shorter
// one. Requests for which no leader is there are answered late or never.
const apiTimeout = 5 * time.Second

// Patience with replicas. A node that froze or was cut off is asked as long as
// its routes are believed in.
const (
	replicaPatience = 500 * time.Millisecond // for its next message
	replicaShunned  = 5 * time.Second        // how long leaders alone are asked then
)

// streams speaks JetStream's request protocol over one connection. It uses
// no consumers.
type streams struct {
	nc      *nats.Conn
	shunned *atomic.Int64 // unix ms until which reads go to leaders alone
}

func newStreams(nc *nats.Conn) streams { return streams{nc, new(atomic.Int64)} }

// streamConfig is the part of a stream's configuration that is set here.
type streamConfig struct {
	Name          string   `json:"name"`
	Subjects      []string `json:"subjects"`
	Retention     string   `json:"retention"`
	MaxConsumers  int      `json:"max_consumers"`
	MaxMsgs       int64    `json:"max_msgs"`
	MaxBytes      int64    `json:"max_bytes"`
	MaxMsgsPer    int64    `json:"max_msgs_per_subject"`
	MaxMsgSize    int32    `json:"max_msg_size"`
	Discard       string   `json:"discard"`
	Storage       string   `json:"storage"`
	Replicas      int      `json:"num_replicas"`
	AllowDirect   bool     `json:"allow_direct"`
	DenyDelete    bool     `json:"deny_delete"`
	DuplicateNsec int64    `json:"duplicate_window"`
}

// fileStream is a replicated file stream without limits of its own. perKey
// keeps the last message of each subject only.
func fileStream(name, subject string, replicas int, perKey bool) streamConfig {
	c := streamConfig{
		Name: name, Subjects: []string{subject}, Retention: "limits", Discard: "new", Storage: "file",
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPer: -1, MaxMsgSize: -1,
		Replicas: replicas, AllowDirect: true, DenyDelete: true,
		DuplicateNsec: int64(100 * time.Millisecond), // the least there is; no message carries an id
	}
	if perKey {
		c.MaxMsgsPer = 1
	}
	return c
}

// streamInfo is what the leader of a stream says of it.
type streamInfo struct {
	State struct {
		Msgs     uint64 `json:"messages"`
		Bytes    uint64 `json:"bytes"`
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
	} `json:"state"`
}

// call makes a request and decodes the answer into out, or returns its error.
func (s streams) call(ctx context.Context, subject string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	m, err := s.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	return decodeAnswer(subject, m.Data, out)
}

func decodeAnswer(subject string, data []byte, out any) error {
	var e struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%s: answer: %w", subject, err)
	}
	if e.Error != nil {
		return fmt.Errorf("%s: %w", subject, e.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// create makes the stream unless it is there already.
func (s streams) create(ctx context.Context, c streamConfig) error {
	err := s.call(ctx, "$JS.API.STREAM.CREATE."+c.Name, &c, nil)
	if isAPIError(err, jsStreamNameInUse) {
		return nil // with other settings, of an older version
	}
	return err
}

func (s streams) delete(ctx context.Context, name string) error {
	err := s.call(ctx, "$JS.API.STREAM.DELETE."+name, nil, nil)
	if isAPIError(err, jsStreamNotFound) {
		return nil
	}
	return err
}

// info asks the stream's leader.
func (s streams) info(ctx context.Context, name string) (streamInfo, error) {
	var i streamInfo
	err := s.call(ctx, "$JS.API.STREAM.INFO."+name, nil, &i)
	return i, err
}

// purgeBelow removes the messages below seq.
func (s streams) purgeBelow(ctx context.Context, name string, seq uint64) error {
	return s.call(ctx, "$JS.API.STREAM.PURGE."+name, map[string]uint64{"seq": seq}, nil)
}

// publish stores data and returns its sequence once it is durable on a
// majority. header may hold a compare-and-set (expectLast, expectSubjectLast),
// whose refusal is errConflict. Any error but an apiError leaves open whether
// it was stored, and so does errConflict after an earlier attempt.
func (s streams) publish(ctx context.Context, subject string, header nats.Header, data []byte) (uint64, error) {
	m, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: data})
	if err != nil {
		return 0, fmt.Errorf("store in %s: %w", subject, err)
	}
	var ack struct {
		Seq uint64 `json:"seq"`
	}
	err = decodeAnswer(subject, m.Data, &ack)
	if isAPIError(err, jsWrongLastSeq) || isAPIError(err, jsWrongLastSeqBusy) {
		return 0, fmt.Errorf("%w: %w", errConflict, err)
	}
	if err == nil && ack.Seq == 0 {
		err = fmt.Errorf("store in %s: answer without a sequence", subject)
	}
	return ack.Seq, err
}

// expectLast is the header of a compare-and-set on the stream.
func expectLast(seq uint64) nats.Header {
	return nats.Header{"Nats-Expected-Last-Sequence": {strconv.FormatUint(seq, 10)}}
}

// expectSubjectLast is the header of a compare-and-set on the subject.
func expectSubjectLast(seq uint64) nats.Header {
	return nats.Header{"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(seq, 10)}}
}

// stored is a message of a stream.
type stored struct {
	seq     uint64
	subject string
	header  string // of frameHeaderName
	data    []byte
}

// get reads one message from the stream's leader: by seq, or the last of
// subject. Errors: errNoMessage.
func (s streams) get(ctx context.Context, stream string, seq uint64, lastOf string) (stored, error) {
	var out struct {
		Message struct {
			Subject string `json:"subject"`
			Seq     uint64 `json:"seq"`
			Header  []byte `json:"hdrs"`
			Data    []byte `json:"data"`
		} `json:"message"`
	}
	in := map[string]any{"seq": seq}
	if lastOf != "" {
		in = map[string]any{"last_by_subj": lastOf}
	}
	err := s.call(ctx, "$JS.API.STREAM.MSG.GET."+stream, in, &out)
	if isAPIError(err, jsNoMessage) {
		return stored{}, fmt.Errorf("%w: %s sequence %d %s", errNoMessage, stream, seq, lastOf)
	}
	if err != nil {
		return stored{}, err
	}
	m := stored{seq: out.Message.Seq, subject: out.Message.Subject, data: out.Message.Data}
	if len(out.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(out.Message.Header)
		if err != nil {
			return stored{}, fmt.Errorf("%s sequence %d: headers: %w", stream, seq, err)
		}
		m.header = h.Get(frameHeaderName)
	}
	return m, nil
}

// batch reads up to count messages, about maxBytes of them, from seq on, from
// any replica: one that lags may answer with fewer or none, one that is
// damaged with holes, one that froze not at all. The caller checks.
func (s streams) batch(ctx context.Context, stream string, seq uint64, count, maxBytes int) ([]stored, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	body, err := json.Marshal(map[string]any{"seq": seq, "batch": count, "max_bytes": maxBytes})
	if err != nil {
		return nil, err
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil { // maxBytes bounds it
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, body); err != nil {
		return nil, fmt.Errorf("read %s: %w", stream, err)
	}
	var out []stored
	next := func() (*nats.Msg, error) {
		ctx, cancel := context.WithTimeout(ctx, replicaPatience)
		defer cancel()
		return sub.NextMsgWithContext(ctx)
	}
	for {
		m, err := next()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				s.shunned.Store(time.Now().Add(replicaShunned).UnixMilli())
			}
			return out, fmt.Errorf("read %s from sequence %d: %w", stream, seq, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404":
			return out, nil
		default:
			return out, fmt.Errorf("read %s from sequence %d: status %s %s", stream, seq, status, m.Header.Get("Description"))
		}
		n, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil {
			return out, fmt.Errorf("read %s: answer without a sequence", stream)
		}
		out = append(out, stored{seq: n, subject: m.Header.Get("Nats-Subject"), header: m.Header.Get(frameHeaderName), data: m.Data})
	}
}

// run reads messages from seq to last without a hole, about maxBytes, at
// least one. What the replica that answers lacks comes from the leader.
// Errors: errNoMessage: the leader has none at seq (purged, or lost).
func (s streams) run(ctx context.Context, stream string, seq, last uint64, maxBytes int) ([]stored, error) {
	var got []stored
	var err error
	if time.Now().UnixMilli() >= s.shunned.Load() {
		got, err = s.batch(ctx, stream, seq, int(min(last-seq+1, 512)), maxBytes)
	}
	for i := range got {
		if got[i].seq != seq+uint64(i) {
			got = got[:i]
			break
		}
	}
	if len(got) > 0 {
		return got, nil
	}
	if ctx.Err() != nil && err != nil {
		return nil, err
	}
	m, err := s.get(ctx, stream, seq, "")
	if err != nil {
		return nil, err
	}
	return []stored{m}, nil
}
