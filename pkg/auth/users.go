package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Errors of Login.
var (
	// ErrDenied says that user name or password are wrong, and not which.
	ErrDenied = errors.New("wrong user name or password")
	// ErrBusy says that too many others wait: try again. It is Temporary.
	ErrBusy error = busy{}
)

type busy struct{}

func (busy) Error() string   { return "too many logins at a time" }
func (busy) Temporary() bool { return true }

// queueTimeout is how long a login waits for its turn.
const queueTimeout = 20 * time.Second

// MaxUserName is the longest user name, in bytes.
const MaxUserName = 128

// CheckUserName says what is wrong with a user name.
func CheckUserName(s string) error {
	switch {
	case s == "" || len(s) > MaxUserName:
		return fmt.Errorf("a user name has 1 to %d bytes", MaxUserName)
	case s == "*":
		return errors.New("* stands for every user in an acl: choose another name")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return fmt.Errorf("the user name %q holds blanks or control characters", s)
	}
	return nil
}

// User is a line of a file of users.
type User struct {
	Name string
	Hash string // of the password, see HashPassword
}

// Users tell whose password is right. A password that was right is
// remembered, keyed and in memory, so that who comes again costs next to
// nothing; all else is checked one at a time. All methods may be called from
// any goroutine.
//
// U1: at most one slow check runs, however many log in.
// U2: what is remembered is of no use outside this process, and is forgotten
// when the user's hash changes.
// U3: a wrong password slows down its own pair of user and address only, and
// not who is remembered.
type Users struct {
	key  [32]byte      // of the sums that are remembered
	turn chan struct{} // held by the one that checks
	wait attempts

	mu    sync.Mutex
	users map[string]*account
	cost  time.Duration // of the last check
}

type account struct {
	text  string
	hash  passwordHash
	known bool // seen holds the sum of the right password
	seen  [sha256.Size]byte
}

// NewUsers checks the hashes.
func NewUsers(list []User) (*Users, error) {
	u := &Users{turn: make(chan struct{}, 1), cost: 50 * time.Millisecond}
	_, _ = rand.Read(u.key[:]) // never fails
	return u, u.Set(list)
}

// Set replaces all users. With an error the old ones stay.
func (u *Users) Set(list []User) error {
	fresh := make(map[string]*account, len(list))
	for _, x := range list {
		h, err := parseHash(x.Hash)
		if err != nil {
			return fmt.Errorf("user %s: %w", x.Name, err)
		}
		if fresh[x.Name] != nil {
			return fmt.Errorf("user %s is there twice", x.Name)
		}
		fresh[x.Name] = &account{text: x.Hash, hash: h}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, a := range fresh {
		if old := u.users[name]; old != nil && old.text == a.text {
			fresh[name] = old
		}
	}
	u.users = fresh
	return nil
}

// Version changes when the user's password does; "" is nobody's.
func (u *Users) Version(name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a := u.users[name]; a != nil {
		return a.text
	}
	return ""
}

// Login is nil if the password is the user's. address is where the login
// comes from, without a port. It may take long: it waits for its turn, and
// after several wrong passwords for this user from this address the answer to
// a wrong one is held back. It ends with ctx.
func (u *Users) Login(ctx context.Context, name, password, address string) error {
	if len(name) > MaxUserName || len(password) > MaxPassword {
		return ErrDenied
	}
	at := attempt{name, address}
	if !u.wait.enter(at, time.Now()) {
		return ErrBusy
	}
	defer u.wait.leave(at)
	err := u.check(ctx, name, password)
	if !errors.Is(err, ErrDenied) {
		return err
	}
	return errors.Join(err, sleep(ctx, u.wait.failed(at, time.Now())))
}

func (u *Users) check(ctx context.Context, name, password string) error {
	u.mu.Lock()
	a, cost := u.users[name], u.cost
	u.mu.Unlock()
	if a == nil {
		// As long as a check takes, so that names cannot be told from others.
		return errors.Join(ErrDenied, sleep(ctx, cost))
	}
	sum := u.sum(name, password)
	if u.remembered(a, sum) {
		return nil
	}
	t := time.NewTimer(queueTimeout)
	defer t.Stop()
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-t.C:
		return ErrBusy
	case <-ctx.Done():
		return ctx.Err()
	}
	if u.remembered(a, sum) { // while it waited
		return nil
	}
	begun := time.Now()
	ok := a.hash.verify(password)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cost = time.Since(begun)
	if !ok {
		return ErrDenied
	}
	a.known, a.seen = true, sum
	if u.users[name] != a { // replaced while it was checked
		return ErrDenied
	}
	return nil
}

func (u *Users) remembered(a *account, sum [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return a.known && hmac.Equal(a.seen[:], sum[:])
}

func (u *Users) sum(name, password string) (out [sha256.Size]byte) {
	m := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(m, "%d %s%s", len(name), name, password)
	m.Sum(out[:0])
	return out
}

// sleep ends early with ctx, whose error it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
