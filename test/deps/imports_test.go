package deps

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// direction says what each package of ours may import of ours: cmd → app →
// {bridge, process, kafka, core, web} → log → {record, vfs}, with payload,
// route, forward, agg and expr as leaves. "x/..." is x and all below it.
// Tests may import more; support packages for tests (logtest beside log) may
// import what they stand beside.
var direction = map[string][]string{
	"pkg/log/record":   nil,
	"pkg/log/vfs":      nil,
	"pkg/payload":      nil,
	"internal/expr":    nil,
	"internal/samples": nil,
	"pkg/process/agg":  {"pkg/payload"},
	"pkg/route":        {"pkg/log/record", "pkg/payload"},
	"pkg/forward":      {"pkg/log/record"},
	"pkg/auth":         nil,

	"pkg/log": {"pkg/log/record", "pkg/log/vfs"},

	"pkg/bridge":        {"pkg/log", "pkg/log/record", "pkg/route", "pkg/payload"},
	"pkg/bridge/mqtt":   {"pkg/bridge", "pkg/log", "pkg/log/record", "pkg/route", "pkg/payload"},
	"pkg/bridge/uplink": {"pkg/forward", "pkg/log/record"},
	"pkg/process":       {"pkg/log", "pkg/log/record", "pkg/log/vfs", "pkg/payload", "pkg/process/agg", "internal/expr"},
	"pkg/kafka":         {"pkg/log", "pkg/log/record"},
	"pkg/core":          {"pkg/forward", "pkg/log/record"},

	"internal/web":       {"pkg/log", "pkg/log/record"},
	"internal/obs":       nil,
	"internal/obs/parts": {"internal/obs", "pkg/..."},
	"internal/config":    {"internal/expr", "pkg/auth", "pkg/forward", "pkg/log/record", "pkg/payload", "pkg/route"},
	"internal/app":       {"internal/...", "pkg/..."},
	"internal/app/demo":  {"internal/...", "pkg/..."},

	"cmd/hub":    {"internal/...", "pkg/..."},
	"cmd/uplink": {"internal/config", "internal/obs", "pkg/bridge/uplink", "pkg/forward", "pkg/log/record"},

	"bench/qos1":    nil,
	"deploy":        nil,
	"test/deps":     nil,
	"test/e2e":      {"internal/...", "pkg/..."},
	"test/firmware": nil,
}

// onlyFor are packages that few may import although their folder is allowed.
var onlyFor = map[string][]string{
	"internal/app":      {"cmd/hub", "internal/app/demo"},
	"internal/app/demo": {"cmd/hub"},
}

// importers says where a module may be imported: by code that ships, and by
// tests besides.
type importers struct {
	module string // or a package of it; the longest match counts
	code   []string
	tests  []string
}

var anywhere = []string{"..."}

var third = []importers{
	// The single importers: each library has one door.
	{module: "github.com/mochi-mqtt/server/v2", code: []string{"pkg/bridge/mqtt"}},
	{module: "github.com/eclipse/paho.mqtt.golang", code: []string{"pkg/bridge/mqtt"}, tests: []string{"internal/app", "test/..."}},
	{module: "github.com/eclipse/paho.golang", code: []string{"pkg/bridge/mqtt"}, tests: []string{"internal/app", "test/..."}},
	{module: "github.com/gorilla/websocket", code: []string{"pkg/bridge/mqtt"}},
	{module: "github.com/nats-io/nats-server/v2", code: []string{"pkg/core"}, tests: []string{"test/..."}},
	{module: "github.com/prometheus/client_golang", code: []string{"internal/obs"}, tests: []string{"internal/obs/..."}},
	{module: "go.etcd.io/bbolt", code: []string{"pkg/log"}},
	{module: "go.yaml.in/yaml/v3", code: []string{"internal/config"}, tests: anywhere},
	{module: "github.com/valyala/fastjson", code: []string{"pkg/payload"}},
	{module: "github.com/DataDog/sketches-go", code: []string{"pkg/process/agg"}},
	{module: "github.com/pierrec/lz4/v4", code: []string{"pkg/log/record"}},

	{module: "github.com/klauspost/compress", code: []string{"pkg/log/record"}, tests: []string{"pkg/log/..."}},
	{module: "github.com/fxamacker/cbor/v2", code: []string{"pkg/payload", "pkg/forward", "pkg/core"}, tests: anywhere},
	{module: "github.com/nats-io/nats.go", code: []string{"pkg/core", "pkg/bridge/uplink", "cmd/..."}, tests: anywhere},
	{module: "github.com/nats-io/nkeys", code: []string{"pkg/core", "pkg/bridge/uplink", "internal/app/...", "cmd/..."}, tests: anywhere},
	{module: "github.com/spf13/cobra", code: []string{"cmd/..."}},
	{module: "golang.org/x/crypto", code: []string{"pkg/auth"}},
	{module: "golang.org/x/sys", code: []string{"pkg/log", "pkg/log/vfs", "pkg/bridge/uplink", "internal/app/...", "cmd/..."}, tests: anywhere},

	// Kafka: the server speaks kmsg and shares no code with the clients that
	// test it.
	{module: "github.com/twmb/franz-go/pkg/kmsg", code: []string{"pkg/kafka", "pkg/bridge/uplink", "internal/app/...", "cmd/hub"}, tests: anywhere},
	{module: "github.com/twmb/franz-go/pkg/kerr", code: []string{"pkg/kafka", "pkg/bridge/uplink", "internal/app/...", "cmd/hub"}, tests: anywhere},
	{module: "github.com/twmb/franz-go/pkg/kadm", code: []string{"internal/app/...", "cmd/hub"}, tests: anywhere},
	{module: "github.com/twmb/franz-go", code: []string{"pkg/bridge/uplink", "internal/app/...", "cmd/hub"}, tests: anywhere},

	{module: "github.com/google/go-cmp", tests: anywhere},
	{module: "go.uber.org/goleak", tests: anywhere},
	{module: "github.com/rogpeppe/go-internal", tests: anywhere},
}

// match says that name is among patterns.
func match(patterns []string, name string) bool {
	for _, p := range patterns {
		dir, below := strings.CutSuffix(p, "...")
		dir = strings.TrimSuffix(dir, "/")
		if name == p || below && (dir == "" || name == dir || strings.HasPrefix(name, dir+"/")) {
			return true
		}
	}
	return false
}

// support says that a package only helps tests: pkg/kafka/kafkatest. It stands
// beside the package that it helps to test.
func support(name string) (beside string, ok bool) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	return dir, base == path.Base(dir)+"test"
}

// mayImport answers for two packages of ours.
func mayImport(from, to string) (ok, known bool) {
	if beside, is := support(from); is {
		if to == beside {
			return true, true
		}
		from = beside
	} else if _, is := support(to); is {
		return false, true
	}
	allowed, known := direction[from]
	if few, is := onlyFor[to]; is && !match(few, from) {
		return false, known
	}
	return match(allowed, to), known
}

// ruleOf finds the rule of an imported package of others.
func ruleOf(imported string) *importers {
	var best *importers
	for i := range third {
		r := &third[i]
		if (imported == r.module || strings.HasPrefix(imported, r.module+"/")) && (best == nil || len(r.module) > len(best.module)) {
			best = r
		}
	}
	return best
}

// standard says that an import path is of the standard library.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

func TestImports(t *testing.T) {
	for _, arch := range platforms {
		for _, p := range list(t, arch, "-e", "./...") {
			name, _ := own(p.ImportPath)
			if beside, ok := support(name); ok {
				name = beside // its third-party imports count as tests of it
				p.TestImports, p.Imports = append(p.TestImports, p.Imports...), slices.DeleteFunc(slices.Clone(p.Imports), func(i string) bool {
					_, ours := own(i)
					return !ours
				})
			}
			if _, known := direction[name]; !known {
				t.Errorf("%s is new: say in test/deps/imports_test.go what it may import", name)
				continue
			}
			for _, imported := range p.Imports {
				if to, ours := own(imported); ours {
					from, _ := own(p.ImportPath)
					if ok, _ := mayImport(from, to); !ok {
						t.Errorf("%s imports %s: against the direction of the architecture", from, to)
					}
				} else if !standard(imported) {
					if r := ruleOf(imported); r == nil {
						t.Errorf("%s imports %s: no rule allows that module", name, imported)
					} else if !match(r.code, name) {
						t.Errorf("%s imports %s: only %v may", name, imported, r.code)
					}
				} else if slices.Contains([]string{"C", "unsafe", "testing"}, imported) {
					t.Errorf("%s imports %q: not in code that ships", name, imported)
				}
			}
			for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
				if _, ours := own(imported); ours || standard(imported) {
					continue
				}
				if r := ruleOf(imported); r == nil {
					t.Errorf("tests of %s import %s: no rule allows that module", name, imported)
				} else if !match(r.code, name) && !match(r.tests, name) {
					t.Errorf("tests of %s import %s: only %v may, and tests of %v", name, imported, r.code, r.tests)
				}
			}
		}
	}
}

// unlinked is what may not be in a binary, whoever brings it along.
var unlinked = map[string][]string{
	"cmd/uplink": {
		"github.com/nats-io/nats-server/v2", "github.com/mochi-mqtt/server/v2", "github.com/eclipse/paho.mqtt.golang",
		"github.com/eclipse/paho.golang", "go.etcd.io/bbolt", "github.com/twmb/franz-go/pkg/kadm",
		module + "/pkg/log/vfs", module + "/pkg/core", module + "/pkg/kafka", module + "/pkg/process", module + "/internal/app",
		"testing", "github.com/google/go-cmp", "go.uber.org/goleak", "github.com/rogpeppe/go-internal",
	},
	"cmd/hub": {"testing", "github.com/google/go-cmp", "go.uber.org/goleak", "github.com/rogpeppe/go-internal"},
}

func TestLinked(t *testing.T) {
	for main, forbidden := range unlinked {
		for _, p := range list(t, "arm64", "./"+main) {
			if len(p.Deps) < 10 {
				t.Errorf("%s links %v: is it empty?", main, p.Deps)
			}
			for _, dep := range p.Deps {
				for _, f := range forbidden {
					if dep == f || strings.HasPrefix(dep, f+"/") {
						t.Errorf("%s links %s", main, dep)
					}
				}
			}
		}
	}
}

// TestRules keeps the tables themselves true.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		ok       bool
	}{
		{"pkg/kafka", "pkg/log", true},
		{"pkg/kafka", "pkg/core", false},
		{"pkg/process", "pkg/bridge", false},
		{"pkg/log/record", "pkg/log", false},
		{"pkg/kafka", "pkg/kafka/kafkatest", false},
		{"pkg/kafka/kafkatest", "pkg/kafka", true},
		{"pkg/kafka/kafkatest", "pkg/log", true},
		{"pkg/kafka/kafkatest", "pkg/core", false},
		{"cmd/hub", "internal/app", true},
		{"internal/web", "internal/app", false},
		{"internal/obs/parts", "pkg/core", true},
		{"test/e2e", "internal/app", false},
	} {
		if ok, _ := mayImport(tt.from, tt.to); ok != tt.ok {
			t.Errorf("%s → %s: %v, want %v", tt.from, tt.to, ok, tt.ok)
		}
	}
	if r := ruleOf("github.com/twmb/franz-go/pkg/kmsg"); r == nil || r.module != "github.com/twmb/franz-go/pkg/kmsg" {
		t.Errorf("rule of kmsg: %+v", r)
	}
	if r := ruleOf("github.com/twmb/franz-go/pkg/kgo"); r == nil || r.module != "github.com/twmb/franz-go" {
		t.Errorf("rule of kgo: %+v", r)
	}
}
