//go:build unix

package config

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file the owner that it had before. Whoever may not do so
// is the owner already, or has to do it by other means.
func keepOwner(path string, before fs.FileInfo) error {
	st, ok := before.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}
