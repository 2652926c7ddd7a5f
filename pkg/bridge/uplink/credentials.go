package uplink

import (
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// credentials are what a site proves itself with.
type credentials struct {
	path   string
	jwt    string // "" with an NKey alone
	public string // public NKey
}

// readCredentials reads a file that holds a decorated NKey seed, and a user
// JWT if the core works with those.
func readCredentials(path string) (*credentials, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	defer clear(b)
	kp, err := nkeys.ParseDecoratedNKey(b)
	if err != nil {
		return nil, fmt.Errorf("credentials %s: no NKey seed: %w: put in the file that the core made for this site", path, err)
	}
	defer kp.Wipe()
	c := &credentials{path: path}
	if c.public, err = kp.PublicKey(); err != nil {
		return nil, fmt.Errorf("credentials %s: %w", path, err)
	}
	if !nkeys.IsValidPublicUserKey(c.public) {
		return nil, fmt.Errorf("credentials %s: the NKey is not one of a user", path)
	}
	if strings.Contains(string(b), "BEGIN NATS USER JWT") {
		if c.jwt, err = nkeys.ParseDecoratedJWT(b); err != nil {
			return nil, fmt.Errorf("credentials %s: %w", path, err)
		}
	}
	return c, nil
}

// option is how nats.go proves it. The seed is read when it is needed and not
// kept.
func (c *credentials) option() nats.Option {
	sign := func(nonce []byte) ([]byte, error) {
		b, err := os.ReadFile(c.path)
		if err != nil {
			return nil, err
		}
		defer clear(b)
		kp, err := nkeys.ParseDecoratedNKey(b)
		if err != nil {
			return nil, err
		}
		defer kp.Wipe()
		return kp.Sign(nonce)
	}
	if c.jwt != "" {
		return nats.UserJWT(func() (string, error) { return c.jwt, nil }, sign)
	}
	return nats.Nkey(c.public, sign)
}
