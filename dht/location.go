package dht

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// Location is a point of the Kademlia keyspace that a topic prefix hashes to.
type Location [sha256.Size]byte

// locationTag keeps the points of topic prefixes apart from everything else that is hashed into the keyspace.
const locationTag = "/mozzie/location/1"

// Root is the location of the empty prefix, where registrations stand whose filter begins with a wildcard.
var Root = Locate("", 0)

// LocationKey returns the bytes that the location of a prefix is the SHA-256 of: what a Kademlia lookup is
// asked for, since kad-dht hashes its keys itself. depth is the number of levels in prefix; it tells the
// root ("" of depth 0) from the topics whose first level is empty ("" of depth 1).
func LocationKey(prefix string, depth int) []byte {
	b := make([]byte, 0, len(locationTag)+1+len(prefix))
	b = append(b, locationTag...)
	b = binary.AppendUvarint(b, uint64(depth)) //nolint:gosec // a depth is a count of levels
	return append(b, prefix...)
}

// Locate returns the location of a topic prefix of depth levels.
func Locate(prefix string, depth int) Location { return sha256.Sum256(LocationKey(prefix, depth)) }

// PeerPoint returns where a peer stands in the keyspace: the same conversion as kad-dht's. id is the
// peer ID in bytes.
func PeerPoint(id string) Location { return sha256.Sum256([]byte(id)) }

// Prefix returns the first depth levels of a topic, or the whole of it with its number of levels where it
// has no more.
func Prefix(topic string, depth int) (prefix string, levels int) {
	end := 0
	for levels < depth {
		i := strings.IndexByte(topic[end:], '/')
		levels++
		if i < 0 {
			return topic, levels
		}
		end += i + 1
	}
	if end == 0 {
		return "", 0
	}
	return topic[:end-1], levels
}

// Closer reports whether a is closer to l than b, by Kademlia's XOR distance.
func (l Location) Closer(a, b Location) bool {
	for i := range l {
		if x, y := a[i]^l[i], b[i]^l[i]; x != y {
			return x < y
		}
	}
	return false
}

func (l Location) String() string { return hex.EncodeToString(l[:8]) }
