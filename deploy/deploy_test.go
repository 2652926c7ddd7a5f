// Package deploy holds what gateways and core nodes are set up with. Its tests
// hold the files to the contract: ports, variables, commands, hardening.
package deploy

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"edgehub/internal/config"

	"go.yaml.in/yaml/v3"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// strict decodes YAML and refuses keys that out has not.
func strict(t *testing.T, name string, out any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(read(t, name)))
	d.KnownFields(true)
	if err := d.Decode(out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// compose is the part of Compose 2.4 that balena supports and we use.
type compose struct {
	Version  string
	Services map[string]service
	Volumes  map[string]struct{}
}

type service struct {
	Build struct {
		Context, Dockerfile string
	}
	Command     []string
	NetworkMode string `yaml:"network_mode"`
	Restart     string
	StopGrace   string `yaml:"stop_grace_period"`
	Volumes     []string
	Tmpfs       []string
	DependsOn   []string `yaml:"depends_on"`
	Environment map[string]string
}

func TestBalenaCompose(t *testing.T) {
	var c compose
	strict(t, "balena/docker-compose.yml", &c)
	if c.Version != "2.4" {
		t.Errorf("version %q, balena supports 2.4", c.Version)
	}
	if len(c.Services) != 2 {
		t.Errorf("%d services, want hub and uplink", len(c.Services))
	}
	for _, name := range []string{"hub", "uplink"} {
		s, ok := c.Services[name]
		if !ok {
			t.Fatalf("no service %s", name)
		}
		if s.NetworkMode != "host" {
			t.Errorf("%s: network_mode %q: hub and uplink meet on the host's loopback", name, s.NetworkMode)
		}
		if s.Restart != "always" {
			t.Errorf("%s: restart %q", name, s.Restart)
		}
		if s.StopGrace != "25s" {
			t.Errorf("%s: stop_grace_period %q, stopping takes up to 20 s", name, s.StopGrace)
		}
		if s.Build.Context != "." || s.Build.Dockerfile != "Dockerfile.template" {
			t.Errorf("%s: build %+v", name, s.Build)
		}
	}
	hub := c.Services["hub"]
	if !slices.Equal(hub.Volumes, []string{"hub-data:/var/lib/hub"}) {
		t.Errorf("hub: volumes %v", hub.Volumes)
	}
	if _, ok := c.Volumes["hub-data"]; !ok {
		t.Errorf("volume hub-data is not declared: %v", c.Volumes)
	}
	if len(c.Services["uplink"].Volumes) != 0 {
		t.Error("the uplink keeps nothing on disk")
	}

	// The variables make a configuration that both programs accept, and it is
	// the contract's.
	cfg, err := config.Load("", environ(hub), nil)
	if err != nil {
		t.Fatalf("hub's variables: %v", err)
	}
	for what, got := range map[string][2]string{
		"data":         {cfg.Data, "/var/lib/hub"},
		"mqtt.listen":  {cfg.MQTT.Listen, "127.0.0.1:1883"},
		"kafka.listen": {cfg.Kafka.Listen, "127.0.0.1:9092"},
		"http.listen":  {cfg.HTTP.Listen, "127.0.0.1:8080"},
	} {
		if got[0] != got[1] {
			t.Errorf("hub: %s is %q, want %q", what, got[0], got[1])
		}
	}
	// As the README has users set it.
	up := append(environ(c.Services["uplink"]), `UPLINK_CORE=["tls://core-1.example.com:4222","tls://core-2.example.com:4222"]`,
		"UPLINK_CREDENTIALS=/run/uplink/site.creds")
	ucfg, err := config.LoadUplink("", up, nil)
	if err != nil {
		t.Fatalf("uplink's variables: %v", err)
	}
	if ucfg.Hub != cfg.Kafka.Listen {
		t.Errorf("the uplink looks for the hub at %s, it is at %s", ucfg.Hub, cfg.Kafka.Listen)
	}
	if ucfg.HTTP.Listen != "127.0.0.1:8090" || len(ucfg.Core) != 2 || len(ucfg.Topics) != 1 {
		t.Errorf("uplink: %+v", ucfg)
	}
	if _, err := config.LoadUplink("", append(up, "UPLINK_TOPICS=[{name: alarms, priority: 10}, {name: telemetry, priority: 1}]"), nil); err != nil {
		t.Errorf("README's topics: %v", err)
	}
	open := append(environ(hub), "HUB_NAME=press-line-7", "HUB_MQTT_LISTEN=:1883", "HUB_MQTT_ALLOW_ANONYMOUS=true",
		"HUB_LOG_COMMIT_INTERVAL=100ms", "HUB_TOPICS_TELEMETRY_PARTITIONS=4")
	if _, err := config.Load("", open, nil); err != nil {
		t.Errorf("README's variables: %v", err)
	}
}

func environ(s service) []string {
	var env []string
	for k, v := range s.Environment {
		env = append(env, k+"="+v)
	}
	return env
}

// TestBalenaImage: the Dockerfile builds the commands that the services run,
// for each architecture that balena has and we build.
func TestBalenaImage(t *testing.T) {
	docker := string(read(t, "balena/Dockerfile.template"))
	for _, want := range []string{
		"rpi)     export GOARCH=arm GOARM=6", "armv7hf) export GOARCH=arm GOARM=7", "aarch64) export GOARCH=arm64", "amd64)   export GOARCH=amd64",
		"%%BALENA_ARCH%%", "CGO_ENABLED=0", "./cmd/hub ./cmd/uplink", "/usr/bin/start-uplink", "FROM scratch",
	} {
		if !strings.Contains(docker, want) {
			t.Errorf("Dockerfile.template has no %q", want)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^COPY ([a-z][^-\n]*) \./`).FindAllStringSubmatch(docker, -1) {
		for _, src := range strings.Fields(m[1]) {
			if _, err := os.Stat(filepath.Join("..", src)); err != nil {
				t.Errorf("Dockerfile.template copies %s: %v", src, err)
			}
		}
	}
	mod := string(read(t, "../go.mod"))
	if v := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(mod); v == nil || !strings.Contains(docker, "golang:"+v[1]+"-") {
		t.Errorf("Dockerfile.template builds with another Go than go.mod's %v", v)
	}

	var meta struct {
		Name, Type, Description, Version string
		Assets                           map[string]map[string]string
		Data                             struct {
			Variables []map[string]string `yaml:"applicationEnvironmentVariables"`
			Default   string              `yaml:"defaultDeviceType"`
			Supported []string            `yaml:"supportedDeviceTypes"`
		}
	}
	strict(t, "balena/balena.yml", &meta)
	if meta.Name != "edgehub" || meta.Type != "sw.application" || !slices.Contains(meta.Data.Supported, meta.Data.Default) {
		t.Errorf("balena.yml: %+v", meta)
	}
}

// TestStartUplink runs the script with a stand-in for the uplink.
func TestStartUplink(t *testing.T) {
	dir := t.TempDir()
	fake := "#!/bin/sh\necho \"args: $*\"\necho \"path: ${UPLINK_CREDENTIALS:-none}\"\n[ -z \"${UPLINK_CREDENTIALS:-}\" ] || cat \"$UPLINK_CREDENTIALS\"\necho \"left: ${SITE_CREDENTIALS:-none}\"\n"
	if err := os.WriteFile(filepath.Join(dir, "uplink"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "start-uplink")
	// Elsewhere than in the container /run is not ours.
	if err := os.WriteFile(script, bytes.ReplaceAll(read(t, "balena/start-uplink.sh"), []byte("/run/uplink"), []byte(dir+"/run")), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  []string
		want string
	}{
		"without": {nil, "args: run\npath: none\nleft: none\n"},
		"with":    {[]string{"SITE_CREDENTIALS=c2VjcmV0Cg=="}, "args: run\npath: " + dir + "/run/site.creds\nsecret\nleft: none\n"},
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", script)
		cmd.Env = append(tt.env, "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != tt.want {
			t.Errorf("%s: %v\ngot  %q\nwant %q", name, err, out, tt.want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "run/site.creds")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("credentials: %v, %v", st, err)
	}
}

// unit is a systemd unit: section → key → values.
type unit map[string]map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	section := ""
	for sc := bufio.NewScanner(bytes.NewReader(read(t, name))); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			u[section] = map[string][]string{}
		default:
			k, v, ok := strings.Cut(line, "=")
			if !ok || section == "" {
				t.Fatalf("%s: %q is no setting", name, line)
			}
			u[section][k] = append(u[section][k], v)
		}
	}
	return u
}

func (u unit) get(section, key string) string { return strings.Join(u[section][key], " ") }

func TestUnits(t *testing.T) {
	for _, name := range []string{"hub", "uplink"} {
		u := readUnit(t, "systemd/"+name+".service")
		for _, want := range [][3]string{
			{"Unit", "StartLimitIntervalSec", "0"},
			{"Service", "Restart", "always"},
			{"Service", "NoNewPrivileges", "yes"},
			{"Service", "ProtectSystem", "strict"},
			{"Service", "ProtectHome", "yes"},
			{"Service", "PrivateTmp", "yes"},
			{"Service", "CapabilityBoundingSet", ""},
			{"Service", "MemoryDenyWriteExecute", "yes"},
			{"Service", "DynamicUser", "yes"},
			{"Service", "TimeoutStopSec", "25"},
			{"Install", "WantedBy", "multi-user.target"},
		} {
			if got, ok := u[want[0]][want[1]]; !ok || strings.Join(got, " ") != want[2] {
				t.Errorf("%s: %s is %q, want %q", name, want[1], got, want[2])
			}
		}
		if !strings.Contains(u.get("Service", "Environment"), "GOMEMLIMIT=") {
			t.Errorf("%s: no GOMEMLIMIT", name)
		}
		if strings.Contains(u.get("Unit", "After")+u.get("Unit", "Requires")+u.get("Unit", "Wants"), "network") {
			t.Errorf("%s waits for the network", name)
		}
		if want := "/usr/bin/" + name + " run --config /etc/hub/" + name + ".yaml"; u.get("Service", "ExecStart") != want {
			t.Errorf("%s: ExecStart %q, want %q", name, u.get("Service", "ExecStart"), want)
		}
	}
	hub := readUnit(t, "systemd/hub.service")
	if hub.get("Service", "StateDirectory") != "hub" || !strings.Contains(hub.get("Service", "Environment"), "HUB_DATA=/var/lib/hub") {
		t.Error("hub: its data is not in its StateDirectory")
	}
	// The hub asks the kernel whether the clock is synchronised.
	if _, ok := hub["Service"]["ProtectClock"]; ok || !strings.Contains(hub.get("Service", "SystemCallFilter"), "adjtimex") {
		t.Error("hub: the sandbox forbids adjtimex")
	}
	if up := readUnit(t, "systemd/uplink.service"); up.get("Service", "StateDirectory") != "" {
		t.Error("the uplink keeps nothing on disk")
	}
}

// TestCommandsExist builds the programs and asks for the help of each command
// that a file here names.
func TestCommandsExist(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "../cmd/hub", "../cmd/uplink")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line, flags := range map[string][]string{
		"hub run": {"--config", "--set"}, "uplink run": {"--config", "--set"}, "hub status": nil, "uplink status": nil, "hub enroll": nil,
		"hub config check": nil, "hub topics list": nil, "hub consume": {"--follow"},
	} {
		args := strings.Fields(line)
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, args[0]), append(args[1:], "--help")...).CombinedOutput()
		// A program answers `--help` of an unknown command with its own.
		if err != nil || !strings.Contains(string(out), "  "+line) && !strings.Contains(string(out), "\n"+line) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		for _, f := range flags {
			if !strings.Contains(string(out), f) {
				t.Errorf("%s has no %s", line, f)
			}
		}
	}
}
