package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"edgehub/pkg/auth"

	"github.com/google/go-cmp/cmp"
)

const someHash = "$argon2id$v=19$m=7168,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.yaml")
	if _, err := LoadUsers(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	var want []auth.User
	for _, name := range []string{"ann", "007", "true", "ö: #", "press-7", "null", "-"} {
		if auth.CheckUserName(name) != nil {
			continue
		}
		u := auth.User{Name: name, Hash: someHash}
		want = append(want, u)
		if err := ChangeUsers(file, func(have []auth.User) ([]auth.User, error) { return append(have, u), nil }); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for content, want := range map[string]string{
		"ann: x\n": ":1:6: user ann: not an argon2id hash",
		"ann: " + someHash + "\nann: " + someHash + "\n": ":2:1: user ann stands here a second time",
		"\"*\": " + someHash + "\n":                      ":1:1: * stands for every user",
		"- ann\n":                                        ":1:1: a file of users is",
		"ann: [a]\n":                                     ":1:1: write `name: hash`",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadUsers(file); err == nil || !strings.HasPrefix(err.Error(), file+want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
}
