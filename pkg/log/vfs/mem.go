package vfs

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mem is a file system in memory that tells what is durable from what is not
// (D1, D2), so that CrashClone can show what a power cut would leave. Names
// are rooted: "data/x" and "/data/x" are the same. The root exists and is
// durable.
//
// It keeps to the letter of POSIX where real file systems are kinder: syncing
// a file does not make its name durable, and names of one directory become
// durable in any order.
type Mem struct {
	mu   sync.Mutex
	root *inode

	// pending are the changes of names since they were last synced, oldest
	// first.
	pending []dirOp

	total int64 // bytes; what Space reports
	used  int64 // bytes of blocks in files that have a name
}

var _ FS = (*Mem)(nil)

// defaultTotal is the size of a Mem that nobody limited: 1 TiB.
const defaultTotal = 1 << 40

// NewMem is an empty file system.
func NewMem() *Mem { return &Mem{root: newDir(), total: defaultTotal} }

// SetTotal limits the file system to total bytes: writes that need a new
// block beyond it fail with ENOSPC, having written what fitted. Space is
// counted in whole blocks of 4 KiB, and comes back when a file is cut or
// removed.
func (m *Mem) SetTotal(total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = total
}

// inode is a file or a directory. Mem.mu guards all of it.
type inode struct {
	// dir only: names as they are now, and as they are on the device.
	names, durableNames map[string]*inode

	// file only
	data     content
	unlinked bool // its blocks are no longer counted in Mem.used
}

func newDir() *inode {
	return &inode{names: map[string]*inode{}, durableNames: map[string]*inode{}}
}

func (n *inode) isDir() bool { return n.names != nil }

// dirOp is one change of names. from is nil for a create, to is nil for a
// remove; a rename has both.
type dirOp struct {
	from, to         *inode // directories
	fromName, toName string
	node             *inode
}

// apply makes the change in the durable names. It must find the names as other
// changes that were kept, or lost, have left them.
func (op dirOp) apply() {
	if op.from != nil && op.from.durableNames[op.fromName] == op.node {
		delete(op.from.durableNames, op.fromName)
	}
	if op.to != nil {
		op.to.durableNames[op.toName] = op.node
	}
}

// elements splits a name below the root.
func elements(name string) []string {
	p := path.Clean("/" + filepath.ToSlash(name))
	if p == "/" {
		return nil
	}
	return strings.Split(p[1:], "/")
}

// lookup finds the inode of a name.
func (m *Mem) lookup(name string) (*inode, error) {
	n := m.root
	for _, e := range elements(name) {
		if !n.isDir() {
			return nil, syscall.ENOTDIR
		}
		next, ok := n.names[e]
		if !ok {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, nil
}

// parent finds the directory that holds, or would hold, a name.
func (m *Mem) parent(name string) (dir *inode, base string, err error) {
	el := elements(name)
	if len(el) == 0 {
		return nil, "", syscall.EEXIST
	}
	dir, err = m.lookup(path.Join(el[:len(el)-1]...))
	if err == nil && !dir.isDir() {
		err = syscall.ENOTDIR
	}
	return dir, el[len(el)-1], err
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if err == nil && dir.names[base] != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	n := &inode{}
	dir.names[base] = n
	m.pending = append(m.pending, dirOp{to: dir, toName: base, node: n})
	return &memFile{m: m, n: n, name: name, write: true}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenRW implements FS.
func (m *Mem) OpenRW(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(name)
	if err == nil && n.isDir() {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &memFile{m: m, n: n, name: name, write: write}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if err != nil {
		return pathError("remove", name, err)
	}
	n := dir.names[base]
	switch {
	case n == nil:
		return pathError("remove", name, syscall.ENOENT)
	case n.isDir() && len(n.names) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	m.unlink(n)
	delete(dir.names, base)
	m.pending = append(m.pending, dirOp{from: dir, fromName: base, node: n})
	return nil
}

func (m *Mem) unlink(n *inode) {
	if !n.isDir() && !n.unlinked {
		m.used -= n.data.allocated()
		n.unlinked = true
	}
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (m *Mem) rename(from, to string) error {
	fdir, fname, err := m.parent(from)
	if err != nil {
		return err
	}
	n := fdir.names[fname]
	if n == nil {
		return syscall.ENOENT
	}
	tdir, tname, err := m.parent(to)
	if err != nil {
		return err
	}
	old := tdir.names[tname]
	switch {
	case old != nil && old.isDir():
		return syscall.EEXIST
	case old == n:
		return nil
	case old != nil && n.isDir():
		return syscall.ENOTDIR
	case n.isDir() && within(n, tdir):
		return syscall.EINVAL
	}
	if old != nil {
		m.unlink(old)
	}
	delete(fdir.names, fname)
	tdir.names[tname] = n
	m.pending = append(m.pending, dirOp{from: fdir, fromName: fname, to: tdir, toName: tname, node: n})
	return nil
}

// within says that dir is n or lies below it.
func within(n, dir *inode) bool {
	if n == dir {
		return true
	}
	for _, c := range n.names {
		if c.isDir() && within(c, dir) {
			return true
		}
	}
	return false
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	for _, e := range elements(dir) {
		next := n.names[e]
		switch {
		case next == nil:
			next = newDir()
			n.names[e] = next
			m.pending = append(m.pending, dirOp{to: n, toName: e, node: next})
		case !next.isDir():
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// lookupDir finds a directory.
func (m *Mem) lookupDir(op, dir string) (*inode, error) {
	n, err := m.lookup(dir)
	if err == nil && !n.isDir() {
		err = syscall.ENOTDIR
	}
	return n, pathError(op, dir, err)
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookupDir("readdir", dir)
	if err != nil {
		return nil, err
	}
	out := make([]DirEntry, 0, len(n.names))
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		out = append(out, n.names[name].entry(name))
	}
	return out, nil
}

func (n *inode) entry(name string) DirEntry {
	return DirEntry{Name: name, Dir: n.isDir(), Size: n.data.size}
}

// Stat implements FS.
func (m *Mem) Stat(name string) (DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(name)
	if err != nil {
		return DirEntry{}, pathError("stat", name, err)
	}
	return n.entry(filepath.Base(name)), nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.lookupDir("fsync directory", dir)
	if err != nil {
		return err
	}
	// What touches d goes to the device, and with it what came before under
	// the same names elsewhere: a rename between two directories is one step,
	// and nothing older may overwrite it later.
	type place struct {
		dir  *inode
		name string
	}
	taken := map[place]bool{}
	keep := make([]bool, len(m.pending))
	for i := len(m.pending) - 1; i >= 0; i-- {
		op := m.pending[i]
		from, to := place{op.from, op.fromName}, place{op.to, op.toName}
		if op.from == d || op.to == d || taken[from] || taken[to] {
			keep[i] = true
			if op.from != nil {
				taken[from] = true
			}
			if op.to != nil {
				taken[to] = true
			}
		}
	}
	rest := m.pending[:0]
	for i, op := range m.pending {
		if keep[i] {
			op.apply()
		} else {
			rest = append(rest, op)
		}
	}
	clear(m.pending[len(rest):])
	m.pending = rest
	return nil
}

// Space implements FS.
func (m *Mem) Space(dir string) (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.lookup(dir); err != nil {
		return 0, 0, pathError("statfs", dir, err)
	}
	return max(0, m.total-m.used), m.total, nil
}

// memFile is an open file of a Mem.
type memFile struct {
	m      *Mem
	n      *inode
	name   string
	write  bool
	closed bool // guarded by m.mu
}

// begin locks the file system for an operation on the open file.
func (f *memFile) begin(op string, write bool) error {
	f.m.mu.Lock()
	switch {
	case f.closed:
		f.m.mu.Unlock()
		return pathError(op, f.name, os.ErrClosed)
	case write && !f.write:
		f.m.mu.Unlock()
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

var errNegative = errors.New("negative offset")

// ReadAt implements File.
func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, pathError("readat", f.name, errNegative)
	}
	if err := f.begin("read", false); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.n.data.readAt(b, off)
}

// WriteAt implements File.
func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, pathError("writeat", f.name, errNegative)
	}
	if err := f.begin("write", true); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	limit := f.m.total - f.m.used
	if f.n.unlinked {
		limit = f.m.total
	}
	n, grown := f.n.data.writeAt(b, off, limit)
	if !f.n.unlinked {
		f.m.used += grown
	}
	if n < len(b) {
		return n, pathError("write", f.name, syscall.ENOSPC)
	}
	return n, nil
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error {
	if size < 0 {
		return pathError("truncate", f.name, syscall.EINVAL)
	}
	// A file that is open for reading only cannot be cut; Linux says EINVAL.
	if err := f.begin("truncate", true); err != nil {
		if errors.Is(err, syscall.EBADF) {
			err = pathError("truncate", f.name, syscall.EINVAL)
		}
		return err
	}
	defer f.m.mu.Unlock()
	freed := f.n.data.truncate(size)
	if !f.n.unlinked {
		f.m.used -= freed
	}
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	if err := f.begin("stat", false); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.n.data.size, nil
}

// Sync implements File.
func (f *memFile) Sync() error {
	if err := f.begin("fdatasync", false); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.data.sync()
	return nil
}

// loseSync is what a failed sync does to the kernel's pages: they stay
// readable and count as clean, so that a later Sync passes without writing
// them (D4).
func (f *memFile) loseSync() {
	if f.begin("fdatasync", false) == nil {
		defer f.m.mu.Unlock()
		f.n.data.lose()
	}
}

// DropCache implements File.
func (f *memFile) DropCache() error {
	if err := f.begin("fadvise", false); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	freed := f.n.data.dropCache()
	if !f.n.unlinked {
		f.m.used -= freed
	}
	return nil
}

// Close implements File.
func (f *memFile) Close() error {
	if err := f.begin("close", false); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}
