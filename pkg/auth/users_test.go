package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newUsers(t *testing.T, pairs ...string) *Users {
	t.Helper()
	var list []User
	for i := 0; i < len(pairs); i += 2 {
		h, err := HashPassword(pairs[i+1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, User{pairs[i], h})
	}
	u, err := NewUsers(list)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestHashIsArgon2id(t *testing.T) {
	h, err := HashPassword("secret")
	if err != nil || !strings.HasPrefix(h, "$argon2id$v=19$m=7168,t=5,p=1$") {
		t.Errorf("hash %s, %v", h, err)
	}
	if again, _ := HashPassword("secret"); again == h {
		t.Error("two hashes of a password are the same: no salt")
	}
	for _, bad := range []string{"", "secret", "$2a$10$abc", h[:len(h)-30], strings.Replace(h, "m=7168", "m=71680000", 1),
		strings.Replace(h, "p=1", "p=0", 1), strings.Replace(h, "t=5", "t=500", 1), strings.Replace(h, "t=5", "t=5 ", 1), strings.Replace(h, "v=19", "v=16", 1)} {
		if _, err := NewUsers([]User{{"u", bad}}); err == nil {
			t.Errorf("%q is taken for a hash", bad)
		}
	}
}

func TestLogin(t *testing.T) {
	u := newUsers(t, "ann", "right", "bob", "other")
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"ann", "right", nil}, {"ann", "right", nil}, {"ann", "other", ErrDenied}, {"ann", "", ErrDenied},
		{"bob", "right", ErrDenied}, {"bob", "other", nil}, {"eve", "right", ErrDenied}, {"", "", ErrDenied},
		{"ann", strings.Repeat("x", MaxPassword+1), ErrDenied},
	} {
		if err := u.Login(t.Context(), c.name, c.password, "10.0.0.1"); !errors.Is(err, c.want) {
			t.Errorf("%s with %.10q: %v, want %v", c.name, c.password, err, c.want)
		}
	}
	h, _ := HashPassword("new")
	if err := u.Set([]User{{"ann", h}}); err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]error{"right": ErrDenied, "new": nil} {
		if err := u.Login(t.Context(), "ann", password, "10.0.0.1"); !errors.Is(err, want) {
			t.Errorf("after the change, %s: %v, want %v", password, err, want)
		}
	}
	if err := u.Login(t.Context(), "bob", "other", "10.0.0.1"); !errors.Is(err, ErrDenied) {
		t.Errorf("bob, who was removed: %v", err)
	}
}

// A storm of logins of one user costs one slow check.
func TestStormIsCheap(t *testing.T) {
	u := newUsers(t, "ann", "right")
	begun := time.Now()
	if err := u.Login(t.Context(), "ann", "right", "a"); err != nil {
		t.Fatal(err)
	}
	one := time.Since(begun)
	var all sync.WaitGroup
	begun = time.Now()
	for i := range 500 {
		all.Go(func() {
			if err := u.Login(t.Context(), "ann", "right", fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > 100*one {
		t.Errorf("500 logins took %s, one %s", took, one)
	}
}

// Wrong passwords slow down their own pair of user and address only.
func TestWrongPasswordsAreSlowedDown(t *testing.T) {
	u := newUsers(t, "ann", "right", "bob", "other")
	synctest.Test(t, func(t *testing.T) {
		u.turn = make(chan struct{}, 1) // of this bubble
		try := func(name, password, address string) time.Duration {
			begun := time.Now()
			_ = u.Login(t.Context(), name, password, address)
			return time.Since(begun)
		}
		for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 10, 10} {
			if got := try("ann", "wrong", "a"); got != want*time.Second {
				t.Errorf("attempt %d took %s, want %d s", i, got, want)
			}
		}
		for _, c := range [][3]string{{"ann", "right", "a"}, {"ann", "wrong", "b"}, {"bob", "wrong", "a"}, {"bob", "other", "a"}} {
			if got := try(c[0], c[1], c[2]); got != 0 {
				t.Errorf("%v took %s", c, got)
			}
		}
		var busy int
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 3 * maxHeld {
			all.Go(func() {
				if errors.Is(u.Login(t.Context(), "ann", "wrong", "a"), ErrBusy) {
					mu.Lock()
					busy++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if busy != 2*maxHeld {
			t.Errorf("%d logins were turned away, want %d", busy, 2*maxHeld)
		}
		time.Sleep(forgetAfter + time.Second)
		if got := try("ann", "wrong", "a"); got != 0 {
			t.Errorf("after a pause an attempt took %s", got)
		}
	})
}

func TestLoginEndsWithItsContext(t *testing.T) {
	u := newUsers(t, "ann", "right")
	u.turn <- struct{}{} // somebody checks for ever
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.Login(ctx, "ann", "right", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	var a attempts
	now := time.Now()
	for i := range 2 * maxAttempts {
		a.failed(attempt{fmt.Sprint(i), "a"}, now.Add(time.Duration(i)))
	}
	if len(a.pairs) != maxAttempts {
		t.Errorf("%d pairs are kept, want %d", len(a.pairs), maxAttempts)
	}
}

func FuzzHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=7168,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := parseHash(s); err == nil && (h.memory > maxHashMemory || h.passes > maxHashPasses || h.threads == 0) {
			t.Errorf("%q is accepted", s)
		}
	})
}
