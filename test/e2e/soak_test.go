//go:build soak

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rounds is SOAK_ROUNDS, default 6.
func rounds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("SOAK_ROUNDS")
	if s == "" {
		return 6
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("SOAK_ROUNDS=%q is not a number of rounds", s)
	}
	return n
}

// loopMount is an ext4 of the given size in a file, mounted; it needs root.
func loopMount(t *testing.T, mb int) string {
	t.Helper()
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"truncate", "-s", fmt.Sprintf("%dM", mb), img},
		{"mkfs.ext4", "-q", "-F", img},
		{"mount", "-o", "loop", img, mnt},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Logf("umount: %v %s", err, out)
		}
	})
	return mnt
}

// ledger is what the publishers of a soak know.
type ledger struct {
	mu    sync.Mutex
	acked map[string]bool
	sent  map[string]bool
}

// load publishes from several clients until the hub goes away or stop closes.
func (l *ledger) load(t *testing.T, h *hub, round, clients, size int, stop <-chan struct{}) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	pad := strings.Repeat("x", size)
	for c := range clients {
		p, err := dialMQTT(h.mqtt, fmt.Sprintf("soak-%d", c), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var reader sync.WaitGroup
		reader.Go(func() { p.acks(1 << 30) })
		wg.Go(func() {
			defer func() {
				p.conn.Close()
				reader.Wait()
				for _, n := range p.ackedNumbers() {
					l.mu.Lock()
					l.acked[fmt.Sprintf("%d-%d-%d", round, c, n)] = true
					l.mu.Unlock()
				}
			}()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d-%d", round, c, i)
				l.mu.Lock()
				l.sent[id] = true
				l.mu.Unlock()
				if p.publish(fmt.Sprintf("plant/d%d", c), i, id+" "+pad) != nil {
					return
				}
			}
		})
	}
	return &wg
}

func (l *ledger) check(t *testing.T, ls []line, round int) {
	t.Helper()
	checkDense(t, ls)
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]int{}
	for _, r := range ls {
		id, _, _ := strings.Cut(*r.Value, " ")
		seen[id]++
		if !l.sent[id] {
			t.Fatalf("round %d: %q was never sent", round, id)
		}
	}
	for id := range l.acked {
		if seen[id] != 1 {
			t.Fatalf("round %d: %s was acknowledged and is there %d times", round, id, seen[id])
		}
	}
}

// kill -9 in the middle of load, over and over, on a file system of its own:
// P1 and P2 hold after each.
func TestSoakKill(t *testing.T) {
	mnt := loopMount(t, 1500)
	h := edgeOn(t, filepath.Join(mnt, "hub"), "topics: {mqtt: {partitions: 3, retention: {bytes: 900MB}}}\n")
	l := &ledger{acked: map[string]bool{}, sent: map[string]bool{}}
	n := rounds(t)
	for round := range n {
		wg := l.load(t, h, round, 4, 20, nil)
		time.Sleep(time.Duration(100+rand.IntN(600)) * time.Millisecond)
		h.kill()
		wg.Wait()
		h.restart()
		h.ready(30 * time.Second)
		if round%5 == 4 || round == n-1 {
			l.check(t, consumeAll(t, h.kafka, "mqtt"), round)
		}
	}
	t.Logf("%d rounds, %d acknowledged of %d sent", n, len(l.acked), len(l.sent))
	h.term()
	run(t, "", "hub", "log", "verify", h.data)
}

// checkEvicted is check for a topic of one partition whose oldest offsets went
// when the disk was full: the ledger names exactly those below the first one
// that is there (P4).
func (l *ledger) checkEvicted(t *testing.T, h *hub, round int) {
	t.Helper()
	ls := consumeAll(t, h.kafka, "mqtt")
	var start int64
	if len(ls) > 0 {
		start = ls[0].Offset
	}
	next := start
	seen := map[string]bool{}
	for _, r := range ls {
		id, _, _ := strings.Cut(*r.Value, " ")
		if r.Offset != next || seen[id] || !l.has(id) {
			t.Fatalf("round %d: offset %d (%q) where %d was next, twice or never sent", round, r.Offset, id, next)
		}
		seen[id] = true
		next++
	}
	// More may go between the two reads: the ledger may be further.
	var evicted int64
	named := start == 0
	for _, r := range consumeAll(t, h.kafka, "__ledger") {
		var e struct {
			Topic    string
			From, To int64
			Reason   string
		}
		if err := json.Unmarshal([]byte(*r.Value), &e); err != nil {
			t.Fatalf("ledger entry %s: %v", *r.Value, err)
		}
		if e.Topic != "mqtt" || e.Reason != "disk_full" || e.From != evicted || e.To <= e.From {
			t.Errorf("round %d: ledger entry %s where offset %d was next", round, *r.Value, evicted)
		}
		evicted = e.To
		named = named || e.To == start
	}
	if !named {
		t.Errorf("round %d: the ledger names %d offsets, %d are gone", round, evicted, start)
	}
	missing := int64(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if !seen[id] {
			missing++
		}
	}
	if missing > start {
		t.Errorf("round %d: %d acknowledged are not there, %d were evicted", round, missing, start)
	}
}

func (l *ledger) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[id]
}

// A disk that fills up costs no acknowledged record that the ledger does not name; the hub starts on it
// after kill -9, serves what it has, and takes records again by itself within
// 30 s of space coming back (P8).
func TestSoakDiskFull(t *testing.T) {
	for _, mb := range []int{40, 300} {
		t.Run(fmt.Sprintf("%d MB", mb), func(t *testing.T) {
			mnt := loopMount(t, mb)
			h := edgeOn(t, filepath.Join(mnt, "hub"), "topics: {mqtt: {}}\n")
			l := &ledger{acked: map[string]bool{}, sent: map[string]bool{}}
			ballast := filepath.Join(mnt, "ballast")
			for round := range max(2, rounds(t)/3) {
				stop := make(chan struct{})
				wg := l.load(t, h, round, 2, 400, stop)
				time.Sleep(300 * time.Millisecond)
				// dd ends with an error when the disk is full, which is its purpose here.
				exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=1M").Run()
				time.Sleep(2 * time.Second)
				h.kill()
				close(stop)
				wg.Wait()
				h.restart()
				h.ready(30 * time.Second)
				l.checkEvicted(t, h, round)

				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
				id := fmt.Sprintf("%d-back-0", round)
				l.mu.Lock()
				l.sent[id] = true
				l.mu.Unlock()
				for until := time.Now().Add(30 * time.Second); !l.acked[id]; {
					if time.Now().After(until) {
						t.Fatal("nothing is acknowledged 30 s after space came back")
					}
					p, err := dialMQTT(h.mqtt, "back", 5*time.Second)
					if err != nil {
						continue
					}
					p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					if p.publish("plant/back", 0, id) == nil {
						n, _ := p.acks(1)
						l.acked[id] = n == 1
					}
					p.conn.Close()
				}
			}
			t.Logf("%d acknowledged of %d sent", len(l.acked), len(l.sent))
			h.term()
		})
	}
}
