// Package auth answers who somebody is: users with passwords, and the
// certificates of listeners and of those who come to them. It is a leaf that
// knows no protocol; the listeners decide what somebody may do.
package auth
