package deps

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented are the modules in the tables of docs/dependencies.md, by the
// heading above their table.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	row := regexp.MustCompile("^\\| `([^`]+)` \\|")
	out := map[string][]string{}
	heading := ""
	for line := range strings.Lines(readFile(t, "docs/dependencies.md")) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
		}
		if m := row.FindStringSubmatch(line); m != nil {
			out[heading] = append(out[heading], m[1])
		}
	}
	return out
}

const (
	inBinaries = "In the binaries"
	inTests    = "In tests only"
	asTools    = "Tools"
	along      = "Brought along"
)

// TestDocumented: docs/dependencies.md names every module that go.mod asks
// for, and every one that ends up in a binary; none that is not there.
func TestDocumented(t *testing.T) {
	doc := documented(t)
	for _, h := range []string{inBinaries, inTests, asTools, along} {
		if len(doc[h]) == 0 {
			t.Fatalf("docs/dependencies.md has no table %q", h)
		}
	}

	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal(goTool(t, "amd64", "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Replace {
		t.Errorf("go.mod replaces %s: no forks, no vendored copies", r.Old.Path)
	}
	direct := map[string]bool{}
	for _, r := range mod.Require {
		if !r.Indirect {
			direct[r.Path] = true
		}
	}

	linked := map[string]bool{}
	for _, p := range list(t, "arm64", "-deps", "./cmd/hub", "./cmd/uplink") {
		if p.Module != nil && p.Module.Path != module {
			linked[p.Module.Path] = true
		}
	}

	compare := func(what string, want map[string]bool, got []string) {
		t.Helper()
		seen := map[string]bool{}
		for _, g := range got {
			if seen[g] {
				t.Errorf("%s: the document has %s twice", what, g)
			}
			seen[g] = true
			if !want[g] {
				t.Errorf("%s: the document has %s, which is not there", what, g)
			}
		}
		for _, w := range slices.Sorted(maps.Keys(want)) {
			if !seen[w] {
				t.Errorf("%s: %s is not in docs/dependencies.md: is it needed (go mod tidy), and why?", what, w)
			}
		}
	}
	directLinked, directTests, indirectLinked := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for m := range direct {
		if linked[m] {
			directLinked[m] = true
		} else {
			directTests[m] = true
		}
	}
	for m := range linked {
		if !direct[m] {
			indirectLinked[m] = true
		}
	}
	compare(inBinaries, directLinked, doc[inBinaries])
	compare(inTests, directTests, doc[inTests])
	compare(along, indirectLinked, doc[along])
}
