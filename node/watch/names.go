package watch

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What the protocol fixes.
const (
	// Prefix begins the topics of wills that stand for the case that their node dies, which no client can publish or subscribe to.
	Prefix = "$wills-"
	// firedLevel is the level below the topic of a will that says that it was fired.
	firedLevel = "/fired"
)

func hashed(tag, s string) string {
	h := sha256.Sum256([]byte(tag + "\x00" + s))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// Of returns the first level of the topics of the wills of a node's clients.
func Of(node peer.ID) string { return Prefix + hashed("mozzie wills", string(node)) }

// nameOf returns the topic of the will of a session at a node.
func nameOf(node peer.ID, key string) string { return Of(node) + "/" + nameHash(key) }

func nameHash(key string) string { return hashed("mozzie will", key) }

// willOf returns the topic of the will that a topic is of, and whether it says that it was fired.
func willOf(topic string) (name string, fired bool) { return strings.CutSuffix(topic, firedLevel) }
