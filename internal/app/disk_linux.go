package app

import "golang.org/x/sys/unix"

// diskFree is how many bytes may still be written to the disk of dir.
func diskFree(dir string) (free int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
