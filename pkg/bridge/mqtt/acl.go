package mqtt

import (
	"fmt"
	"slices"
	"strings"
)

// Permission lets a user publish and subscribe. In its filters {user} and
// {client} stand for the user's name and the client id; where one of those
// holds / + # or begins with $, filters with it permit nothing.
type Permission struct {
	User      string   // "*": everybody, anonymous clients too
	Publish   []string // topic filters
	Subscribe []string // topic filters; one permits all that it covers
}

// ACL says who may do what. What no permission permits is denied.
type ACL struct{ permissions []Permission }

// PermissionError is what is wrong with a filter.
type PermissionError struct {
	Index  int    // of the permission
	Field  string // publish or subscribe
	Filter int    // its index there
	Msg    string
}

// Error implements error.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("acl[%d].%s[%d]: %s", e.Index, e.Field, e.Filter, e.Msg)
}

// NewACL checks the permissions. Its errors are *PermissionError.
func NewACL(list []Permission) (*ACL, error) {
	for i, p := range list {
		for field, filters := range map[string][]string{"publish": p.Publish, "subscribe": p.Subscribe} {
			for j, f := range filters {
				if msg := checkFilter(f); msg != "" {
					return nil, &PermissionError{i, field, j, msg}
				}
			}
		}
	}
	return &ACL{slices.Clone(list)}, nil
}

func checkFilter(f string) string {
	if f == "" || len(f) > 65535 || strings.ContainsRune(f, 0) {
		return fmt.Sprintf("%q is no topic filter", f)
	}
	if isShared(f) {
		return fmt.Sprintf("%q: leave out $share and the group: a filter permits shared subscriptions as well", f)
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		switch rest := placeholders.Replace(l); {
		case l == "#" && i < len(levels)-1:
			return fmt.Sprintf("%q: # stands last only", f)
		case l != "#" && strings.Contains(l, "#"), l != "+" && strings.Contains(l, "+"):
			return fmt.Sprintf("%q: # and + are whole levels", f)
		case strings.ContainsAny(rest, "{}"):
			return fmt.Sprintf("%q: what stands in braces is {user} or {client}", f)
		}
	}
	return ""
}

var placeholders = strings.NewReplacer("{user}", "", "{client}", "")

// rights are what one client may do.
type rights struct {
	acl                *ACL       // that they come from
	publish, subscribe [][]string // filters, in levels
}

// of picks out what a client may do.
func (a *ACL) of(user, client string) *rights {
	r := &rights{acl: a}
	for _, p := range a.permissions {
		if p.User != "*" && (p.User != user || user == "") {
			continue
		}
		r.publish = appendFilled(r.publish, p.Publish, user, client)
		r.subscribe = appendFilled(r.subscribe, p.Subscribe, user, client)
	}
	return r
}

func appendFilled(dst [][]string, filters []string, user, client string) [][]string {
	fill := strings.NewReplacer("{user}", user, "{client}", client)
	for _, f := range filters {
		if strings.Contains(f, "{user}") && !plainLevel(user) || strings.Contains(f, "{client}") && !plainLevel(client) {
			continue
		}
		dst = append(dst, strings.Split(fill.Replace(f), "/"))
	}
	return dst
}

// plainLevel says that s is one level of a topic and no more.
func plainLevel(s string) bool {
	return s != "" && s[0] != '$' && !strings.ContainsAny(s, "/+#")
}

func (r *rights) mayPublish(topic string) bool { return anyCovers(r.publish, topic) }

// maySubscribe takes filters and, at a delivery, topics.
func (r *rights) maySubscribe(filter string) bool {
	if isShared(filter) {
		parts := strings.SplitN(filter, "/", 3)
		if len(parts) < 3 {
			return false
		}
		filter = parts[2]
	}
	return anyCovers(r.subscribe, filter)
}

func isShared(filter string) bool {
	const share = "$share"
	return len(filter) >= len(share) && strings.EqualFold(filter[:len(share)], share) && (len(filter) == len(share) || filter[len(share)] == '/')
}

func anyCovers(allowed [][]string, filter string) bool {
	return slices.ContainsFunc(allowed, func(a []string) bool { return covers(a, filter) })
}

// covers says whether every topic that filter matches is matched by allowed.
// A wildcard at the beginning does not match topics that begin with $.
func covers(allowed []string, filter string) bool {
	rest, more := filter, true
	for i, a := range allowed {
		if a == "#" {
			return i > 0 || !strings.HasPrefix(filter, "$")
		}
		if !more {
			return false
		}
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case a == "+":
			if level == "#" || i == 0 && strings.HasPrefix(level, "$") {
				return false
			}
		case a != level:
			return false
		}
	}
	return !more
}
