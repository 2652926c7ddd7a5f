package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"edgehub/pkg/log/vfs"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test over every implementation; dir exists and is empty.
func each(t *testing.T, run func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) { run(t, vfs.OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := vfs.NewMem()
		must(t, m.MkdirAll("/data"))
		run(t, m, "/data")
	})
	t.Run("fault over mem", func(t *testing.T) {
		m := vfs.NewMem()
		must(t, m.MkdirAll("/data"))
		run(t, vfs.NewFault(m, nil), "/data")
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes or replaces a file with content, unsynced.
func put(t testing.TB, fsys vfs.FS, name, content string) {
	t.Helper()
	f, err := fsys.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = fsys.Create(name)
	}
	must(t, err)
	must(t, f.Truncate(0))
	_, err = f.WriteAt([]byte(content), 0)
	must(t, err)
	must(t, f.Close())
}

// get reads a whole file.
func get(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil && err != io.EOF {
		t.Fatalf("read %s: %d of %d bytes, %v", name, n, size, err)
	}
	return string(b)
}

func exists(t testing.TB, fsys vfs.FS, name string) bool {
	t.Helper()
	_, err := fsys.Stat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// TestErrors holds all implementations to the same refusals.
func TestErrors(t *testing.T) {
	tests := []struct {
		name string
		do   func(fsys vfs.FS, at func(string) string) error
		want error
	}{
		{"create what exists", func(f vfs.FS, at func(string) string) error { _, err := f.Create(at("file")); return err }, fs.ErrExist},
		{"create over a directory", func(f vfs.FS, at func(string) string) error { _, err := f.Create(at("dir")); return err }, fs.ErrExist},
		{"create in no directory", func(f vfs.FS, at func(string) string) error { _, err := f.Create(at("no/file")); return err }, fs.ErrNotExist},
		{"create below a file", func(f vfs.FS, at func(string) string) error { _, err := f.Create(at("file/x")); return err }, syscall.ENOTDIR},
		{"open nothing", func(f vfs.FS, at func(string) string) error { _, err := f.Open(at("no")); return err }, fs.ErrNotExist},
		{"open a directory", func(f vfs.FS, at func(string) string) error { _, err := f.Open(at("dir")); return err }, syscall.EISDIR},
		{"open-rw nothing", func(f vfs.FS, at func(string) string) error { _, err := f.OpenRW(at("no")); return err }, fs.ErrNotExist},
		{"open-rw a directory", func(f vfs.FS, at func(string) string) error { _, err := f.OpenRW(at("dir")); return err }, syscall.EISDIR},
		{"remove nothing", func(f vfs.FS, at func(string) string) error { return f.Remove(at("no")) }, fs.ErrNotExist},
		{"remove a full directory", func(f vfs.FS, at func(string) string) error { return f.Remove(at("full")) }, syscall.ENOTEMPTY},
		{"remove an empty directory", func(f vfs.FS, at func(string) string) error { return f.Remove(at("dir")) }, nil},
		{"rename nothing", func(f vfs.FS, at func(string) string) error { return f.Rename(at("no"), at("b")) }, fs.ErrNotExist},
		{"rename to no directory", func(f vfs.FS, at func(string) string) error { return f.Rename(at("file"), at("no/b")) }, fs.ErrNotExist},
		{"rename a file over a directory", func(f vfs.FS, at func(string) string) error { return f.Rename(at("file"), at("dir")) }, fs.ErrExist},
		{"rename a directory over a directory", func(f vfs.FS, at func(string) string) error { return f.Rename(at("full"), at("dir")) }, fs.ErrExist},
		{"rename a directory over a file", func(f vfs.FS, at func(string) string) error { return f.Rename(at("dir"), at("file")) }, syscall.ENOTDIR},
		{"rename a directory into itself", func(f vfs.FS, at func(string) string) error { return f.Rename(at("dir"), at("dir/in")) }, syscall.EINVAL},
		{"rename a file to itself", func(f vfs.FS, at func(string) string) error { return f.Rename(at("file"), at("file")) }, nil},
		{"mkdir what exists", func(f vfs.FS, at func(string) string) error { return f.MkdirAll(at("dir")) }, nil},
		{"mkdir over a file", func(f vfs.FS, at func(string) string) error { return f.MkdirAll(at("file")) }, syscall.ENOTDIR},
		{"mkdir below a file", func(f vfs.FS, at func(string) string) error { return f.MkdirAll(at("file/dir")) }, syscall.ENOTDIR},
		{"list nothing", func(f vfs.FS, at func(string) string) error { _, err := f.ReadDir(at("no")); return err }, fs.ErrNotExist},
		{"list a file", func(f vfs.FS, at func(string) string) error { _, err := f.ReadDir(at("file")); return err }, syscall.ENOTDIR},
		{"stat nothing", func(f vfs.FS, at func(string) string) error { _, err := f.Stat(at("no")); return err }, fs.ErrNotExist},
		{"stat below a file", func(f vfs.FS, at func(string) string) error { _, err := f.Stat(at("file/x")); return err }, syscall.ENOTDIR},
		{"sync no directory", func(f vfs.FS, at func(string) string) error { return f.SyncDir(at("no")) }, fs.ErrNotExist},
		{"sync a file as a directory", func(f vfs.FS, at func(string) string) error { return f.SyncDir(at("file")) }, syscall.ENOTDIR},
		{"space of nothing", func(f vfs.FS, at func(string) string) error { _, _, err := f.Space(at("no")); return err }, fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, fsys vfs.FS, dir string) {
				at := func(name string) string { return filepath.Join(dir, name) }
				put(t, fsys, at("file"), "x")
				must(t, fsys.MkdirAll(at("dir")))
				must(t, fsys.MkdirAll(at("full/dir")))
				if err := tt.do(fsys, at); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestFileErrors(t *testing.T) {
	tests := []struct {
		name string
		do   func(rw, ro, closed vfs.File) error
		want error // nil: any error
	}{
		{"write read-only", func(_, ro, _ vfs.File) error { _, err := ro.WriteAt([]byte("x"), 0); return err }, syscall.EBADF},
		{"truncate read-only", func(_, ro, _ vfs.File) error { return ro.Truncate(0) }, syscall.EINVAL},
		{"truncate below zero", func(rw, _, _ vfs.File) error { return rw.Truncate(-1) }, syscall.EINVAL},
		{"write at a negative offset", func(rw, _, _ vfs.File) error { _, err := rw.WriteAt([]byte("x"), -1); return err }, nil},
		{"read at a negative offset", func(rw, _, _ vfs.File) error { _, err := rw.ReadAt(make([]byte, 1), -1); return err }, nil},
		{"read closed", func(_, _, c vfs.File) error { _, err := c.ReadAt(make([]byte, 1), 0); return err }, os.ErrClosed},
		{"write closed", func(_, _, c vfs.File) error { _, err := c.WriteAt([]byte("x"), 0); return err }, os.ErrClosed},
		{"truncate closed", func(_, _, c vfs.File) error { return c.Truncate(0) }, os.ErrClosed},
		{"size of closed", func(_, _, c vfs.File) error { _, err := c.Size(); return err }, os.ErrClosed},
		{"sync closed", func(_, _, c vfs.File) error { return c.Sync() }, os.ErrClosed},
		{"drop closed", func(_, _, c vfs.File) error { return c.DropCache() }, os.ErrClosed},
		{"close closed", func(_, _, c vfs.File) error { return c.Close() }, os.ErrClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, fsys vfs.FS, dir string) {
				name := filepath.Join(dir, "file")
				rw, err := fsys.Create(name)
				must(t, err)
				defer rw.Close()
				ro, err := fsys.Open(name)
				must(t, err)
				defer ro.Close()
				closed, err := fsys.OpenRW(name)
				must(t, err)
				must(t, closed.Close())
				err = tt.do(rw, ro, closed)
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestNames(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		must(t, fsys.MkdirAll(at("b/c")))
		put(t, fsys, at("z"), "zzz")
		put(t, fsys, at("a"), "")
		got, err := fsys.ReadDir(dir)
		must(t, err)
		want := []vfs.DirEntry{{Name: "a"}, {Name: "b", Dir: true}, {Name: "z", Size: 3}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}

		// An open file stays readable when its name goes or moves.
		f, err := fsys.Open(at("z"))
		must(t, err)
		defer f.Close()
		put(t, fsys, at("new"), "new")
		must(t, fsys.Rename(at("new"), at("z")))
		if got := get(t, fsys, at("z")); got != "new" {
			t.Errorf("replaced file holds %q", got)
		}
		must(t, fsys.Rename(at("z"), at("b/c/z")))
		must(t, fsys.Remove(at("b/c/z")))
		b := make([]byte, 3)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "zzz" {
			t.Errorf("open file reads %q, %v", b, err)
		}

		// A directory takes what it holds along.
		put(t, fsys, at("b/c/in"), "in")
		must(t, fsys.Rename(at("b"), at("d")))
		if got := get(t, fsys, at("d/c/in")); got != "in" {
			t.Errorf("moved file holds %q", got)
		}
		if exists(t, fsys, at("b")) {
			t.Error("a renamed directory is still there")
		}
		if st, err := fsys.Stat(at("d")); err != nil || st != (vfs.DirEntry{Name: "d", Dir: true}) {
			t.Errorf("stat: %+v, %v", st, err)
		}

		must(t, vfs.MakeDirs(fsys, at("deep/er/est")))
		must(t, vfs.MakeDirs(fsys, at("deep/er/est")))
		if !exists(t, fsys, at("deep/er/est")) {
			t.Error("MakeDirs made nothing")
		}
		free, total, err := fsys.Space(dir)
		if err != nil || free <= 0 || total < free {
			t.Errorf("space: %d of %d, %v", free, total, err)
		}
	})
}

// TestContent runs the same reads, writes and cuts over each implementation
// and over a plain byte slice.
func TestContent(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		f, err := fsys.Create(filepath.Join(dir, "f"))
		must(t, err)
		defer f.Close()
		var model []byte
		rng := newRNG(7)
		for i := range 3000 {
			switch rng.IntN(6) {
			case 0, 1, 2:
				off, n := rng.IntN(20000), rng.IntN(9000)
				b := make([]byte, n)
				for j := range b {
					b[j] = byte(i + j)
				}
				if k, err := f.WriteAt(b, int64(off)); k != n || err != nil {
					t.Fatalf("step %d: wrote %d of %d, %v", i, k, n, err)
				}
				if n > 0 && off+n > len(model) {
					model = append(model, make([]byte, off+n-len(model))...)
				}
				copy(model[min(off, len(model)):], b)
			case 3:
				n := rng.IntN(25000)
				must(t, f.Truncate(int64(n)))
				if n <= len(model) {
					model = model[:n]
				} else {
					model = append(model, make([]byte, n-len(model))...)
				}
				model = append([]byte(nil), model...)
			case 4:
				must(t, f.Sync())
			case 5:
				must(t, f.DropCache())
			}
			size, err := f.Size()
			must(t, err)
			if size != int64(len(model)) {
				t.Fatalf("step %d: size %d, want %d", i, size, len(model))
			}
			b := make([]byte, rng.IntN(30000))
			off := rng.IntN(26000)
			n, err := f.ReadAt(b, int64(off))
			want := model[min(off, len(model)):]
			want = want[:min(len(want), len(b))]
			if !bytes.Equal(b[:n], want) {
				t.Fatalf("step %d: read %d bytes at %d differ", i, n, off)
			}
			if wantErr := n < len(b); (err == io.EOF) != wantErr {
				t.Fatalf("step %d: read %d of %d bytes: %v", i, n, len(b), err)
			}
		}
	})
}
