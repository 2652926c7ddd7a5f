package log

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dirLock keeps a second hub out of a data directory. The kernel releases it
// with the process, so kill -9 leaves nothing to clean up.
type dirLock struct{ f *os.File }

// lockDir takes the lock file, or says who has it.
func lockDir(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder := make([]byte, 20)
		n, _ := f.ReadAt(holder, 0)
		return nil, fmt.Errorf("%w: %s is held by process %s: stop that hub, or use another data directory",
			ErrLocked, path, strings.TrimSpace(string(holder[:n])))
	}
	// Who holds it is for people only: the lock is what counts.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return &dirLock{f}, nil
}

// ErrLocked is Open's error for a directory that another process has open.
var ErrLocked = errors.New("data directory is in use")

func (l *dirLock) release() error {
	if l == nil || l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
