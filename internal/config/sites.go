package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"edgehub/pkg/forward"

	"go.yaml.in/yaml/v3"
)

// Site is a line of sites.yaml: a site and the public key of its uplink.
type Site struct {
	Name, NKey string
}

// LoadSites reads a file of sites: a map of site names to public user keys
// (U…), in the file's order.
func LoadSites(path string) ([]Site, error) {
	b, err := readFile(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, &Error{Problems: []Problem{{Source: path, Text: err.Error() + ": name a readable file by cluster.sites"}}}
	}
	l := newLoader(nil, nil, "")
	src := &source{name: path, lines: splitLines(b)}
	l.rep.order = append(l.rep.order, src)
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		l.syntax(src, err)
		return nil, l.rep.err()
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	fail := func(n *yaml.Node, format string, args ...any) {
		l.rep.problems = append(l.rep.problems, src.problem(n.Line, n.Column, "", fmt.Sprintf(format, args...)))
	}
	if root.Kind != yaml.MappingNode {
		fail(root, "a file of sites is a line `site: public key` for each, not %s", kindName(root))
		return nil, l.rep.err()
	}
	var out []Site
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		s := Site{Name: k.Value, NKey: v.Value}
		switch err := forward.CheckSite(s.Name); {
		case k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode:
			fail(k, "write `site: public key`, as `hub enroll` does")
		case err != nil:
			fail(k, "%s", err)
		case slices.ContainsFunc(out, func(o Site) bool { return o.Name == s.Name }):
			fail(k, "site %s stands here a second time", s.Name)
		case slices.ContainsFunc(out, func(o Site) bool { return o.NKey == s.NKey }):
			fail(v, "the key of site %s is another site's too: each has its own", s.Name)
		default:
			out = append(out, s)
		}
	}
	return out, l.rep.err()
}

// AddSite adds a site to a file of sites, or gives it another key if replace
// is set. The file is created if missing and is never left half written.
func AddSite(path string, s Site, replace bool) error {
	sites, err := LoadSites(path)
	if _, serr := os.Stat(path); errors.Is(serr, fs.ErrNotExist) {
		sites, err = nil, nil
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(sites, func(o Site) bool { return o.Name == s.Name })
	switch {
	case i < 0:
		sites = append(sites, s)
	case !replace:
		return fmt.Errorf("%s has site %s already: say --replace to give it a new key, which ends the old one", path, s.Name)
	default:
		sites[i] = s
	}
	var b bytes.Buffer
	b.WriteString("# Sites that may forward to this core, with the public keys of their uplinks.\n")
	for _, o := range sites {
		fmt.Fprintf(&b, "%s: %s\n", o.Name, o.NKey)
	}
	return writeWhole(path, b.Bytes(), 0o644)
}

// writeWhole replaces a file in one step, durably.
func writeWhole(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadSecret is the first line of a file, which must not be empty.
func ReadSecret(path string) (string, error) {
	b, err := readFile(path)
	if err != nil {
		return "", fmt.Errorf("cluster.secret: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return "", fmt.Errorf("cluster.secret: the first line of %s is empty: write a long random secret there, the same on every node", path)
	}
	return string(line), nil
}
