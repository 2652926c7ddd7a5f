package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"edgehub/pkg/log/vfs"

	"github.com/google/go-cmp/cmp"
)

func newRNG(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// tree is every name of a file system with its content; directories end in "/".
func tree(t testing.TB, fsys vfs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		list, err := fsys.ReadDir(dir)
		must(t, err)
		for _, e := range list {
			p := path.Join(dir, e.Name)
			if e.Dir {
				out[p+"/"] = ""
				walk(p)
			} else {
				out[p] = get(t, fsys, p)
			}
		}
	}
	walk("/")
	return out
}

// write puts b at off of an existing or new file and syncs it if asked.
func write(t testing.TB, fsys vfs.FS, name string, b []byte, off int64, sync bool) {
	t.Helper()
	f, err := fsys.OpenRW(name)
	if err != nil {
		f, err = fsys.Create(name)
	}
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, off)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
}

// TestCrashKeepsSynced cuts the power at each step of a usual sequence; what
// was made durable by then must be there at 0 %.
func TestCrashKeepsSynced(t *testing.T) {
	m := vfs.NewMem()
	check := func(step string, want map[string]string) {
		t.Helper()
		if d := cmp.Diff(want, tree(t, m.CrashClone(vfs.CrashConfig{}))); d != "" {
			t.Errorf("%s: %s", step, d)
		}
	}
	check("empty", map[string]string{})
	must(t, m.MkdirAll("/d/e"))
	check("mkdir", map[string]string{})
	must(t, m.SyncDir("/"))
	check("mkdir, parent synced", map[string]string{"/d/": ""})
	must(t, m.SyncDir("/d"))
	check("both parents synced", map[string]string{"/d/": "", "/d/e/": ""})
	write(t, m, "/d/e/f", []byte("one"), 0, true)
	check("file synced, name not", map[string]string{"/d/": "", "/d/e/": ""})
	must(t, m.SyncDir("/d/e"))
	check("name synced", map[string]string{"/d/": "", "/d/e/": "", "/d/e/f": "one"})
	write(t, m, "/d/e/f", []byte("two!"), 0, false)
	check("written over", map[string]string{"/d/": "", "/d/e/": "", "/d/e/f": "one"})
	write(t, m, "/d/e/f", nil, 0, true)
	check("synced by another handle", map[string]string{"/d/": "", "/d/e/": "", "/d/e/f": "two!"})
	must(t, m.Rename("/d/e/f", "/d/g"))
	check("renamed", map[string]string{"/d/": "", "/d/e/": "", "/d/e/f": "two!"})
	must(t, m.SyncDir("/d/e"))
	check("renamed, old directory synced", map[string]string{"/d/": "", "/d/e/": "", "/d/g": "two!"})
	must(t, m.Remove("/d/g"))
	must(t, m.Remove("/d/e"))
	check("removed", map[string]string{"/d/": "", "/d/e/": "", "/d/g": "two!"})
	must(t, m.SyncDir("/d"))
	check("removed, synced", map[string]string{"/d/": ""})
}

// TestCrashOfNames: unsynced changes of names come and go independently, and
// a rename is whole (D3).
func TestCrashOfNames(t *testing.T) {
	m := vfs.NewMem()
	write(t, m, "/old", []byte("old"), 0, true)
	write(t, m, "/gone", []byte("gone"), 0, true)
	must(t, m.SyncDir("/"))
	write(t, m, "/tmp", []byte("new"), 0, true)
	must(t, m.Rename("/tmp", "/old"))
	write(t, m, "/made", []byte("made"), 0, true)
	must(t, m.Remove("/gone"))
	seen := map[string]int{}
	rng := newRNG(1)
	for range 400 {
		got := tree(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng}))
		var names []string
		for name, content := range got {
			names = append(names, name+"="+content)
		}
		slices.Sort(names)
		seen[strings.Join(names, " ")]++
		if got["/old"] != "old" && got["/old"] != "new" {
			t.Fatalf("rename half done: %v", got)
		}
		if got["/old"] == "new" && got["/tmp"] != "" {
			t.Fatalf("renamed and still there: %v", got)
		}
	}
	// {rename} × {create and no rename: tmp is left} × {made} × {gone}
	if want := 3 * 2 * 2; len(seen) != want {
		t.Errorf("%d outcomes, want %d: %v", len(seen), want, seen)
	}
}

// TestCrashTearsSectors: each sector is old or new, all mixtures happen, and
// the synced rest is untouched.
func TestCrashTearsSectors(t *testing.T) {
	m := vfs.NewMem()
	write(t, m, "/f", bytes.Repeat([]byte("a"), 3*4096), 0, true)
	must(t, m.SyncDir("/"))
	write(t, m, "/f", bytes.Repeat([]byte("b"), 1024), 4096-512, false)
	seen := map[string]bool{}
	rng := newRNG(2)
	for range 100 {
		got := get(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng}), "/f")
		for i := 0; i < len(got); i += 512 {
			s := got[i : i+512]
			if s != strings.Repeat("a", 512) && (s != strings.Repeat("b", 512) || i != 3584 && i != 4096) {
				t.Fatalf("sector at %d is %q…", i, s[:8])
			}
		}
		seen[got[3584:3585]+got[4096:4097]] = true
	}
	if len(seen) != 4 {
		t.Errorf("mixtures seen: %v, want 4", seen)
	}
}

// TestCrashOfGrowth: unsynced growth is lost, whole or in part; holes in it
// read as zeros.
func TestCrashOfGrowth(t *testing.T) {
	m := vfs.NewMem()
	write(t, m, "/f", []byte("head"), 0, true)
	must(t, m.SyncDir("/"))
	write(t, m, "/f", bytes.Repeat([]byte("x"), 5000), 4, false)
	rng := newRNG(3)
	var none, some, all int
	for range 200 {
		got := get(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng}), "/f")
		switch {
		case len(got) == 4:
			none++
		case len(got) == 5004:
			all++
		default:
			some++
		}
		if len(got) < 4 || got[:4] != "head" {
			t.Fatalf("synced bytes lost: %q", got[:min(4, len(got))])
		}
		if strings.Trim(got[4:], "x\x00") != "" {
			t.Fatal("bytes from nowhere")
		}
	}
	if none == 0 || some == 0 || all == 0 {
		t.Errorf("none %d, some %d, all %d", none, some, all)
	}

	// A cut of the size that was not synced may be undone, with its bytes.
	m = vfs.NewMem()
	write(t, m, "/f", []byte("head and tail"), 0, true)
	must(t, m.SyncDir("/"))
	f, err := m.OpenRW("/f")
	must(t, err)
	must(t, f.Truncate(4))
	if got := get(t, m.CrashClone(vfs.CrashConfig{}), "/f"); got != "head and tail" {
		t.Errorf("unsynced cut left %q", got)
	}
	must(t, f.Truncate(8))
	must(t, f.Sync())
	if got := get(t, m.CrashClone(vfs.CrashConfig{}), "/f"); got != "head\x00\x00\x00\x00" {
		t.Errorf("cut, grown and synced: %q", got)
	}
	must(t, f.Close())
}

// history does random operations; it returns the names that a model of
// "everything kept" has.
func history(t testing.TB, m *vfs.Mem, rng *rand.Rand, steps int) {
	name := func() string { return fmt.Sprintf("/%c/%c", 'a'+rng.IntN(3), 'p'+rng.IntN(4)) }
	for range steps {
		switch rng.IntN(10) {
		case 0, 1:
			_ = m.MkdirAll(path.Dir(name()))
		case 2, 3, 4, 5:
			p := name()
			if exists(t, m, path.Dir(p)) {
				write(t, m, p, bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(6000)), int64(rng.IntN(9000)), rng.IntN(3) == 0)
			}
		case 6:
			_ = m.Rename(name(), name())
		case 7:
			_ = m.Remove(name())
		case 8:
			_ = m.SyncDir(path.Dir(name()))
		case 9:
			_ = m.SyncDir("/")
		}
	}
}

func TestCrashProperties(t *testing.T) {
	for seed := range uint64(60) {
		m := vfs.NewMem()
		rng := newRNG(seed)
		for range 5 {
			history(t, m, rng, 30)
			now := tree(t, m)
			// 100 % is kill -9: nothing is lost.
			if d := cmp.Diff(now, tree(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 100}))); d != "" {
				t.Fatalf("seed %d: 100 %%: %s", seed, d)
			}
			// The same seed gives the same clone.
			one := m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 40, RNG: newRNG(seed)})
			two := m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 40, RNG: newRNG(seed)})
			left := tree(t, one)
			if d := cmp.Diff(left, tree(t, two)); d != "" {
				t.Fatalf("seed %d: not the same: %s", seed, d)
			}
			// Everything in a clone is durable.
			if d := cmp.Diff(left, tree(t, one.CrashClone(vfs.CrashConfig{}))); d != "" {
				t.Fatalf("seed %d: clone of a clone: %s", seed, d)
			}
			// Clone and original share nothing.
			history(t, one, newRNG(seed+1000), 20)
			if d := cmp.Diff(now, tree(t, m)); d != "" {
				t.Fatalf("seed %d: the original changed: %s", seed, d)
			}
			if d := cmp.Diff(left, tree(t, two)); d != "" {
				t.Fatalf("seed %d: the other clone changed: %s", seed, d)
			}
		}
		// With everything synced no cut loses anything.
		for name := range tree(t, m) {
			if dir, ok := strings.CutSuffix(name, "/"); ok {
				must(t, m.SyncDir(dir))
			} else {
				write(t, m, name, nil, 0, true)
			}
		}
		must(t, m.SyncDir("/"))
		if d := cmp.Diff(tree(t, m), tree(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 30, RNG: rng}))); d != "" {
			t.Fatalf("seed %d: all synced: %s", seed, d)
		}
	}
}

func TestSpaceOfMem(t *testing.T) {
	m := vfs.NewMem()
	m.SetTotal(4 * 4096)
	f, err := m.Create("/f")
	must(t, err)
	defer f.Close()
	free := func() int64 {
		t.Helper()
		n, _, err := m.Space("/")
		must(t, err)
		return n
	}
	if n, err := f.WriteAt(make([]byte, 5*4096), 0); n != 4*4096 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d, %v; want 4 blocks and ENOSPC", n, err)
	}
	if size, _ := f.Size(); size != 4*4096 {
		t.Errorf("size %d", size)
	}
	if n, err := f.WriteAt(make([]byte, 4*4096), 0); n != 4*4096 || err != nil {
		t.Errorf("writing over: %d, %v", n, err)
	}
	must(t, f.Sync())
	must(t, f.Truncate(4096))
	if got := free(); got != 3*4096 {
		t.Errorf("free %d after a cut, want 3 blocks", got)
	}
	if got, _, _ := m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 100}).Space("/"); got != 3*4096 {
		t.Errorf("free %d in the clone, want 3 blocks", got)
	}
	must(t, m.Remove("/f"))
	if got := free(); got != 4*4096 {
		t.Errorf("free %d after the removal, want all", got)
	}
	write(t, m, "/a", make([]byte, 8192), 0, false)
	write(t, m, "/b", make([]byte, 4096), 0, false)
	must(t, m.Rename("/b", "/a"))
	if got := free(); got != 3*4096 {
		t.Errorf("free %d after a replacement, want 3 blocks", got)
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("/f")
	must(t, err)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				b := bytes.Repeat([]byte{byte(g)}, 100)
				if _, err := f.WriteAt(b, int64(g*100)); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
					m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50})
				}
				name := fmt.Sprintf("/%d-%d", g, i)
				if c, err := m.Create(name); err != nil {
					t.Error(err)
				} else if err := errors.Join(c.Close(), m.SyncDir("/"), m.Remove(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for g := range 4 {
		b := make([]byte, 100)
		if _, err := f.ReadAt(b, int64(g*100)); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(g)}, 100)) {
			t.Errorf("writer %d: %v", g, err)
		}
	}
	must(t, f.Close())
}
