package dht

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// nodeKeyFile holds the node's Ed25519 key as libp2p marshals private keys (protobuf).
const nodeKeyFile = "node.key"

// loadNodeKey reads the node's key from dir, or makes it where there is none.
func loadNodeKey(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, nodeKeyFile)
	b, err := os.ReadFile(path) //nolint:gosec // the data directory
	if errors.Is(err, fs.ErrNotExist) {
		return newNodeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("can't read the node key: %w; it must be readable by the user that the node runs as", err)
	}
	k, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("the node key in %s is damaged (%w); restore it from a backup, or remove the file to make this a new node with another ID", path, err)
	}
	return k, nil
}

func newNodeKey(path string) (crypto.PrivKey, error) {
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the node key: %w", err)
	}
	b, err := crypto.MarshalPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("making the node key: %w", err)
	}
	if err := writeFile(path, b); err != nil {
		return nil, fmt.Errorf("can't save the node key: %w; the data directory must exist and be writable", err)
	}
	return k, nil
}
