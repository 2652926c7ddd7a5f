package agg

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func feed(a Aggregate, xs ...float64) Aggregate {
	for _, x := range xs {
		a.Add(Sample{Number: x})
	}
	return a
}

func TestResults(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []float64
		want string
	}{
		{"count", nil, "0"}, {"count", []float64{5, 5, 5}, "3"},
		{"sum", nil, "null"}, {"sum", []float64{0.1, 0.2, 0.3}, "0.6"}, {"sum", []float64{1, 1e100, 1, -1e100}, "2"},
		{"sum", []float64{math.MaxFloat64, math.MaxFloat64}, "null"},
		{"mean", nil, "null"}, {"mean", []float64{1, 2}, "1.5"}, {"mean", []float64{3}, "3"},
		{"min", nil, "null"}, {"min", []float64{3, -2, 5}, "-2"},
		{"max", nil, "null"}, {"max", []float64{-3, -2, -5}, "-2"},
	} {
		s, ok := Lookup(c.name)
		if !ok {
			t.Fatal(c.name)
		}
		if got := string(feed(s.New(), c.in...).AppendResult(nil)); got != c.want {
			t.Errorf("%s%v = %s, want %s", c.name, c.in, got, c.want)
		}
	}
}

// A1, and that merging parts is as good as adding all.
func TestStateAndMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range specs {
		for round := range 50 {
			all, parts := s.New(), s.New()
			var exact big.Float
			exact.SetPrec(2000)
			for range 1 + rng.IntN(4) {
				part := s.New()
				for range rng.IntN(50) {
					x := (rng.Float64() - 0.5) * math.Pow(10, float64(rng.IntN(12)))
					if round%2 == 0 {
						x = math.Trunc(x)
					}
					all.Add(Sample{Number: x})
					part.Add(Sample{Number: x})
					exact.Add(&exact, big.NewFloat(x))
				}
				state := part.AppendState([]byte("x"))
				again := s.New()
				rest, err := again.Load(append(state[1:], "rest"...))
				if err != nil || string(rest) != "rest" {
					t.Fatalf("%s: load: %q, %v", s.Name, rest, err)
				}
				if got := again.AppendState([]byte("x")); string(got) != string(state) {
					t.Fatalf("%s: state %x reads back as %x", s.Name, state, got)
				}
				parts.Merge(again)
			}
			a, b := string(all.AppendResult(nil)), string(parts.AppendResult(nil))
			if s.Name == "sum" && a != "null" {
				want, _ := exact.Float64()
				for _, got := range []string{a, b} {
					f, _ := strconv.ParseFloat(got, 64)
					if math.Abs(f-want) > math.Abs(want)*1e-15+1e-12 {
						t.Errorf("sum %s, exact %v", got, want)
					}
				}
			}
			if s.Name != "sum" && s.Name != "mean" && a != b {
				t.Errorf("%s: %s from all, %s from parts", s.Name, a, b)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range specs {
			a := s.New()
			rest, err := a.Load(b)
			if err != nil {
				continue
			}
			if len(rest) > len(b) {
				t.Fatal("grew")
			}
			again := s.New()
			if _, err := again.Load(a.AppendState(nil)); err != nil {
				t.Fatalf("%s: state of %x does not load: %v", s.Name, b, err)
			}
		}
	})
}

func TestAddDoesNotAllocate(t *testing.T) {
	for _, s := range specs {
		a := s.New()
		if n := testing.AllocsPerRun(100, func() { a.Add(Sample{Number: 1.5}) }); n != 0 {
			t.Errorf("%s: %v allocations", s.Name, n)
		}
	}
}
