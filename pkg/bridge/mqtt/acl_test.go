package mqtt

import (
	"errors"
	"strings"
	"testing"
)

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		allowed, filter string
		want            bool
	}{
		{"#", "a", true}, {"#", "#", true}, {"#", "a/+/#", true}, {"#", "/", true},
		{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"$SYS/#", "#", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "a/#", true}, {"a/#", "ab", false}, {"a/#", "#", false}, {"a/#", "+/b", false},
		{"a/+", "a/b", true}, {"a/+", "a/+", true}, {"a/+", "a/#", false}, {"a/+", "a", false}, {"a/+", "a/b/c", false}, {"a/+", "a/", true},
		{"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"a/b", "a/+", false}, {"a/b", "a/b", true}, {"a/b", "a/b/", false}, {"a", "A", false},
	} {
		if got := covers(strings.Split(c.allowed, "/"), c.filter); got != c.want {
			t.Errorf("%q covers %q: %v", c.allowed, c.filter, got)
		}
	}
}

func TestRights(t *testing.T) {
	a, err := NewACL([]Permission{
		{User: "ann", Publish: []string{"plant/{user}/+", "dev/x-{client}/up"}, Subscribe: []string{"cmd/{client}/#"}},
		{User: "*", Subscribe: []string{"news"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, client, filter string
		publish, subscribe   bool
	}{
		{"ann", "c1", "plant/ann/x", true, false}, {"ann", "c1", "plant/bob/x", false, false}, {"ann", "c1", "dev/x-c1/up", true, false},
		{"ann", "c1", "cmd/c1/go", false, true}, {"ann", "c1", "cmd/c2/go", false, false}, {"ann", "c1", "$share/g/cmd/c1/#", false, true},
		{"ann", "c1", "$share/g/#", false, false}, {"ann", "c1", "news", false, true}, {"bob", "c1", "news", false, true}, {"", "c1", "news", false, true},
		{"bob", "c1", "cmd/c1/go", false, false},
		// A client id or user name must not widen a filter.
		{"ann", "#", "cmd/x/go", false, false}, {"ann", "+", "cmd/x/go", false, false}, {"ann", "a/b", "cmd/a/b/go", false, false}, {"ann", "", "cmd//go", false, false},
	} {
		r := a.of(c.user, c.client)
		if p, s := r.mayPublish(c.filter), r.maySubscribe(c.filter); p != c.publish || s != c.subscribe {
			t.Errorf("%s/%s at %s: publish %v, subscribe %v", c.user, c.client, c.filter, p, s)
		}
	}
}

func TestBadFilters(t *testing.T) {
	for _, f := range []string{"", "a/#/b", "a#", "a+/b", "a/{name}", "a/{client", "$share/g/a", "a\x00"} {
		_, err := NewACL([]Permission{{User: "u"}, {User: "u", Subscribe: []string{"ok", f}}})
		var pe *PermissionError
		if !errors.As(err, &pe) || pe.Index != 1 || pe.Field != "subscribe" || pe.Filter != 1 {
			t.Errorf("%q: %v", f, err)
		}
	}
}

// FuzzCovers: a filter covers what it is, and covering is transitive towards
// #.
func FuzzCovers(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Fuzz(func(t *testing.T, allowed, filter string) {
		if checkFilter(allowed) != "" || checkFilter(filter) != "" {
			return
		}
		a := strings.Split(allowed, "/")
		if !covers(a, allowed) && !strings.HasPrefix(allowed, "$") {
			t.Errorf("%q does not cover itself", allowed)
		}
		if covers(a, filter) && !strings.HasPrefix(filter, "$") && !covers([]string{"#"}, filter) {
			t.Errorf("# does not cover %q", filter)
		}
	})
}
