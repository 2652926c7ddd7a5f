package vfs

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Kind is what an operation does.
type Kind uint8

// The operations of FS and File.
const (
	OpCreate Kind = iota
	OpOpen
	OpOpenRW
	OpRemove
	OpRename
	OpMkdirAll
	OpReadDir
	OpStat
	OpSyncDir
	OpSpace
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpSize
	OpDropCache
	OpClose
	kinds
)

var kindNames = [kinds]string{"create", "open", "open-rw", "remove", "rename", "mkdir", "readdir", "stat",
	"sync-dir", "space", "read", "write", "sync", "truncate", "size", "drop-cache", "close"}

func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// Changes are the kinds that change what a power cut leaves.
var Changes = []Kind{OpCreate, OpRemove, OpRename, OpMkdirAll, OpSyncDir, OpWrite, OpSync, OpTruncate}

// Op is one operation, before it is done.
type Op struct {
	Kind   Kind
	Path   string // as the caller gave it; of a File, the name it was opened by
	To     string // OpRename only
	Offset int64  // OpRead, OpWrite
	Size   int64  // bytes of OpRead, OpWrite; the new size of OpTruncate
	Index  int    // how many operations the Fault had seen before this one
}

// String is one line of a trace: "write journal/0 4096@8192".
func (op Op) String() string {
	switch op.Kind {
	case OpRead, OpWrite:
		return fmt.Sprintf("%s %s %d@%d", op.Kind, op.Path, op.Size, op.Offset)
	case OpTruncate:
		return fmt.Sprintf("%s %s %d", op.Kind, op.Path, op.Size)
	case OpRename:
		return fmt.Sprintf("%s %s %s", op.Kind, op.Path, op.To)
	}
	return fmt.Sprintf("%s %s", op.Kind, op.Path)
}

// A Rule decides on an operation before it is done: nil lets it pass, an
// error is what the caller gets instead. Many goroutines call it at once; it
// may block, which holds that operation and no other, and may use the file
// systems below the Fault (Mem.CrashClone). A *Short error lets a write
// happen in part.
type Rule func(Op) error

// Short is a write that writes its first N bytes and then fails with Err.
type Short struct {
	N   int
	Err error
}

func (s *Short) Error() string { return fmt.Sprintf("only %d bytes written: %v", s.N, s.Err) }

// Unwrap is Err.
func (s *Short) Unwrap() error { return s.Err }

// Fault wraps a file system and fails, holds, counts and traces what goes
// through it. It is safe for concurrent use.
//
// A sync that a rule fails does not reach the wrapped file system. Over a Mem
// the bytes that it should have written become clean all the same, as in the
// Linux kernel: a later sync passes and does not write them (D4).
type Fault struct {
	fs      FS
	rule    atomic.Pointer[Rule]
	index   atomic.Int64
	counts  [kinds]atomic.Int64
	written atomic.Int64

	mu    sync.Mutex
	kinds []Kind // traced; nil: none
	trace []string
}

var _ FS = (*Fault)(nil)

// NewFault wraps fsys. A nil rule lets everything pass.
func NewFault(fsys FS, rule func(Op) error) *Fault {
	f := &Fault{fs: fsys}
	f.SetRule(rule)
	return f
}

// SetRule replaces the rule; nil lets everything pass. Operations that the
// old rule holds stay held by it.
func (f *Fault) SetRule(rule func(Op) error) {
	r := Rule(rule)
	f.rule.Store(&r)
}

// Ops is how many operations there have been; the next one has this Index.
func (f *Fault) Ops() int { return int(f.index.Load()) }

// Count is how many operations of these kinds there have been, failed ones
// included.
func (f *Fault) Count(kinds ...Kind) int {
	n := int64(0)
	for _, k := range kinds {
		n += f.counts[k].Load()
	}
	return int(n)
}

// Written is how many bytes writes have passed to the wrapped file system.
func (f *Fault) Written() int64 { return f.written.Load() }

// StartTrace records operations of these kinds, of Changes if none is named,
// from now on; what was recorded before is dropped.
func (f *Fault) StartTrace(kinds ...Kind) {
	if len(kinds) == 0 {
		kinds = Changes
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds, f.trace = slices.Clone(kinds), nil
}

// Trace is what has been recorded, a line per operation in the order in which
// they began; " = error" follows those that a rule failed.
func (f *Fault) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.trace)
}

// StopTrace records no more and returns what has been recorded.
func (f *Fault) StopTrace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds = nil
	return slices.Clone(f.trace)
}

// check counts an operation and asks the rule.
func (f *Fault) check(op Op) error {
	op.Index = int(f.index.Add(1) - 1)
	f.counts[op.Kind].Add(1)
	line := f.record(op)
	rule := *f.rule.Load()
	if rule == nil {
		return nil
	}
	err := rule(op)
	if err == nil {
		return nil
	}
	f.mu.Lock()
	if line >= 0 && line < len(f.trace) {
		f.trace[line] += " = " + err.Error()
	}
	f.mu.Unlock()
	if short := (*Short)(nil); op.Kind == OpWrite && errors.As(err, &short) {
		return short
	}
	return pathError(op.Kind.String(), op.Path, err)
}

func (f *Fault) record(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.kinds, op.Kind) {
		return -1
	}
	f.trace = append(f.trace, op.String())
	return len(f.trace) - 1
}

// Create implements FS.
func (f *Fault) Create(name string) (File, error) { return f.open(OpCreate, name, f.fs.Create) }

// Open implements FS.
func (f *Fault) Open(name string) (File, error) { return f.open(OpOpen, name, f.fs.Open) }

// OpenRW implements FS.
func (f *Fault) OpenRW(name string) (File, error) { return f.open(OpOpenRW, name, f.fs.OpenRW) }

func (f *Fault) open(k Kind, name string, do func(string) (File, error)) (File, error) {
	if err := f.check(Op{Kind: k, Path: name}); err != nil {
		return nil, err
	}
	file, err := do(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{f: f, file: file, name: name}, nil
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if err := f.check(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Rename implements FS.
func (f *Fault) Rename(from, to string) error {
	if err := f.check(Op{Kind: OpRename, Path: from, To: to}); err != nil {
		return err
	}
	return f.fs.Rename(from, to)
}

// MkdirAll implements FS.
func (f *Fault) MkdirAll(dir string) error {
	if err := f.check(Op{Kind: OpMkdirAll, Path: dir}); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// ReadDir implements FS.
func (f *Fault) ReadDir(dir string) ([]DirEntry, error) {
	if err := f.check(Op{Kind: OpReadDir, Path: dir}); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(dir)
}

// Stat implements FS.
func (f *Fault) Stat(name string) (DirEntry, error) {
	if err := f.check(Op{Kind: OpStat, Path: name}); err != nil {
		return DirEntry{}, err
	}
	return f.fs.Stat(name)
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	if err := f.check(Op{Kind: OpSyncDir, Path: dir}); err != nil {
		return err
	}
	return f.fs.SyncDir(dir)
}

// Space implements FS.
func (f *Fault) Space(dir string) (free, total int64, err error) {
	if err := f.check(Op{Kind: OpSpace, Path: dir}); err != nil {
		return 0, 0, err
	}
	return f.fs.Space(dir)
}

type faultFile struct {
	f    *Fault
	file File
	name string
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.f.check(Op{Kind: OpRead, Path: f.name, Offset: off, Size: int64(len(b))}); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.f.check(Op{Kind: OpWrite, Path: f.name, Offset: off, Size: int64(len(b))})
	if short := (*Short)(nil); errors.As(err, &short) {
		b, err = b[:min(max(short.N, 0), len(b))], pathError("write", f.name, short.Err)
	} else if err != nil {
		return 0, err
	}
	n, werr := f.file.WriteAt(b, off)
	f.f.written.Add(int64(n))
	if werr != nil {
		err = werr
	}
	return n, err
}

func (f *faultFile) Sync() error {
	if err := f.f.check(Op{Kind: OpSync, Path: f.name}); err != nil {
		if l, ok := f.file.(interface{ loseSync() }); ok {
			l.loseSync()
		}
		return err
	}
	return f.file.Sync()
}

// loseSync passes through a Fault over a Fault.
func (f *faultFile) loseSync() {
	if l, ok := f.file.(interface{ loseSync() }); ok {
		l.loseSync()
	}
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.f.check(Op{Kind: OpTruncate, Path: f.name, Size: size}); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Size() (int64, error) {
	if err := f.f.check(Op{Kind: OpSize, Path: f.name}); err != nil {
		return 0, err
	}
	return f.file.Size()
}

func (f *faultFile) DropCache() error {
	if err := f.f.check(Op{Kind: OpDropCache, Path: f.name}); err != nil {
		return err
	}
	return f.file.DropCache()
}

// Close closes the wrapped file whatever the rule says, so that tests leak no
// descriptors; the rule's error comes first.
func (f *faultFile) Close() error {
	err := f.f.check(Op{Kind: OpClose, Path: f.name})
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	return err
}
