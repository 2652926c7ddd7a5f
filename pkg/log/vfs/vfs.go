// Package vfs is the seam between the log and the file system. It has three
// implementations: OS is the machine's own; Mem keeps everything in memory and
// knows what a power cut would leave of it (CrashClone); Fault wraps either
// and fails, counts, traces or holds chosen operations.
//
// Names are slash paths as the caller gives them, joined with filepath.Join.
// Errors wrap *fs.PathError or *os.LinkError, so errors.Is with fs.ErrNotExist,
// fs.ErrExist, os.ErrClosed and the errno values (ENOSPC, EIO, ENOTDIR,
// EISDIR, ENOTEMPTY) works alike on all of them; a table test holds OS and Mem
// to the same answers.
//
// What is durable when, the rules that every caller lives by:
//
//	D1: bytes written are durable once File.Sync has returned nil, and so is
//	    the size that makes them readable. Until then any 512-byte sector of
//	    them may be there or not.
//	D2: a name created, renamed or removed is durable once SyncDir of its
//	    directory has returned nil, whatever has been synced of the file
//	    itself. A new directory is a name in its parent.
//	D3: a rename is atomic: after a power cut the new name leads to the old
//	    file or to the new one, never to nothing.
//	D4: after a Sync that failed nothing is known of the bytes written since
//	    the last good one, and a later Sync that succeeds says nothing about
//	    them. Only what is read back behind DropCache is what the device holds.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
)

// File is an open file. Its methods are safe for concurrent use; concurrent
// writes to the same bytes leave either.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes written bytes durable, and the size if it grew (D1; OS:
	// fdatasync). It never returns nil for bytes that an earlier call lost
	// only because the kernel forgot them: callers must not sync again after
	// an error and believe it (D4).
	Sync() error

	// Truncate sets the size in bytes; growth reads as zeros. It is durable
	// after Sync.
	Truncate(size int64) error

	// Size is the length in bytes as readers see it, durable or not.
	Size() (int64, error)

	// DropCache forgets clean cached pages, so that the next reads show what
	// the device holds (OS: posix_fadvise DONTNEED; a no-op where unknown).
	// Bytes not yet synced stay.
	DropCache() error
}

// DirEntry describes a name in a directory.
type DirEntry struct {
	Name string // last element of the path
	Dir  bool
	Size int64 // bytes; 0 for directories
}

// FS is a file system. It is safe for concurrent use.
type FS interface {
	// Create makes a new file for reading and writing, mode 0640; one that
	// exists is fs.ErrExist.
	Create(name string) (File, error)
	// Open opens a file for reading only. A directory is EISDIR.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing.
	OpenRW(name string) (File, error)
	// Remove deletes a file or an empty directory. Open files stay readable.
	Remove(name string) error
	// Rename moves a file or directory, replacing a file of the new name
	// atomically (D3). A directory of the new name is fs.ErrExist.
	Rename(from, to string) error
	// MkdirAll makes the directory and its parents, mode 0750; one that exists
	// is no error. It syncs nothing: see MakeDirs.
	MkdirAll(dir string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(dir string) ([]DirEntry, error)
	// Stat describes one name.
	Stat(name string) (DirEntry, error)
	// SyncDir makes the names in dir durable (D2).
	SyncDir(dir string) error
	// Space is how many bytes an ordinary user may still write to the file
	// system of dir, and how many it holds in all.
	Space(dir string) (free, total int64, err error)
}

// MakeDirs makes dir and the parents that are missing, and makes their names
// durable (D2).
func MakeDirs(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		_, err := fsys.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, d)
		if filepath.Dir(d) == d {
			break
		}
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := fsys.SyncDir(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}
