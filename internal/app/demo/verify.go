package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// verify reads both topics back at the edge and at the core and compares all
// there is to compare.
func (d *demo) verify(ctx context.Context) (Result, error) {
	published := d.published.Load()
	r := Result{Published: published}
	read := map[string][2][][]record{}
	for _, topic := range []string{rawTopic, windowTopic} {
		edge, err := readAll(ctx, []string{d.edgeKafka}, topic)
		if err != nil {
			return r, fmt.Errorf("read %s back at the edge: %w", topic, err)
		}
		core, err := readAll(ctx, d.coreKafka, topic)
		if err != nil {
			return r, fmt.Errorf("read %s back at the core: %w", topic, err)
		}
		read[topic] = [2][][]record{edge, core}
	}
	r, wrong := tally(d.series, read[rawTopic], read[windowTopic])
	r.Published = published

	switch {
	case r.Lost > 0 || r.Duplicates > 0:
		return r, fmt.Errorf("%w: %d lost, %d more than once", ErrWrong, r.Lost, r.Duplicates)
	case len(wrong) > 0:
		return r, fmt.Errorf("%w: %s", ErrWrong, wrong[0])
	}
	d.table.say("published %s, edge log %s, core %s, windows %s: nothing lost, nothing doubled, order kept, %s in all",
		grouped(r.Published), grouped(r.Edge), grouped(r.Core), grouped(r.Windows), time.Since(d.began).Round(100*time.Millisecond))
	return r, nil
}

// tally compares what was read back, [0] at the edge and [1] at the core, with
// itself and with the series. wrong is what is neither lost nor doubled.
func tally(all []*series, raw, windows [2][][]record) (r Result, wrong []string) {
	r.Edge, r.Core, r.Windows = count(raw[0]), count(raw[1]), count(windows[1])
	for topic, read := range map[string][2][][]record{rawTopic: raw, windowTopic: windows} {
		diff := compare(read[0], read[1])
		r.Lost += diff.lost
		r.Duplicates += diff.extra
		if diff.lost+diff.extra == 0 && diff.first != "" {
			wrong = append(wrong, topic+": "+diff.first)
		}
	}
	// What the edge lacks already; what is lost behind it is counted above.
	for at := range 2 {
		lost, err := missing(all, raw[at])
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		lostWindows, err := checkWindows(all, windows[at])
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		if at == 0 {
			r.Lost += lost + lostWindows
		}
	}
	return r, wrong
}

func count(parts [][]record) int64 {
	n := int64(0)
	for _, p := range parts {
		n += int64(len(p))
	}
	return n
}

// difference is how the core's records differ from the edge's.
type difference struct {
	lost, extra int64
	first       string // the first difference, in words
}

// compare wants the same records, byte for byte, in the same order in every
// partition. (One site, as many partitions here as there: partition e is
// partition e.)
func compare(edge, core [][]record) difference {
	var d difference
	if len(edge) != len(core) {
		d.first = fmt.Sprintf("%d partitions at the edge, %d at the core", len(edge), len(core))
	}
	for p := range max(len(edge), len(core)) {
		var e, c []record
		if p < len(edge) {
			e = edge[p]
		}
		if p < len(core) {
			c = core[p]
		}
		same := len(e) == len(c)
		for i := 0; same && i < len(e); i++ {
			same = e[i].same(&c[i])
			if !same && d.first == "" {
				d.first = fmt.Sprintf("partition %d differs at its record %d", p, i)
			}
		}
		if same {
			continue
		}
		there := map[string]int64{}
		for i := range e {
			there[e[i].digest()]++
		}
		for i := range c {
			there[c[i].digest()]--
		}
		for _, n := range there {
			if n > 0 {
				d.lost += n
			} else {
				d.extra -= n
			}
		}
	}
	return d
}

// missing counts the published messages that are not in a topic, each known by
// its device and number.
func missing(all []*series, topic [][]record) (int64, error) {
	seen := map[string][]bool{}
	for _, s := range all {
		seen[s.device] = make([]bool, len(s.points))
	}
	for _, part := range topic {
		last := map[string]int{}
		for i := range part {
			r := &part[i]
			var m message
			if err := json.Unmarshal(r.value, &m); err != nil {
				return 0, fmt.Errorf("a record is not as published: %w", err)
			}
			marks, ok := seen[string(r.key)]
			if !ok || m.Seq < 0 || m.Seq >= len(marks) || r.ts != m.TS {
				return 0, fmt.Errorf("a record was never published: key %q, time %d, value %s", r.key, r.ts, r.value)
			}
			if !marks[m.Seq] { // first copies are in order
				if prev, ok := last[string(r.key)]; ok && m.Seq < prev {
					return 0, fmt.Errorf("device %s: number %d stands behind number %d", r.key, m.Seq, prev)
				}
				last[string(r.key)] = m.Seq
			}
			marks[m.Seq] = true
		}
	}
	lost := int64(0)
	for _, marks := range seen {
		for _, ok := range marks {
			if !ok {
				lost++
			}
		}
	}
	return lost, nil
}

// result is a window as the hub writes it.
type result struct {
	Device string    `json:"device"`
	Start  time.Time `json:"window_start"`
	End    time.Time `json:"window_end"`
	Rev    int       `json:"rev"`
	Kind   string    `json:"kind"`
	Mean   float64   `json:"mean"`
	Max    float64   `json:"max"`
	N      int       `json:"n"`
}

type windowKey struct {
	device string
	start  int64
}

// checkWindows computes all windows from the series itself and compares. It
// counts those that must be there and are not: the ones that ended, with
// grace, before their device's last time. Of the others some may be there.
func checkWindows(all []*series, topic [][]record) (lost int64, err error) {
	type want struct {
		sum, max float64
		n        int
		due      bool
	}
	wanted := map[windowKey]*want{}
	size := windowSize.Milliseconds()
	for _, s := range all {
		for _, p := range s.points {
			k := windowKey{s.device, p.ts - p.ts%size}
			w := wanted[k]
			if w == nil {
				w = &want{max: math.Inf(-1)}
				wanted[k] = w
				w.due = k.start+size+grace.Milliseconds() <= s.points[len(s.points)-1].ts
			}
			w.sum += p.temperature
			w.max = max(w.max, p.temperature)
			w.n++
		}
	}
	seen := map[windowKey]bool{}
	for _, part := range topic {
		for i := range part {
			var r result
			if err := json.Unmarshal(part[i].value, &r); err != nil {
				return 0, fmt.Errorf("a window is not JSON: %w", err)
			}
			k := windowKey{r.Device, r.Start.UnixMilli()}
			w := wanted[k]
			switch {
			case w == nil:
				return 0, fmt.Errorf("window without input: %s", part[i].value)
			case seen[k]:
				return 0, fmt.Errorf("window twice: %s", part[i].value)
			case r.N != w.n || r.Max != w.max || math.Abs(r.Mean-w.sum/float64(w.n)) > 1e-9*math.Abs(r.Mean) || r.Rev != 0 || r.Kind != "final" || r.End.Sub(r.Start) != windowSize:
				return 0, fmt.Errorf("window %s: computed anew it is mean %v, max %v, n %d", part[i].value, w.sum/float64(w.n), w.max, w.n)
			}
			seen[k] = true
		}
	}
	for k, w := range wanted {
		if w.due && !seen[k] {
			lost++
		}
	}
	return lost, nil
}
