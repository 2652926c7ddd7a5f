package app

import "golang.org/x/sys/unix"

// kernelSynced asks whether the kernel's clock is synchronised; known is false
// where it does not say.
func kernelSynced() (ok, known bool) {
	const unsynchronised = 0x40 // STA_UNSYNC, adjtimex(2)
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, false
	}
	return t.Status&unsynchronised == 0, true
}
