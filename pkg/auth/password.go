package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of new password hashes: argon2id with 7 MiB, five passes, one thread,
// which a gateway can afford one at a time.
const (
	hashMemory  = 7 << 10 // KiB
	hashPasses  = 5
	hashThreads = 1
	saltBytes   = 16
	sumBytes    = 32
)

// Bounds of hashes that others made.
const (
	maxHashMemory = 64 << 10 // KiB
	maxHashPasses = 20
	maxHashBytes  = 128
)

// MaxPassword is the longest password, in bytes.
const MaxPassword = 1024

// HashPassword is what a file of users keeps of a password, in PHC form:
// $argon2id$v=19$m=7168,t=5,p=1$salt$sum.
func HashPassword(password string) (string, error) {
	if password == "" || len(password) > MaxPassword {
		return "", fmt.Errorf("a password has 1 to %d bytes", MaxPassword)
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(password), salt, hashPasses, hashMemory, hashThreads, sumBytes)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashThreads, b64(salt), b64(sum)), nil
}

// passwordHash is a hash in PHC form, taken apart.
type passwordHash struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

var errHash = errors.New("not an argon2id hash: set the password by `hub user add`")

func parseHash(s string) (passwordHash, error) {
	var h passwordHash
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.passes, h.threads) {
		return h, errHash
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	h.sum, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > maxHashBytes || len(h.sum) < 16 || len(h.sum) > maxHashBytes {
		return h, errHash
	}
	if h.threads < 1 || h.threads > 4 || h.passes < 1 || h.passes > maxHashPasses || h.memory < 8*uint32(h.threads) || h.memory > maxHashMemory {
		return h, fmt.Errorf("argon2id with %s costs too much to check here: at most m=%d,t=%d,p=4; set the password by `hub user add`", parts[3], maxHashMemory, maxHashPasses)
	}
	return h, nil
}

// CheckHash says what is wrong with a hash.
func CheckHash(s string) error {
	_, err := parseHash(s)
	return err
}

// verify is slow on purpose.
func (h *passwordHash) verify(password string) bool {
	sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}
