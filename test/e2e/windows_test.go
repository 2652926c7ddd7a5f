package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"
)

// Windows closed before and after a kill -9 are each there once, with the
// numbers that a plain sum over the published readings gives.
func TestWindowsAcrossKill(t *testing.T) {
	h := edge(t, `
topics: {telemetry: {partitions: 2}, telemetry.1m: {}}
routes:
  - {match: "plant/{line}/{device}/telemetry", topic: telemetry, key: "{device}", payload: json, time: {field: ts, format: unix_ms}}
process:
  - name: temperature-1m
    from: telemetry
    where: temperature < 200
    by: [device]
    window: tumbling 1m
    grace: 5s
    emit: close
    compute: {mean: mean(temperature), low: min(temperature), high: max(temperature), total: sum(temperature), n: count()}
    to: telemetry.1m
`)
	type agg struct {
		n              int
		sum, low, high float64
	}
	base := time.Now().Add(-48 * time.Hour).Truncate(time.Hour).UnixMilli()
	want := map[string]agg{}
	const devices, minutes, perMinute, parts = 3, 40, 12, 4
	for part := range parts {
		for d := range devices {
			var payloads []string
			dev := fmt.Sprintf("press-%d", d)
			for i := part * minutes / parts * perMinute; i < (part+1)*minutes/parts*perMinute; i++ {
				ts := base + int64(i)*60_000/perMinute
				v := float64(d*10) + float64(i%7)/4
				if i%50 == 49 {
					v = 999 // filtered by where
				}
				payloads = append(payloads, fmt.Sprintf(`{"ts":%d,"temperature":%g}`, ts, v))
				if v >= 200 {
					continue
				}
				start := ts - ts%60_000
				k := fmt.Sprintf("%s %s", dev, time.UnixMilli(start).UTC().Format(time.RFC3339))
				a, ok := want[k]
				if !ok {
					a = agg{low: math.Inf(1), high: math.Inf(-1)}
				}
				a.n++
				a.sum += v
				a.low, a.high = math.Min(a.low, v), math.Max(a.high, v)
				want[k] = a
			}
			publishAll(t, h.mqtt, dev, "plant/l1/"+dev+"/telemetry", payloads)
		}
		if part < parts-1 {
			h.kill()
			h.restart()
			h.ready(30 * time.Second)
		}
	}
	// Three windows, one a device, may stay open until the idle rule.
	var ls []line
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if ls = consumeAll(t, h.kafka, "telemetry.1m"); len(ls) >= len(want)-devices {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d windows, want at least %d", len(ls), len(want)-devices)
		}
	}
	seen := map[string]bool{}
	for _, l := range ls {
		var r struct {
			Device          string
			Start           time.Time `json:"window_start"`
			End             time.Time `json:"window_end"`
			Rev             int
			Kind            string
			Mean, Low, High float64
			Total           float64
			N               int
		}
		if err := json.Unmarshal([]byte(*l.Value), &r); err != nil {
			t.Fatalf("%s: %v", *l.Value, err)
		}
		k := fmt.Sprintf("%s %s", r.Device, r.Start.UTC().Format(time.RFC3339))
		w, ok := want[k]
		if !ok || seen[k] {
			t.Errorf("window %s unexpected or twice: %s", k, *l.Value)
		}
		seen[k] = true
		if r.N != w.n || math.Abs(r.Total-w.sum) > 1e-9 || math.Abs(r.Mean-w.sum/float64(w.n)) > 1e-9 || r.Low != w.low || r.High != w.high ||
			r.Rev != 0 || r.Kind != "final" || r.End.Sub(r.Start) != time.Minute {
			t.Errorf("window %s is %s, want %+v", k, *l.Value, w)
		}
		if l.Timestamp != r.End.UnixMilli()-1 || *l.Key != r.Device {
			t.Errorf("window %s: timestamp %d key %s", k, l.Timestamp, *l.Key)
		}
	}
}

// A payload that is not what its route wants is stored as it came, flagged,
// and kept out of windows.
func TestMalformedPayloadIsStoredAndFlagged(t *testing.T) {
	h := edge(t, `
routes:
  - {match: "m/{device}", topic: telemetry, key: "{device}", payload: json, time: {field: ts, format: unix_ms}}
`)
	publishAll(t, h.mqtt, "bad", "m/d1", []string{`{"ts":1700000000000,"v":1}`, `{"ts":17`, `not json`})
	ls := consumeAll(t, h.kafka, "telemetry")
	if len(ls) != 3 {
		t.Fatalf("%d records, want 3", len(ls))
	}
	for i, l := range ls {
		if flagged := jsonHas(t, l.Headers, "payload.error"); flagged != (i > 0) {
			t.Errorf("record %d: payload.error %v: %s", i, flagged, l.Headers)
		}
	}
	if *ls[2].Value != "not json" || ls[0].Timestamp != 1700000000000 {
		t.Errorf("records are %+v", ls)
	}
}

// jsonHas looks for a header name in either form, an object or a list.
func jsonHas(t *testing.T, raw json.RawMessage, name string) bool {
	t.Helper()
	var obj map[string]json.RawMessage
	if json.Unmarshal(raw, &obj) == nil {
		_, ok := obj[name]
		return ok
	}
	var list []struct{ Key string }
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatalf("headers %s: %v", raw, err)
	}
	for _, h := range list {
		if h.Key == name {
			return true
		}
	}
	return false
}
