package app

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// cgroupMemory are the files that hold the memory limit of this process's
// container, of cgroups v2 and v1.
var cgroupMemory = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// limitMemory tells the garbage collector the container's limit, so that it
// works harder rather than being killed. GOMEMLIMIT wins.
func limitMemory(logger *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, name := range cgroupMemory {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if limit := memoryLimit(string(b)); limit > 0 {
			debug.SetMemoryLimit(limit)
			logger.Debug("memory limit taken from the container", "bytes", limit)
		}
		return
	}
}

// memoryLimit is nine tenths of a cgroup's limit; 0: there is none. (Version
// 1 writes a huge number for none.)
func memoryLimit(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/4 {
		return 0
	}
	return n / 10 * 9
}
