package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The hub of every ARM, under qemu-user: publish, kill, restart, consume.
func TestArmUnderQemu(t *testing.T) {
	for _, c := range []struct {
		arch, arm string
		qemu      []string
	}{
		{"arm", "6", []string{"/usr/bin/qemu-arm-static", "-cpu", "arm1176"}},
		{"arm", "7", []string{"/usr/bin/qemu-arm-static"}},
		{"arm64", "", []string{"/usr/bin/qemu-aarch64-static"}},
	} {
		t.Run(c.arch+c.arm, func(t *testing.T) {
			exe := filepath.Join(t.TempDir(), "hub")
			build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", exe, "edgehub/cmd/hub")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+c.arch, "GOARM="+c.arm)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			h := &hub{data: t.TempDir(),
				mqtt:  fmt.Sprintf("127.0.0.1:%d", freePort(t)),
				kafka: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
				http:  fmt.Sprintf("127.0.0.1:%d", freePort(t))}
			args := append(c.qemu[1:], exe, "run", "--set", "data="+h.data, "--set", "name=arm",
				"--set", "mqtt.listen="+h.mqtt, "--set", "kafka.listen="+h.kafka, "--set", "http.listen="+h.http)
			h.process = start(t, c.qemu[0], args...)
			h.ready(90 * time.Second)
			payloads := make([]string, 200)
			for i := range payloads {
				payloads[i] = fmt.Sprint(i)
			}
			publishAll(t, h.mqtt, "arm", "plant/arm", payloads)
			host, port := hostPort(h.mqtt)
			run(t, "", "mosquitto_pub", "-h", host, "-p", port, "-t", "plant/arm", "-q", "2", "-m", "200", "-V", "mqttv5")
			h.kill()
			h.restart()
			h.ready(90 * time.Second)
			out := run(t, "", "kcat", "-b", h.kafka, "-C", "-t", "mqtt", "-o", "beginning", "-e", "-q")
			if got := strings.Fields(out); len(got) != 201 || got[0] != "0" || got[200] != "200" {
				t.Errorf("%d records after the restart, want 201", len(got))
			}
			h.term()
		})
	}
}
