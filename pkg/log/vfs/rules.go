package vfs

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// matches says that op is of one of these kinds; no kinds are all of them.
func matches(op Op, kinds []Kind) bool {
	return len(kinds) == 0 || slices.Contains(kinds, op.Kind)
}

// FailNth fails the nth operation (from 1) of these kinds, of all if none is
// named, with err.
func FailNth(n int, err error, kinds ...Kind) Rule {
	var seen atomic.Int64
	return func(op Op) error {
		if matches(op, kinds) && seen.Add(1) == int64(n) {
			return err
		}
		return nil
	}
}

// FailFrom fails the nth operation (from 1) of these kinds and every later
// one: a device that is gone. FailFrom(1, syscall.EIO) fails everything.
func FailFrom(n int, err error, kinds ...Kind) Rule {
	var seen atomic.Int64
	return func(op Op) error {
		if matches(op, kinds) && seen.Add(1) >= int64(n) {
			return err
		}
		return nil
	}
}

// NoSpaceAfter lets bytes be written, wherever to, and then fails writes with
// ENOSPC, the first of them in part, and creates too. For a device that knows
// which bytes it holds already, use Mem.SetTotal.
func NoSpaceAfter(bytes int64) Rule {
	var mu sync.Mutex
	left := bytes
	return func(op Op) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op.Kind == OpCreate && left == 0:
			return syscall.ENOSPC
		case op.Kind != OpWrite:
			return nil
		case op.Size <= left:
			left -= op.Size
			return nil
		}
		n := left
		left = 0
		return &Short{N: int(n), Err: syscall.ENOSPC}
	}
}

// OnPath applies rule to the operations whose path, or new path, contains
// part.
func OnPath(part string, rule Rule) Rule {
	return func(op Op) error {
		if strings.Contains(op.Path, part) || strings.Contains(op.To, part) {
			return rule(op)
		}
		return nil
	}
}

// All asks the rules in turn; the first error counts and ends the asking.
func All(rules ...Rule) Rule {
	return func(op Op) error {
		for _, r := range rules {
			if err := r(op); err != nil {
				return err
			}
		}
		return nil
	}
}

// Gate holds operations until a test lets them go. Its Rule goes into a
// Fault.
type Gate struct {
	kinds   []Kind
	arrived chan Op
	pass    chan error
	open    chan struct{}
	once    sync.Once
}

// NewGate holds operations of these kinds, of all if none is named.
func NewGate(kinds ...Kind) *Gate {
	return &Gate{kinds: kinds, arrived: make(chan Op), pass: make(chan error), open: make(chan struct{})}
}

// Rule holds an operation until Pass, Fail or Open.
func (g *Gate) Rule(op Op) error {
	if !matches(op, g.kinds) {
		return nil
	}
	arrived := g.arrived
	for {
		select {
		case <-g.open:
			return nil
		default:
		}
		select {
		case arrived <- op:
			arrived = nil
		case err := <-g.pass:
			return err
		case <-g.open:
			return nil
		}
	}
}

// Arrived delivers each held operation once.
func (g *Gate) Arrived() <-chan Op { return g.arrived }

// Pass lets one held operation go, waiting for one if need be.
func (g *Gate) Pass() { g.pass <- nil }

// Fail lets one held operation go with err, waiting for one if need be.
func (g *Gate) Fail(err error) { g.pass <- err }

// Open lets all held and all later operations go. It may be called again.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }
