package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDemoLosesNothing(t *testing.T) {
	out := run(t, "", "hub", "demo", "--json", "--duration", "20s")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var r struct{ Published, Edge, Windows, Core, Lost, Duplicates int }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	if r.Published < 1000 || r.Edge < r.Published || r.Core < r.Published || r.Windows < 10 || r.Lost != 0 || r.Duplicates != 0 {
		t.Errorf("demo says %+v", r)
	}
}
