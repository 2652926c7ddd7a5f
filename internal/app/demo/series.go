package demo

import (
	"cmp"
	"math"
	"slices"

	"edgehub/internal/samples"
)

// load takes about total messages from the real series: one machine and the
// weather of three airports, each a device.
func load(total int) []*series {
	byDevice := map[string]*series{}
	add := func(device string, p point) {
		s := byDevice[device]
		if s == nil {
			s = &series{device: device}
			byDevice[device] = s
		}
		s.points = append(s.points, p)
	}
	for _, m := range samples.Machine() {
		add("machine", point{ts: m.Time, temperature: m.Value})
	}
	for _, o := range samples.Weather() {
		if !math.IsNaN(o.Temperature) {
			add("weather-"+o.Station, point{ts: o.Time, temperature: o.Temperature})
		}
	}
	var all []*series
	for _, s := range byDevice {
		// A device publishes in the order of its clock. (The machine's series
		// has an hour that goes backwards.)
		slices.SortStableFunc(s.points, func(a, b point) int { return cmp.Compare(a.ts, b.ts) })
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *series) int { return len(a.points) - len(b.points) })
	for i, s := range all {
		share := max(total/(len(all)-i), 1)
		s.points = s.points[:min(len(s.points), share)]
		total -= len(s.points)
	}
	return all
}
