package samples

import (
	"math"
	"testing"
	"time"
)

func TestMachine(t *testing.T) {
	m := Machine()
	if len(m) != 22695 {
		t.Fatalf("%d rows", len(m))
	}
	if want := (Sample{time.Date(2013, 12, 2, 21, 15, 0, 0, time.UTC).UnixMilli(), 73.96732207}); m[0] != want {
		t.Errorf("first row %v, want %v", m[0], want)
	}
	back := 0
	for i := 1; i < len(m); i++ {
		if m[i].Time <= m[i-1].Time {
			back++
		}
	}
	if back != 1 {
		t.Errorf("time goes back %d times, want once", back)
	}
}

func TestWeather(t *testing.T) {
	w := Weather()
	if len(w) != 26115 {
		t.Fatalf("%d rows", len(w))
	}
	if want := (Observation{"EWR", 1357020000000, 39.02, 59.37, 10.357019999999999}); w[0] != want {
		t.Errorf("first row %v, want %v", w[0], want)
	}
	missing := 0
	for _, o := range w {
		if math.IsNaN(o.Temperature) || math.IsNaN(o.Humidity) || math.IsNaN(o.WindSpeed) {
			missing++
		}
	}
	if missing != 5 {
		t.Errorf("%d rows with missing values, want 5", missing)
	}
}

func TestMotes(t *testing.T) {
	m := Motes()
	if len(m) != 18914 {
		t.Fatalf("%d rows", len(m))
	}
	var perMote [5]int
	for _, r := range m {
		perMote[r.Mote]++
	}
	if perMote != [5]int{0, 4417, 4417, 5039, 5041} {
		t.Errorf("rows per mote %v", perMote)
	}
}
