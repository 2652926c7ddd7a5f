package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// kvPrefix is the subject space of the key-value streams, laid out as a NATS
// KV bucket, so that its tools can read them.
const kvPrefix = "$KV."

// kv is a small replicated map in a stream that keeps the last message of
// each subject. Each node folds it into memory by reading what is new; there
// are no watchers or consumers that could stall. An empty value is a deleted
// key.
type kv struct {
	s      streams
	stream string // KV_<bucket>
	prefix string // $KV.<bucket>.

	poll sync.Mutex // one reader at a time
	mu   sync.Mutex
	seq  uint64 // folded up to here
	m    map[string]kvEntry
}

// kvEntry is a value and its revision: the stream sequence that stored it.
type kvEntry struct {
	value []byte
	rev   uint64
}

func newKV(s streams, bucket string) *kv {
	return &kv{s: s, stream: "KV_" + bucket, prefix: kvPrefix + bucket + ".", m: map[string]kvEntry{}}
}

// ensure creates the stream if it is missing.
func (k *kv) ensure(ctx context.Context, replicas int) error {
	return k.s.create(ctx, fileStream(k.stream, k.prefix+">", replicas, true))
}

// refresh folds what the answering replica has that is new, and says whether
// there was any. Errors leave what is known as it is.
func (k *kv) refresh(ctx context.Context) (bool, error) {
	k.poll.Lock()
	defer k.poll.Unlock()
	changed := false
	for {
		k.mu.Lock()
		from := k.seq + 1
		k.mu.Unlock()
		got, err := k.s.batch(ctx, k.stream, from, 256, 1<<20)
		if len(got) > 0 {
			changed = true
			k.mu.Lock()
			for _, m := range got {
				k.store(strings.TrimPrefix(m.subject, k.prefix), m.data, m.seq)
				k.seq = max(k.seq, m.seq)
			}
			k.mu.Unlock()
		}
		if err != nil || len(got) == 0 {
			return changed, err
		}
	}
}

// store keeps the newest revision. mu is held.
func (k *kv) store(key string, value []byte, rev uint64) {
	if rev > k.m[key].rev {
		k.m[key] = kvEntry{value: value, rev: rev}
	}
}

// sync folds until everything is known that the stream held when it was
// called.
func (k *kv) sync(ctx context.Context) error {
	info, err := k.s.info(ctx, k.stream)
	if err != nil {
		return err
	}
	for {
		if _, err := k.refresh(ctx); err != nil {
			return err
		}
		k.mu.Lock()
		seq := k.seq
		k.mu.Unlock()
		if seq >= info.State.LastSeq {
			return nil
		}
		// The replica that answered lags: another read may meet another one.
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// get is the value as this node knows it.
func (k *kv) get(key string) (kvEntry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.m[key]
	return e, len(e.value) > 0
}

// lookup is the value as the stream's leader knows it. An absent key has the
// revision to use for a compare-and-set and no error.
func (k *kv) lookup(ctx context.Context, key string) (kvEntry, bool, error) {
	m, err := k.s.get(ctx, k.stream, 0, k.prefix+key)
	if errors.Is(err, errNoMessage) {
		return kvEntry{}, false, nil
	}
	if err != nil {
		return kvEntry{}, false, err
	}
	k.mu.Lock()
	k.store(key, m.data, m.seq)
	k.mu.Unlock()
	return kvEntry{value: m.data, rev: m.seq}, len(m.data) > 0, nil
}

// list calls f for every key with the prefix, in no order.
func (k *kv) list(prefix string, f func(key string, e kvEntry)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, e := range k.m {
		if strings.HasPrefix(key, prefix) && len(e.value) > 0 {
			f(key, e)
		}
	}
}

// swap stores value if the key's revision is rev (0: it was never there). On
// errConflict it was not, or another write is in flight: look again.
func (k *kv) swap(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	seq, err := k.s.publish(ctx, k.prefix+key, expectSubjectLast(rev), value)
	if err != nil {
		return 0, fmt.Errorf("key %s: %w", key, err)
	}
	k.mu.Lock()
	k.store(key, value, seq)
	k.mu.Unlock()
	return seq, nil
}

// create stores value unless the key has one, and returns the one it has
// then: ours or the other.
func (k *kv) create(ctx context.Context, key string, value []byte) (kvEntry, bool, error) {
	for {
		e, ok, err := k.lookup(ctx, key)
		if err != nil || ok {
			return e, false, err
		}
		rev, err := k.swap(ctx, key, value, e.rev)
		if err == nil {
			return kvEntry{value: value, rev: rev}, true, nil
		}
		if !errors.Is(err, errConflict) {
			return kvEntry{}, false, err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return kvEntry{}, false, err
		}
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
