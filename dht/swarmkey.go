package dht

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/pnet"
)

// SwarmKeyFile is the name of the swarm key in a data directory, in the format that libp2p and IPFS use.
const SwarmKeyFile = "swarm.key"

const swarmKeyHeader = "/key/swarm/psk/1.0.0/\n/base16/\n"

// SwarmKey is the secret that the nodes of a private swarm share. Whoever has it is in. It has no exported
// form but the file and the invite, and prints as its fingerprint.
type SwarmKey struct {
	// secret is behind a pointer, since fmt does not ask unexported fields how they want to be printed.
	secret *[swarmKeyBytes]byte
}

const swarmKeyBytes = 32

// NewSwarmKey makes a key at random.
func NewSwarmKey() *SwarmKey {
	k := swarmKeyOf(nil)
	_, _ = rand.Read(k.secret[:]) // never fails
	return k
}

// swarmKeyOf makes a key of b, which has the right length.
func swarmKeyOf(b []byte) *SwarmKey {
	k := &SwarmKey{secret: new([swarmKeyBytes]byte)}
	copy(k.secret[:], b)
	return k
}

// LoadSwarmKey reads the key of the data directory dir. Without one the error is fs.ErrNotExist.
func LoadSwarmKey(dir string) (*SwarmKey, error) {
	path := filepath.Join(dir, SwarmKeyFile)
	f, err := os.Open(path) //nolint:gosec // the data directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("can't read the swarm key: %w; it must be readable by the user that the node runs as", err)
	}
	defer func() { _ = f.Close() }()
	k, err := decodeSwarmKey(f)
	if err != nil {
		return nil, fmt.Errorf("the swarm key in %s is damaged (%w); copy the file from another node of the swarm, or remove it and join with an invite", path, err)
	}
	return k, nil
}

// decodeSwarmKey reads a key as it is in a file.
func decodeSwarmKey(r io.Reader) (*SwarmKey, error) {
	psk, err := pnet.DecodeV1PSK(io.LimitReader(r, 4096))
	if err != nil {
		return nil, err
	}
	return swarmKeyOf(psk), nil
}

// encode is the inverse of decodeSwarmKey.
func (k SwarmKey) encode() []byte {
	return append(hex.AppendEncode([]byte(swarmKeyHeader), k.secret[:]), '\n')
}

// Save writes the key to the data directory dir, readable by its owner alone.
func (k SwarmKey) Save(dir string) error {
	if err := writeFile(filepath.Join(dir, SwarmKeyFile), k.encode()); err != nil {
		return fmt.Errorf("can't save the swarm key: %w", err)
	}
	return nil
}

// Equal reports whether both are the same key.
func (k SwarmKey) Equal(o *SwarmKey) bool {
	return subtle.ConstantTimeCompare(k.secret[:], o.secret[:]) == 1
}

// Fingerprint returns eight letters and digits that tell keys apart and say nothing of the key.
func (k SwarmKey) Fingerprint() string {
	h := sha256.New()
	h.Write([]byte("/mozzie/swarm-key-fingerprint/1"))
	h.Write(k.secret[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:5]))
}

// String returns the fingerprint.
func (k SwarmKey) String() string {
	if k.secret == nil {
		return "none"
	}
	return k.Fingerprint()
}

// Format prints the fingerprint whatever the verb, %x and %#v too.
func (k SwarmKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// MarshalText gives the fingerprint to JSON, YAML and slog.
func (k SwarmKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// psk returns the key as libp2p takes it.
func (k SwarmKey) psk() pnet.PSK { return bytes.Clone(k.secret[:]) }
