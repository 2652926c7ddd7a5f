package process

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"edgehub/internal/samples"
	"edgehub/pkg/log/record"
	"edgehub/pkg/payload"
)

// play runs records through one task's windows and gives what they issue, by
// key and in order.
func play(t *testing.T, d Definition, recs []record.Record) map[string][]result {
	t.Helper()
	sp, err := compile(d)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := payload.New(payload.JSON, payload.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in, w := &input{spec: sp, decoder: dec}, newWindows(sp)
	out := map[string][]result{}
	w.emit = func(r result) { out[string(r.key)] = append(out[string(r.key)], r) }
	for i := range recs {
		recs[i].Offset = int64(i)
		for _, s := range in.take(&recs[i]) {
			if !w.add(&s) {
				t.Fatalf("record %d is late", i)
			}
		}
	}
	w.tick(math.MaxInt64/2, math.MaxInt64)
	return out
}

// exact is an oracle of one window that keeps every value.
type exact struct {
	n        int
	sum      *big.Float
	min, max float64
}

func (e *exact) add(v float64) {
	if e.sum == nil {
		e.sum, e.min, e.max = new(big.Float).SetPrec(2000), v, v
	}
	e.n++
	e.sum.Add(e.sum, big.NewFloat(v))
	e.min, e.max = min(e.min, v), max(e.max, v)
}

// checkExact compares the last revision of each window with the oracle: the
// sum must be the exact one, rounded once, and the mean that by the count.
func checkExact(t *testing.T, results []result, want map[int64]*exact, size int64) {
	t.Helper()
	type row struct {
		Rev, N              int
		Sum, Mean, Min, Max float64
	}
	last := map[int64]row{}
	for _, r := range results {
		var got row
		if err := json.Unmarshal(r.json, &got); err != nil {
			t.Fatal(err)
		}
		start := r.time + 1 - size
		if before, ok := last[start]; ok && got.Rev != before.Rev+1 || !ok && got.Rev != 0 {
			t.Fatalf("window %d: rev %d behind %+v", start, got.Rev, before)
		}
		last[start] = got
	}
	if len(last) != len(want) {
		t.Errorf("%d windows, want %d", len(last), len(want))
	}
	for start, e := range want {
		sum, _ := e.sum.Float64()
		mean, _ := new(big.Float).Quo(e.sum, big.NewFloat(float64(e.n))).Float64()
		got := last[start]
		if got.N != e.n || got.Sum != sum || got.Min != e.min || got.Max != e.max || math.Abs(got.Mean-mean) > math.Abs(mean)*4e-16 {
			t.Errorf("window %d: %+v, want n %d sum %v mean %v min %v max %v", start, got, e.n, sum, mean, e.min, e.max)
		}
	}
}

func allComputes(x string) []Compute {
	return []Compute{{"n", "count(" + x + ")"}, {"sum", "sum(" + x + ")"}, {"mean", "mean(" + x + ")"}, {"min", "min(" + x + ")"}, {"max", "max(" + x + ")"}}
}

func num(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// machineHash is of all results of TestMachineSeries: they are the same bytes
// on every processor.
const machineHash = "cc7eaebe4ee761730f98cb41ec920b3687f692d6725daf82d8a65c65db82ce37"

// A machine's temperature, with an hour that goes backwards.
func TestMachineSeries(t *testing.T) {
	d := Definition{Name: "p", From: "in", To: "out", Window: Window{Size: 20 * time.Minute}, Compute: allComputes("temperature * 1.8 - 0.1")}
	size := d.Window.Size.Milliseconds()
	var recs []record.Record
	want := map[int64]*exact{}
	for _, s := range samples.Machine() {
		recs = append(recs, record.Record{Timestamp: s.Time, Key: []byte("m"), Value: []byte(`{"temperature":` + num(s.Value) + `}`)})
		start := s.Time / size * size
		if want[start] == nil {
			want[start] = &exact{}
		}
		product := float64(s.Value * 1.8) // not fused with the subtraction
		want[start].add(product - 0.1)
	}
	got := play(t, d, recs)["m"]
	checkExact(t, got, want, size)
	h := sha256.New()
	for _, r := range got {
		fmt.Fprintf(h, "%s %d %s\n", r.key, r.time, r.json)
	}
	if sum := fmt.Sprintf("%x", h.Sum(nil)); sum != machineHash {
		t.Errorf("results hash to %s, want %s", sum, machineHash)
	}
	// Of the hour that comes again two windows are closed, with 4 records each.
	if amends := len(got) - len(want); amends != 8 {
		t.Errorf("%d amends, want 8", amends)
	}
}

// Three stations sorted one behind the other, or mixed in any way: each has
// the same results, byte for byte.
func TestWeatherSeries(t *testing.T) {
	d := Definition{Name: "p", From: "in", To: "out", By: []string{"station"}, Window: Window{Size: 24 * time.Hour}, Grace: time.Hour, Compute: allComputes("temp")}
	size := d.Window.Size.Milliseconds()
	byStation := map[string][]record.Record{}
	want := map[string]map[int64]*exact{}
	var sorted []record.Record
	for _, o := range samples.Weather() {
		value := `{"temp":null}`
		if !math.IsNaN(o.Temperature) {
			value = `{"temp":` + num(o.Temperature) + `}`
			start := o.Time / size * size
			if want[o.Station] == nil {
				want[o.Station] = map[int64]*exact{}
			}
			if want[o.Station][start] == nil {
				want[o.Station][start] = &exact{}
			}
			want[o.Station][start].add(o.Temperature)
		}
		r := record.Record{Timestamp: o.Time, Key: []byte(o.Station), Value: []byte(value), Headers: []record.Field{{Key: "station", Value: []byte(o.Station)}}}
		sorted = append(sorted, r)
		byStation[o.Station] = append(byStation[o.Station], r)
	}
	first := play(t, d, sorted)
	for station, results := range first {
		checkExact(t, results, want[station], size)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var mixed []record.Record
	names := []string{"EWR", "JFK", "LGA"}
	for len(names) > 0 {
		i := rng.IntN(len(names))
		n := min(1+rng.IntN(50), len(byStation[names[i]]))
		mixed = append(mixed, byStation[names[i]][:n]...)
		if byStation[names[i]] = byStation[names[i]][n:]; len(byStation[names[i]]) == 0 {
			names = slices.Delete(names, i, i+1)
		}
	}
	equalResults(t, play(t, d, mixed), first)
}

func equalResults(t *testing.T, got, want map[string][]result) {
	t.Helper()
	show := func(m map[string][]result) []string {
		var out []string
		for k, rs := range m {
			for i, r := range rs {
				out = append(out, fmt.Sprintf("%s %06d %d %s", k, i, r.time, r.json))
			}
		}
		slices.Sort(out)
		return out
	}
	equalLines(t, "results", show(got), show(want))
}

// A group of four motes: however they interleave, the last revisions are the
// same, byte for byte.
func TestMoteGroup(t *testing.T) {
	d := Definition{Name: "p", From: "in", To: "out", By: []string{"indoor"}, Window: Window{Size: 10 * time.Minute}, Compute: allComputes("humidity")}
	byMote := map[int][]record.Record{}
	for _, r := range samples.Motes() {
		byMote[r.Mote] = append(byMote[r.Mote], record.Record{
			Timestamp: r.Time, Key: fmt.Appendf(nil, "mote%d", r.Mote),
			Value: fmt.Appendf(nil, `{"humidity":%s,"indoor":%v}`, num(r.Humidity), r.Indoor),
		})
	}
	lastOf := func(recs []record.Record) map[string]string {
		out := map[string]string{}
		for key, rs := range play(t, d, recs) {
			for _, r := range rs {
				var v map[string]json.RawMessage
				if err := json.Unmarshal(r.json, &v); err != nil {
					t.Fatal(err)
				}
				delete(v, "rev") // how often it was issued does depend on the order
				delete(v, "kind")
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				out[fmt.Sprint(key, r.time)] = string(b)
			}
		}
		return out
	}
	var want map[string]string
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 9))
		left := [][]record.Record{byMote[1], byMote[2], byMote[3], byMote[4]}
		var mixed []record.Record
		for len(left) > 0 {
			i := rng.IntN(len(left))
			n := min(1+rng.IntN(10), len(left[i]))
			mixed = append(mixed, left[i][:n]...)
			if left[i] = left[i][n:]; len(left[i]) == 0 {
				left = slices.Delete(left, i, i+1)
			}
		}
		got := lastOf(mixed)
		if want == nil {
			want = got
			continue
		}
		if len(got) != len(want) || len(want) == 0 {
			t.Fatalf("%d windows, want %d", len(got), len(want))
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("window %s: %s, want %s", k, got[k], v)
			}
		}
	}
}

func BenchmarkTask(b *testing.B) {
	sp, err := compile(Definition{
		Name: "p", From: "in", To: "out", By: []string{"device"}, Where: "temperature < 200",
		Window: Window{Size: time.Minute}, Compute: []Compute{{"mean", "mean(temperature)"}, {"n", "count()"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	dec, err := payload.New(payload.JSON, payload.Options{})
	if err != nil {
		b.Fatal(err)
	}
	in, w := &input{spec: sp, decoder: dec}, newWindows(sp)
	w.emit = func(result) {}
	r := record.Record{
		Key: []byte("dev1"), Value: []byte(`{"temperature":21.5,"humidity":45,"state":"running"}`),
		Headers: []record.Field{{Key: "mqtt.topic", Value: []byte("plant/a/dev1/telemetry")}, {Key: "device", Value: []byte("dev1")}},
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Timestamp += 100
		r.Offset++
		for _, s := range in.take(&r) {
			w.add(&s)
		}
	}
}
