package vfs_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"edgehub/pkg/log/vfs"

	"github.com/google/go-cmp/cmp"
)

func TestTrace(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem(), nil)
	must(t, f.MkdirAll("/journal"))
	f.StartTrace()
	write(t, f, "/journal/0", []byte("entry"), 4096, true)
	must(t, f.SyncDir("/journal"))
	must(t, f.Rename("/journal/0", "/journal/1"))
	file, err := f.OpenRW("/journal/1")
	must(t, err)
	must(t, file.Truncate(10))
	f.SetRule(vfs.FailNth(1, syscall.EIO, vfs.OpSync))
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	must(t, file.Close())
	must(t, f.Remove("/journal/1"))
	want := []string{
		"create /journal/0",
		"write /journal/0 5@4096",
		"sync /journal/0",
		"sync-dir /journal",
		"rename /journal/0 /journal/1",
		"truncate /journal/1 10",
		"sync /journal/1 = input/output error",
		"remove /journal/1",
	}
	if d := cmp.Diff(want, f.StopTrace()); d != "" {
		t.Error(d)
	}
	_ = f.MkdirAll("/untraced")
	if d := cmp.Diff(want, f.Trace()); d != "" {
		t.Error(d)
	}
	if got := f.Count(vfs.OpSync); got != 2 {
		t.Errorf("%d syncs, want 2", got)
	}
	if got := f.Written(); got != 5 {
		t.Errorf("%d bytes written, want 5", got)
	}
	if f.Ops() < 10 {
		t.Errorf("%d operations", f.Ops())
	}
}

func TestRules(t *testing.T) {
	boom := errors.New("boom")
	w := func(n int64) vfs.Op { return vfs.Op{Kind: vfs.OpWrite, Path: "/a/x", Size: n} }
	s := vfs.Op{Kind: vfs.OpSync, Path: "/a/x"}
	tests := []struct {
		name string
		rule vfs.Rule
		ops  []vfs.Op
		want []error
	}{
		{"nth", vfs.FailNth(2, boom), []vfs.Op{w(1), w(1), w(1)}, []error{nil, boom, nil}},
		{"nth of a kind", vfs.FailNth(1, boom, vfs.OpSync), []vfs.Op{w(1), s, s}, []error{nil, boom, nil}},
		{"from", vfs.FailFrom(2, boom, vfs.OpSync), []vfs.Op{s, w(1), s, s}, []error{nil, nil, boom, boom}},
		{"path", vfs.OnPath("/b/", vfs.FailFrom(1, boom)), []vfs.Op{s, {Kind: vfs.OpRename, Path: "/a/x", To: "/b/x"}}, []error{nil, boom}},
		{"no space", vfs.NoSpaceAfter(10), []vfs.Op{w(10), s, w(1), {Kind: vfs.OpCreate}}, []error{nil, nil, syscall.ENOSPC, syscall.ENOSPC}},
		{"no space within", vfs.NoSpaceAfter(10), []vfs.Op{w(4), w(7), w(1)}, []error{nil, syscall.ENOSPC, syscall.ENOSPC}},
		{"all", vfs.All(vfs.FailNth(1, boom), vfs.FailNth(1, syscall.EIO)), []vfs.Op{s, s, s}, []error{boom, syscall.EIO, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, op := range tt.ops {
				if err := tt.rule(op); !errors.Is(err, tt.want[i]) {
					t.Errorf("operation %d: got %v, want %v", i, err, tt.want[i])
				}
			}
		})
	}
}

func TestShortWrite(t *testing.T) {
	m := vfs.NewMem()
	f := vfs.NewFault(m, vfs.NoSpaceAfter(3))
	file, err := f.Create("/f")
	must(t, err)
	if n, err := file.WriteAt([]byte("hello"), 0); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d, %v; want 3 and ENOSPC", n, err)
	}
	must(t, file.Close())
	if got := get(t, m, "/f"); got != "hel" {
		t.Errorf("file holds %q", got)
	}
	if _, err := f.Create("/g"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create: %v", err)
	}
}

// TestFailedSync is D4: the sync behind a failed one passes and has written
// nothing; only reading what the device holds tells.
func TestFailedSync(t *testing.T) {
	m := vfs.NewMem()
	f := vfs.NewFault(vfs.NewFault(m, nil), nil)
	file, err := f.Create("/f")
	must(t, err)
	defer file.Close()
	must(t, f.SyncDir("/"))
	_, err = file.WriteAt([]byte("aaaa"), 0)
	must(t, err)
	must(t, file.Sync())
	_, err = file.WriteAt([]byte("bbbb"), 0)
	must(t, err)
	f.SetRule(vfs.FailNth(1, syscall.EIO, vfs.OpSync))
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	must(t, file.Sync())
	if got := get(t, m, "/f"); got != "bbbb" {
		t.Errorf("cached: %q, want the new bytes", got)
	}
	if got := get(t, m.CrashClone(vfs.CrashConfig{}), "/f"); got != "aaaa" {
		t.Errorf("after a power cut: %q, want the old bytes", got)
	}
	must(t, file.DropCache())
	if got := get(t, m, "/f"); got != "aaaa" {
		t.Errorf("without the cache: %q, want the old bytes", got)
	}
	// Written again, they are durable again.
	_, err = file.WriteAt([]byte("bbbb"), 0)
	must(t, err)
	must(t, file.Sync())
	if got := get(t, m.CrashClone(vfs.CrashConfig{}), "/f"); got != "bbbb" {
		t.Errorf("written again: %q", got)
	}
}

func TestGate(t *testing.T) {
	gate := vfs.NewGate(vfs.OpSync)
	f := vfs.NewFault(vfs.NewMem(), gate.Rule)
	file, err := f.Create("/f")
	must(t, err)
	results := make(chan error, 3)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { results <- file.Sync() })
	}
	if op := <-gate.Arrived(); op.Kind != vfs.OpSync || op.Path != "/f" {
		t.Errorf("held %v", op)
	}
	// Others go on while a sync is held.
	_, err = file.WriteAt([]byte("x"), 0)
	must(t, err)
	select {
	case err := <-results:
		t.Fatalf("a sync passed the closed gate: %v", err)
	default:
	}
	gate.Pass()
	if err := <-results; err != nil {
		t.Errorf("passed: %v", err)
	}
	gate.Fail(syscall.EIO)
	if err := <-results; !errors.Is(err, syscall.EIO) {
		t.Errorf("failed: %v", err)
	}
	gate.Open()
	gate.Open()
	if err := <-results; err != nil {
		t.Errorf("opened: %v", err)
	}
	wg.Wait()
	must(t, file.Sync())
	must(t, file.Close())
}

// TestCrashAtEveryOperation shows the way to use it all together: write a
// file aside and rename it, cut the power before each operation, and find one
// of the two contents each time.
func TestCrashAtEveryOperation(t *testing.T) {
	replace := func(fsys vfs.FS) error {
		f, err := fsys.Create("/new")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("second"), 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := fsys.Rename("/new", "/file"); err != nil {
			return err
		}
		return fsys.SyncDir("/")
	}
	m := vfs.NewMem()
	write(t, m, "/file", []byte("first"), 0, true)
	must(t, m.SyncDir("/"))
	rng := newRNG(9)
	cuts := 0
	must(t, replace(vfs.NewFault(m, func(op vfs.Op) error {
		for range 20 {
			cuts++
			if got := get(t, m.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng}), "/file"); got != "first" && got != "second" {
				t.Errorf("cut before %v leaves %q", op, got)
			}
		}
		return nil
	})))
	if got := get(t, m.CrashClone(vfs.CrashConfig{}), "/file"); got != "second" {
		t.Errorf("at the end: %q", got)
	}
	if cuts != 6*20 {
		t.Errorf("%d cuts", cuts)
	}
}
