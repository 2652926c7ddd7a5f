package deps

import (
	"os"
	"path/filepath"
	"testing"
)

// budgets are the largest sizes of the stripped arm64 binaries, in bytes
// (MB = 10^6).
var budgets = map[string]int64{
	"hub":    32_000_000,
	"uplink": 16_000_000,
}

func TestBinarySize(t *testing.T) {
	dir := t.TempDir()
	for name, budget := range budgets {
		out := filepath.Join(dir, name)
		goTool(t, "arm64", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./cmd/"+name)
		st, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f of %.0f MB", name, float64(st.Size())/1e6, float64(budget)/1e6)
		if st.Size() > budget {
			t.Errorf("%s has %d bytes, %d more than its budget: see with `go tool nm -size -sort size` what came in", name, st.Size(), st.Size()-budget)
		}
	}
}
