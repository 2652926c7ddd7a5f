package core

import (
	"bytes"
	"fmt"

	"edgehub/pkg/forward"

	"github.com/nats-io/nkeys"
)

// Site is an edge site that may forward to this core.
type Site struct {
	Name string // as in the edge hub's name; stands in subjects (forward.CheckSite)
	NKey string // public key of its NATS user, "U..."
}

// Enroll makes the key pair of a site's NATS user. publicKey goes into the
// core's list of sites; creds is the content of the site's credentials file,
// its secret seed in the decorated form that NATS clients read. The core keeps
// no copy of it.
func Enroll(site string) (publicKey string, creds []byte, err error) {
	if err := forward.CheckSite(site); err != nil {
		return "", nil, err
	}
	kp, err := nkeys.CreateUser()
	if err != nil {
		return "", nil, fmt.Errorf("enroll %s: %w", site, err)
	}
	defer kp.Wipe()
	if publicKey, err = kp.PublicKey(); err != nil {
		return "", nil, fmt.Errorf("enroll %s: %w", site, err)
	}
	seed, err := kp.Seed()
	if err != nil {
		return "", nil, fmt.Errorf("enroll %s: %w", site, err)
	}
	var b bytes.Buffer
	b.WriteString("-----BEGIN USER NKEY SEED-----\n")
	b.Write(seed)
	b.WriteString("\n------END USER NKEY SEED------\n")
	return publicKey, b.Bytes(), nil
}
