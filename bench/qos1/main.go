// Command qos1 measures how many QoS 1 messages a second the hub and
// mosquitto acknowledge, side by side: rounds alternate, the load generator is
// the same. The hub's PUBACK means on disk (fdatasync); mosquitto's does not.
//
//	go run ./bench/qos1 -conns 100 -window 100 -size 100
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	conns := flag.Int("conns", 100, "connections")
	window := flag.Int("window", 100, "unacknowledged messages on each connection, at most")
	size := flag.Int("size", 100, "payload bytes, 40 to 16000")
	d := flag.Duration("time", 5*time.Second, "length of a round")
	rounds := flag.Int("rounds", 3, "rounds of each broker")
	dir := flag.String("dir", "", "where the brokers keep their data (default: a temporary directory)")
	flag.Parse()
	if err := run(*conns, *window, *size, *rounds, *d, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "qos1:", err)
		os.Exit(1)
	}
}

// broker is one side of the comparison.
type broker struct {
	name, version, addr string
	start               func() *exec.Cmd
	rates               []float64 // messages a second
	cpu                 []float64 // µs of the broker a message
	idle, peak          int64     // kB resident: before the first round, at most
}

func run(conns, window, size, rounds int, d time.Duration, base string) error {
	work, err := os.MkdirTemp(base, "qos1")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	hub := filepath.Join(work, "hub")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", hub, "edgehub/cmd/hub")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build hub: %w\n%s", err, out)
	}
	mosquitto, err := exec.LookPath("mosquitto")
	if err != nil {
		mosquitto = "/usr/sbin/mosquitto"
	}
	conf := filepath.Join(work, "mosquitto.conf")
	brokers := []*broker{
		{name: "hub", version: "this tree, log on disk, fdatasync before PUBACK", addr: freeAddr()},
		{name: "mosquitto", version: version(mosquitto), addr: freeAddr()},
	}
	host, port, _ := net.SplitHostPort(brokers[1].addr)
	err = os.WriteFile(conf, []byte(fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_inflight_messages 0\nmax_queued_messages 0\nuser root\n",
		port, host, work)), 0o600)
	if err != nil {
		return err
	}
	kafka, http := freeAddr(), freeAddr()
	brokers[0].start = func() *exec.Cmd {
		return exec.Command(hub, "run", "--set", "data="+filepath.Join(work, "data"), "--set", "name=bench", "--set", "mqtt.listen="+brokers[0].addr,
			"--set", "kafka.listen="+kafka, "--set", "http.listen="+http, "--set", "log.commit_interval=0")
	}
	brokers[1].start = func() *exec.Cmd { return exec.Command(mosquitto, "-c", conf) }
	for range rounds {
		for _, b := range brokers {
			if err := b.round(conns, window, size, d); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	fmt.Printf("QoS 1, %d connections, window %d, %d B, %v a round, %d rounds, %d CPUs, %s, load generator on the same machine\n",
		conns, window, size, d, rounds, runtime.NumCPU(), runtime.Version())
	fmt.Printf("%-10s %12s %12s %12s %10s %10s %10s\n", "", "min msg/s", "median", "max", "µs CPU", "idle kB", "peak kB")
	for _, b := range brokers {
		slices.Sort(b.rates)
		slices.Sort(b.cpu)
		fmt.Printf("%-10s %12.0f %12.0f %12.0f %10.2f %10d %10d   %s\n", b.name, b.rates[0], b.rates[len(b.rates)/2],
			b.rates[len(b.rates)-1], b.cpu[len(b.cpu)/2], b.idle, b.peak, b.version)
	}
	fmt.Printf("hub ÷ mosquitto, medians: %.2f\n", brokers[0].rates[rounds/2]/brokers[1].rates[rounds/2])
	return nil
}

func (b *broker) round(conns, window, size int, d time.Duration) error {
	cmd := b.start()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(syscall.SIGTERM)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(until) {
			return fmt.Errorf("does not listen on %s: %w", b.addr, err)
		}
	}
	time.Sleep(2 * time.Second) // what it does at start is not measured
	if idle := status(cmd.Process.Pid, "VmRSS:"); b.idle == 0 {
		b.idle = idle
	}
	before := cpuTime(cmd.Process.Pid)
	n, err := load(b.addr, conns, window, size, d)
	if err != nil {
		return err
	}
	b.rates = append(b.rates, float64(n)/d.Seconds())
	b.cpu = append(b.cpu, float64((cpuTime(cmd.Process.Pid)-before).Microseconds())/float64(n))
	b.peak = max(b.peak, status(cmd.Process.Pid, "VmHWM:"))
	return nil
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func version(mosquitto string) string {
	out, _ := exec.Command(mosquitto, "-h").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line + ", persistence true, never synced"
}

// status is a line of /proc/PID/status, in kB.
func status(pid int, field string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for s := range strings.Lines(string(b)) {
		if f := strings.Fields(s); len(f) > 1 && f[0] == field {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// cpuTime is what a process has used, user and system (proc(5), fields 14 and
// 15, in ticks of 10 ms).
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	sys, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+sys) * 10 * time.Millisecond
}
