package process

import (
	"slices"
	"sort"

	"edgehub/pkg/payload"
	"edgehub/pkg/process/agg"
)

// windows is the state of one task: the tumbling windows of its keys. It is a
// pure state machine. Whatever it does follows from the order of its calls
// alone: no clock, no map order, no randomness.
//
// W1: a key's clock is the largest event time of its accepted records.
// W2: an open window of a key closes when clock ≥ end + grace, or by a tick,
// or when its key has to make room. A window is issued as final (rev 0) once,
// and each later record that it takes in issues it again with rev + 1.
// W3: a record whose window was never issued is never late, unless it lies
// more than history behind its key's clock.
// W4: what is not taken in is late, and said so.
type windows struct {
	spec  *spec
	keys  map[string]*key
	head  *key // least recently heard of
	tail  *key
	open  int // open windows of all keys, one per device in them
	kept  int // closed windows that can still be amended, one per device
	turn  uint64
	queue closedQueue

	// emit gets each result in order; nil while replaying. The result's
	// bytes are the callee's.
	emit   func(result)
	counts counts

	scratch []*key
}

// counts are what happened since the task began, replay included.
type counts struct {
	Finals    int64 // windows closed
	Amends    int64 // windows issued again
	Late      int64 // readings not taken in
	Forced    int64 // windows closed for want of room
	Forgotten int64 // keys forgotten for want of room
	Dropped   int64 // closed windows no longer amendable for want of room
}

// key is a group: one combination of by values, or one record key.
type key struct {
	id     string          // see input.identify
	text   []byte          // the key of its results
	by     []payload.Value // in the order of the definition
	clock  int64           // W1
	heard  int64           // offset of the last record
	open   []*window       // by start
	closed []*window       // by start
	issued []span          // indexes of windows issued so far, ascending, apart
	floor  int64           // index below which every window counts as issued

	prev, next *key
}

// span is a range of window indexes [from, to).
type span struct{ from, to int64 }

// window is the state of one window. Closed ones are kept as bytes.
type window struct {
	index int64 // start / size
	rev   int64 // of the last issue; -1: none
	turn  uint64
	parts []part // by device
	state []byte // of closed windows, instead of parts

	devices int // parts
}

// part is what one device, an input key, gave to a window. Parts are folded
// in the order of their devices, so that the result of a group does not depend
// on how its devices' records interleaved.
type part struct {
	device string
	aggs   []agg.Aggregate
}

// sample is one reading on its way into a window.
type sample struct {
	id     string
	text   []byte
	by     []payload.Value
	device string
	time   int64 // ms since 1970, ≥ 0
	offset int64
	values []value // one per compute
}

// value is what a compute takes in.
type value struct {
	present bool
	number  float64
}

// result is a window to be issued.
type result struct {
	key  []byte
	time int64 // window_end - 1 ms
	json []byte
}

func newWindows(s *spec) *windows {
	return &windows{spec: s, keys: make(map[string]*key)}
}

const maxSpans = 256

// add takes in a reading; false means that it is late. s is not kept; its
// slices are copied where needed.
func (w *windows) add(s *sample) bool {
	k := w.keys[s.id]
	index := s.time / w.spec.size
	if k != nil {
		w.touch(k, s.offset)
		if s.time < k.clock-w.spec.history || index < k.floor {
			w.counts.Late++
			return false
		}
	}
	if k == nil {
		k = w.newKey(s)
	}
	if win, ok := find(k.open, index); ok {
		w.open += w.feed(win, s)
	} else if win, ok := find(k.closed, index); ok {
		w.amend(k, win, s)
	} else if k.wasIssued(index) {
		w.counts.Late++
		return false
	} else {
		win := &window{index: index, rev: -1}
		w.open += w.feed(win, s)
		k.open = insert(k.open, win)
	}
	if s.time > k.clock {
		k.clock = s.time
		w.expire(k)
	}
	w.close(k)
	w.makeRoom()
	return true
}

// tick closes windows whose end + grace lies at or before wall and whose key
// was last heard of before offset idle, in the order of keys and starts.
func (w *windows) tick(wall, idle int64) {
	last := w.due(wall)
	w.scratch = w.scratch[:0]
	for _, k := range w.keys {
		if k.heard < idle && len(k.open) > 0 && k.open[0].index <= last {
			w.scratch = append(w.scratch, k)
		}
	}
	slices.SortFunc(w.scratch, func(a, b *key) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	defer clear(w.scratch)
	for _, k := range w.scratch {
		for len(k.open) > 0 && k.open[0].index <= last {
			w.finish(k, 0)
		}
		w.expire(k)
		w.makeRoom()
	}
}

// idle says whether a tick would do anything.
func (w *windows) idle(wall, idle int64) bool {
	if w.open == 0 {
		return false
	}
	last := w.due(wall)
	// The list is in the order of heard.
	for k := w.head; k != nil && k.heard < idle; k = k.next {
		if len(k.open) > 0 && k.open[0].index <= last {
			return true
		}
	}
	return false
}

// due is the last window index whose end + grace is not after t.
func (w *windows) due(t int64) int64 {
	t -= w.spec.grace
	if t < w.spec.size {
		return -1
	}
	return t/w.spec.size - 1
}

func (w *windows) newKey(s *sample) *key {
	k := &key{id: s.id, text: slices.Clone(s.text), by: slices.Clone(s.by), clock: s.time, heard: s.offset}
	w.keys[k.id] = k
	w.link(k)
	return k
}

func (w *windows) link(k *key) {
	k.prev, k.next = w.tail, nil
	if w.tail == nil {
		w.head = k
	} else {
		w.tail.next = k
	}
	w.tail = k
}

func (w *windows) unlink(k *key) {
	if k.prev == nil {
		w.head = k.next
	} else {
		k.prev.next = k.next
	}
	if k.next == nil {
		w.tail = k.prev
	} else {
		k.next.prev = k.prev
	}
	k.prev, k.next = nil, nil
}

func (w *windows) touch(k *key, offset int64) {
	k.heard = offset
	if w.tail != k {
		w.unlink(k)
		w.link(k)
	}
}

// maxDevices bounds the parts of a window; further devices share one, named
// by overflow, which sorts behind all names that are text.
const (
	maxDevices = 1024
	overflow   = "\xff"
)

// feed adds s to the part of its device and says how many parts it made.
func (w *windows) feed(win *window, s *sample) (made int) {
	i, ok := win.part(s.device)
	if !ok && len(win.parts) >= maxDevices {
		s.device = overflow
		i, ok = win.part(overflow)
	}
	if !ok {
		win.parts = slices.Insert(win.parts, i, part{device: s.device, aggs: w.newAggs()})
		win.devices++
		made = 1
	}
	for j, v := range s.values {
		if v.present {
			win.parts[i].aggs[j].Add(agg.Sample{Time: s.time, Offset: s.offset, Number: v.number})
		}
	}
	return made
}

// part is the place of a device's part.
func (win *window) part(device string) (int, bool) {
	i := sort.Search(len(win.parts), func(i int) bool { return win.parts[i].device >= device })
	return i, i < len(win.parts) && win.parts[i].device == device
}

func (w *windows) newAggs() []agg.Aggregate {
	a := make([]agg.Aggregate, len(w.spec.computes))
	for i := range a {
		a[i] = w.spec.computes[i].agg.New()
	}
	return a
}

// amend adds s to a closed window and issues it again.
func (w *windows) amend(k *key, win *window, s *sample) {
	w.thaw(win)
	w.kept += w.feed(win, s)
	win.rev++
	w.counts.Amends++
	w.issue(k, win, "amend")
	w.freeze(win)
}

// close issues the windows of k that its clock has passed.
func (w *windows) close(k *key) {
	last := w.due(k.clock)
	for len(k.open) > 0 && k.open[0].index <= last {
		w.finish(k, 0)
	}
}

// finish closes k's i-th open window.
func (w *windows) finish(k *key, i int) {
	win := k.open[i]
	k.open = slices.Delete(k.open, i, i+1)
	w.open -= win.devices
	win.rev = 0
	w.counts.Finals++
	w.issue(k, win, "final")
	k.markIssued(win.index)
	if w.amendable(k, win.index) {
		w.turn++
		win.turn = w.turn
		w.freeze(win)
		k.closed = insert(k.closed, win)
		w.kept += win.devices
		w.queue.push(closedRef{k, win.index, win.turn})
	}
}

// amendable says whether a closed window may still change.
func (w *windows) amendable(k *key, index int64) bool {
	return w.spec.amend > 0 && k.clock < (index+1)*w.spec.size+w.spec.amend
}

// expire forgets closed windows that k's clock has left behind, and what was
// issued before its history.
func (w *windows) expire(k *key) {
	n := 0
	for n < len(k.closed) && !w.amendable(k, k.closed[n].index) {
		w.kept -= k.closed[n].devices
		n++
	}
	k.closed = slices.Delete(k.closed, 0, n)
	k.forgetBefore((k.clock - w.spec.history) / w.spec.size)
}

// makeRoom brings the state back below its bounds, the key at work last.
func (w *windows) makeRoom() {
	for len(w.keys) > w.spec.MaxKeys {
		old := w.head
		w.force(old)
		for _, win := range old.closed {
			w.kept -= win.devices
		}
		w.unlink(old)
		delete(w.keys, old.id)
		old.closed = nil
		w.counts.Forgotten++
	}
	for old := w.head; w.open > w.spec.MaxOpen && old != nil; old = old.next {
		w.force(old)
	}
	for w.kept > w.spec.MaxClosed {
		ref := w.queue.pop()
		if i, ok := ref.find(); ok {
			w.kept -= ref.key.closed[i].devices
			ref.key.closed = slices.Delete(ref.key.closed, i, i+1)
			w.counts.Dropped++
		}
	}
	w.queue.trim(w.kept)
}

// force closes all open windows of k.
func (w *windows) force(k *key) {
	for len(k.open) > 0 {
		w.counts.Forced++
		w.finish(k, 0)
	}
}

func (w *windows) issue(k *key, win *window, kind string) {
	if w.emit == nil {
		return
	}
	w.emit(result{
		key:  k.text,
		time: (win.index+1)*w.spec.size - 1,
		json: w.appendResult(nil, k, win, kind),
	})
}

// fold is the aggregates of all devices together.
func (w *windows) fold(win *window) []agg.Aggregate {
	if len(win.parts) == 1 {
		return win.parts[0].aggs
	}
	all := w.newAggs()
	for _, p := range win.parts {
		for i := range all {
			all[i].Merge(p.aggs[i])
		}
	}
	return all
}

// find looks up an index among windows sorted by it.
func find(list []*window, index int64) (*window, bool) {
	i := sort.Search(len(list), func(i int) bool { return list[i].index >= index })
	if i == len(list) || list[i].index != index {
		return nil, false
	}
	return list[i], true
}

func insert(list []*window, win *window) []*window {
	i := len(list)
	for i > 0 && list[i-1].index > win.index {
		i--
	}
	return slices.Insert(list, i, win)
}

func (k *key) wasIssued(index int64) bool {
	i := sort.Search(len(k.issued), func(i int) bool { return k.issued[i].to > index })
	return i < len(k.issued) && k.issued[i].from <= index
}

// markIssued notes an index. Neighbours are joined; beyond maxSpans the oldest
// is given up and everything up to its end counts as issued.
func (k *key) markIssued(index int64) {
	if index < k.floor {
		return
	}
	i := sort.Search(len(k.issued), func(i int) bool { return k.issued[i].to >= index })
	switch {
	case i < len(k.issued) && k.issued[i].from <= index && index < k.issued[i].to:
		return
	case i < len(k.issued) && k.issued[i].to == index:
		k.issued[i].to++
		if i+1 < len(k.issued) && k.issued[i+1].from == index+1 {
			k.issued[i].to = k.issued[i+1].to
			k.issued = slices.Delete(k.issued, i+1, i+2)
		}
	case i < len(k.issued) && k.issued[i].from == index+1:
		k.issued[i].from--
	default:
		k.issued = slices.Insert(k.issued, i, span{index, index + 1})
	}
	if len(k.issued) > maxSpans {
		k.floor = max(k.floor, k.issued[0].to)
		k.issued = slices.Delete(k.issued, 0, 1)
	}
}

// forgetBefore drops what was issued before an index; records there are late
// by history already.
func (k *key) forgetBefore(index int64) {
	n := 0
	for n < len(k.issued) && k.issued[n].to <= index {
		n++
	}
	if n > 0 {
		k.issued = slices.Delete(k.issued, 0, n)
	}
}
