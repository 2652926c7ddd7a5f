// Package deps holds no code but tests of the repository's shape: which
// package may import which (imports_test.go), which modules there are and
// where they end up (modules_test.go), and how large the binaries may get
// (size_test.go).
//
// A failing test here asks for a decision, not for a wider table: the rules
// are those of the architecture, and docs/dependencies.md says why each module
// is there.
package deps
