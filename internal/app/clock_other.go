//go:build !linux

package app

func kernelSynced() (ok, known bool) { return false, false }
