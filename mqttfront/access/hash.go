package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost is what computing a hash takes.
type Cost struct {
	Memory uint32 // KiB
	Passes uint32
	Lanes  uint8
}

// Costs of Argon2id.
var (
	// DefaultCost is the least that OWASP's Password Storage Cheat Sheet recommends, of its choices the one that takes
	// little memory, of which a Raspberry Pi 3 has 1 GB.
	DefaultCost = Cost{Memory: 19 << 10, Passes: 2, Lanes: 1}
	// RandomCost is for passwords that were made from 128 random bits: nobody can try them all, whatever one try costs.
	RandomCost = Cost{Memory: 64, Passes: 1, Lanes: 1}
)

// What a hash may ask of this machine, wherever it comes from, and what it is made of.
const (
	maxMemory = 64 << 10 // KiB
	maxWork   = 4 * maxMemory
	maxLanes  = 4

	minSalt, maxSalt = 8, 64 // bytes
	minKey, maxKey   = 16, 64
	newSalt, newKey  = 16, 32
)

// MaxPassword is the longest password that an account can have, in bytes.
const MaxPassword = 1024

// check says what is wrong with a cost.
func (c Cost) check() error {
	switch {
	case c.Lanes < 1 || c.Lanes > maxLanes:
		return fmt.Errorf("p (lanes) is %d, want 1 to %d", c.Lanes, maxLanes)
	case c.Memory < 8*uint32(c.Lanes) || c.Memory > maxMemory:
		return fmt.Errorf("m (memory in KiB) is %d, want %d to %d", c.Memory, 8*uint32(c.Lanes), maxMemory)
	case c.Passes < 1 || c.Passes > maxWork/c.Memory:
		return fmt.Errorf("t (passes) is %d, want 1 to %d with that memory", c.Passes, maxWork/c.Memory)
	}
	return nil
}

// Hash is the Argon2id hash of a password. The zero Hash matches no password.
type Hash struct {
	cost      Cost
	salt, key string
}

// NewHash computes the hash of a password, with a salt of its own.
func NewHash(password []byte, cost Cost) Hash {
	salt := make([]byte, newSalt)
	_, _ = rand.Read(salt) // never fails
	return Hash{cost, string(salt), string(argon2.IDKey(password, salt, cost.Passes, cost.Memory, cost.Lanes, newKey))}
}

// IsZero reports whether there is no hash.
func (h Hash) IsZero() bool { return h.key == "" }

// Matches computes whether a password is the one that was hashed. How long it takes tells nothing but the cost.
func (h Hash) Matches(password []byte) bool {
	if h.IsZero() {
		return false
	}
	key := argon2.IDKey(password, []byte(h.salt), h.cost.Passes, h.cost.Memory, h.cost.Lanes, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, []byte(h.key)) == 1
}

// String returns the hash in PHC's format: $argon2id$v=19$m=19456,t=2,p=1$SALT$KEY. The zero Hash is "".
func (h Hash) String() string {
	if h.IsZero() {
		return ""
	}
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.cost.Memory, h.cost.Passes, h.cost.Lanes,
		enc.EncodeToString([]byte(h.salt)), enc.EncodeToString([]byte(h.key)))
}

// errHashForm says what a hash looks like.
var errHashForm = errors.New("want an Argon2id hash, such as $argon2id$v=19$m=19456,t=2,p=1$SALT$KEY; \"mozzie passwd\" makes it")

// ParseHash reads a hash as String writes it. What it would cost to check a password against it is bounded.
func ParseHash(text string) (h Hash, err error) {
	parts := strings.Split(text, "$")
	if len(text) > 512 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return Hash{}, errHashForm
	}
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return Hash{}, fmt.Errorf("version %.20q of Argon2id is not known, v=%d is", parts[2], argon2.Version)
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.cost.Memory, &h.cost.Passes, &h.cost.Lanes); err != nil || n != 3 {
		return Hash{}, errHashForm
	}
	if err := h.cost.check(); err != nil {
		return Hash{}, err
	}
	enc := base64.RawStdEncoding.Strict()
	salt, err1 := enc.DecodeString(parts[4])
	key, err2 := enc.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < minSalt || len(salt) > maxSalt || len(key) < minKey || len(key) > maxKey {
		return Hash{}, errHashForm
	}
	h.salt, h.key = string(salt), string(key)
	if h.String() != text { // leading zeros, blanks: there is one way to write it
		return Hash{}, errHashForm
	}
	return h, nil
}

// RandomPassword returns a password of 130 random bits, for devices. RandomCost is enough for it.
func RandomPassword() string { return strings.ToLower(rand.Text()) }
