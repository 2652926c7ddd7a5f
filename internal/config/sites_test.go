package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sites.yaml")
	for _, s := range []Site{{"a", "UA"}, {"b", "UB"}} {
		if err := AddSite(file, s, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := AddSite(file, Site{"a", "UC"}, false); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("a second key for a site: %v", err)
	}
	if err := AddSite(file, Site{"a", "UC"}, true); err != nil {
		t.Fatal(err)
	}
	got, err := LoadSites(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Site{{"a", "UC"}, {"b", "UB"}}, got); diff != "" {
		t.Error(diff)
	}
	if left, _ := filepath.Glob(file + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, c := range []struct{ name, text, want string }{
		{"list", "- a\n", "sites.yaml:1:1: a file of sites is a line"},
		{"name", "a b: U\n", "sites.yaml:1:1: site name"},
		{"twice", "a: U1\na: U2\n", "sites.yaml:2:1: site a stands here a second time"},
		{"same key", "a: U1\nb: U1\n", "sites.yaml:2:4: the key of site b"},
		{"not yaml", "a: [\n", "sites.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadSites(file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
