package log

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A hub that ends while it still zero-fills its slots starts again.
func TestReopenWithHalfMadeSlot(t *testing.T) {
	o := Options{Dir: t.TempDir(), slotBytes: 1 << 20, slots: 6}
	l := mustOpen(t, o)
	mustCreate(t, l, "a", 1)
	want := fmt.Sprint([]got{{mustAppend(t, mustPartition(t, l, "a", 0), "x"), "x"}})
	mustClose(t, l)
	files, err := filepath.Glob(filepath.Join(o.Dir, journalDir, "slot-*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("slots %v: %v", files, err)
	}
	if err := os.Truncate(files[len(files)-1], 300_000); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, o)
	if g := fmt.Sprint(mustReadAll(t, mustPartition(t, l, "a", 0))); g != want {
		t.Fatalf("got %v, want %v", g, want)
	}
	mustClose(t, l)
}
