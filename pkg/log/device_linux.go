package log

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// onFlashCard says that dir is on an SD card or eMMC (mmcblk, also below
// partitions, dm-crypt and LVM as far as sysfs shows it).
func onFlashCard(dir string) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return false
	}
	dev := uint64(st.Dev)
	return flashDevice(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)), 4)
}

func flashDevice(sys string, depth int) bool {
	real, err := filepath.EvalSymlinks(sys)
	if err != nil || depth == 0 {
		return false
	}
	for _, part := range strings.Split(real, "/") {
		if strings.HasPrefix(part, "mmcblk") {
			return true
		}
	}
	below, err := os.ReadDir(filepath.Join(real, "slaves"))
	if err != nil {
		return false
	}
	for _, e := range below {
		if flashDevice(filepath.Join(real, "slaves", e.Name()), depth-1) {
			return true
		}
	}
	return false
}
