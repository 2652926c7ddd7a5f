package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// sendGarbage opens a connection, sends random bytes and demands that the
// server closes it or stays silent, not that it hangs the dial.
func sendGarbage(t *testing.T, addr string, rng *rand.Rand) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatalf("%s no longer answers: %v", addr, err)
	}
	defer c.Close()
	b := make([]byte, 1+rng.IntN(600))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	c.Write(b)
	io.Copy(io.Discard, c)
}
