package vfs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

func (f *osFile) Sync() error {
	return f.control("fdatasync", func(fd int) error {
		return ignoreEINTR(func() error { return unix.Fdatasync(fd) })
	})
}

func (f *osFile) DropCache() error {
	return f.control("fadvise", func(fd int) error {
		return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	})
}

func (osFS) SyncDir(dir string) error {
	fd := -1
	err := ignoreEINTR(func() (err error) {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return &fs.PathError{Op: "open directory", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := ignoreEINTR(func() error { return unix.Fsync(fd) }); err != nil {
		return &fs.PathError{Op: "fsync directory", Path: dir, Err: err}
	}
	return nil
}

func (osFS) Space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := ignoreEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// Block counts are in units of Frsize where the kernel sets it.
	unit := int64(st.Frsize)
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return int64(st.Bavail) * unit, int64(st.Blocks) * unit, nil
}

// ignoreEINTR repeats a call that a signal interrupted before it did its work.
// It repeats nothing else: a failed sync is never tried again (D4).
func ignoreEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
