package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"edgehub/pkg/auth"

	"go.yaml.in/yaml/v3"
)

// LoadUsers reads a file of users: a map of user names to password hashes, in
// the file's order. No file is fs.ErrNotExist.
func LoadUsers(path string) ([]auth.User, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
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
		fail(root, "a file of users is a line `name: hash` for each, not %s", kindName(root))
		return nil, l.rep.err()
	}
	var out []auth.User
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		u := auth.User{Name: k.Value, Hash: v.Value}
		switch err := auth.CheckUserName(u.Name); {
		case k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode:
			fail(k, "write `name: hash`, as `hub user add` does")
		case err != nil:
			fail(k, "%s", err)
		case slices.ContainsFunc(out, func(o auth.User) bool { return o.Name == u.Name }):
			fail(k, "user %s stands here a second time", u.Name)
		default:
			if err := auth.CheckHash(u.Hash); err != nil {
				fail(v, "user %s: %s", u.Name, err)
			}
			out = append(out, u)
		}
	}
	return out, l.rep.err()
}

// ChangeUsers reads a file of users, none if it is missing, and replaces it
// by what change makes of them. The file is never left half written, and only
// its owner may read it.
func ChangeUsers(path string, change func([]auth.User) ([]auth.User, error)) error {
	users, err := LoadUsers(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if users, err = change(users); err != nil {
		return err
	}
	root := &yaml.Node{Kind: yaml.MappingNode, HeadComment: "Users and the argon2id hashes of their passwords, written by `hub user`."}
	for _, u := range users {
		root.Content = append(root.Content,
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: u.Name},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: u.Hash})
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	if err := errors.Join(enc.Encode(root), enc.Close()); err != nil {
		return err
	}
	return writeAs(path, b.Bytes())
}

// writeAs replaces a file that stays its owner's: a hub that runs as another
// user than the one who changes its users must still read them.
func writeAs(path string, b []byte) error {
	before, err := os.Stat(path)
	if err := writeWhole(path, b, 0o600); err != nil {
		return err
	}
	if err != nil {
		return nil // it is new
	}
	return keepOwner(path, before)
}
