package uplinktest

import (
	"fmt"

	"edgehub/pkg/forward"
)

// Verify compares what the core has with what hubs ever gave and have now,
// and returns what is wrong: a record twice, out of order, altered, missing,
// or declared gone without being so.
func Verify(c *Core, h *Hub) []string {
	bad := c.Problems()
	add := func(format string, args ...any) {
		if len(bad) < 20 {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	covered := map[Place]bool{}
	for src, got := range c.Got() {
		// By epoch: a restored image may go on in an epoch whose end the core
		// did not get, after a later one of the history that was lost.
		last := map[forward.ID]int64{}
		for _, g := range got {
			if g.Offset < last[g.Epoch] {
				add("%v: offset %d of epoch %s comes after %d", src, g.Offset, g.Epoch, last[g.Epoch]-1)
			}
			if g.Gap == "" {
				last[g.Epoch] = g.Offset + 1
				value, given, _ := h.Given(g.Place)
				if !given || value != g.Value {
					add("%v: offset %d of epoch %s is %q, the hub gave %q", src, g.Offset, g.Epoch, g.Value, value)
				}
				covered[g.Place] = true
				continue
			}
			last[g.Epoch] = g.To
			for o := g.Offset; o < g.To; o++ {
				p := Place{src, g.Epoch, o}
				if _, given, gone := h.Given(p); given && !gone {
					add("%v: offset %d of epoch %s is declared gone (%s) and is not", src, o, g.Epoch, g.Gap)
				}
				covered[p] = true
			}
		}
	}
	for p := range h.Records() {
		if !covered[p] {
			add("%v: offset %d of epoch %s is missing at the core", p.Source, p.Offset, p.Epoch)
		}
	}
	return bad
}
