package dht

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Invite is what a node needs to join a swarm. As a string it can be sent, or typed in need. Whoever has an
// invite to a private swarm has its key: it is as secret as that.
//
// The string is "mozzie1-" and, in lower-case base32 (RFC 4648, without padding), so that it can be read
// aloud and typed in either case:
//
//	length of the body   2 bytes, big-endian
//	check of the length  1 byte, the first of the SHA-256 of the two
//	body
//	  flags              1 byte: 1 for a private swarm; the others are 0
//	  key                32 bytes, in a private swarm
//	  addresses, each
//	    address          its length as a varint, then the multiaddress in binary, without /p2p
//	    peer ID          its length as a varint, then its bytes; length 0: the same as of the one before
//	check of all         4 bytes, the first of the SHA-256 of the string's prefix, the length and the body
//
// The length comes first and is checked by itself so that an invite that was cut short is told from one that
// was mistyped.
type Invite struct {
	// Key is nil for an open swarm.
	Key *SwarmKey
	// Addrs has full multiaddresses, ending in /p2p/ID, of nodes to join by.
	Addrs []string
}

const (
	invitePrefix = "mozzie1-"
	inviteFamily = "mozzie"
	// inviteAddrs is how many addresses Host.Invite puts in, maxInviteAddrs how many one may have.
	inviteAddrs    = 4
	maxInviteAddrs = 16
	maxInviteBody  = 4096
	inviteHead     = 3
	inviteCheck    = 4
	flagPrivate    = 1
)

// Errors of ParseInvite that tell what is wrong. Their texts are for users.
var (
	ErrInviteNone     = errors.New(`this is not an invite; one begins with "mozzie1-" and is printed by "mozzie invite" at a node of the swarm`)
	ErrInviteNewer    = errors.New("this invite was made by a newer version; update this node, or ask for an invite from a node of this version")
	ErrInviteCut      = errors.New("the invite is cut short; copy all of it")
	ErrInviteMistyped = errors.New("the invite is mistyped or damaged; copy it again")
)

const inviteAlphabet = "abcdefghijklmnopqrstuvwxyz234567"

// String returns the invite as one string. Addresses that are none are left out, and so are those after the
// first sixteen.
func (i Invite) String() string {
	body := make([]byte, 0, 256)
	if i.Key != nil {
		body = append(body, flagPrivate)
		body = append(body, i.Key.secret[:]...)
	} else {
		body = append(body, 0)
	}
	var last peer.ID
	n := 0
	for _, s := range i.Addrs {
		info, err := parsePeer(s)
		if err != nil || n == maxInviteAddrs {
			continue
		}
		next := binary.AppendUvarint(body, uint64(len(info.Addrs[0].Bytes())))
		next = append(next, info.Addrs[0].Bytes()...)
		if info.ID == last {
			next = append(next, 0)
		} else {
			next = binary.AppendUvarint(next, uint64(len(info.ID)))
			next = append(next, info.ID...)
		}
		if len(next) > maxInviteBody {
			continue
		}
		body, last = next, info.ID
		n++
	}
	b := inviteHeader(len(body))
	b = append(b, body...)
	b = append(b, inviteSum(b)...)
	return invitePrefix + encode32(b)
}

func parsePeer(s string) (peer.AddrInfo, error) {
	infos, err := ParsePeers([]string{s})
	if err != nil {
		return peer.AddrInfo{}, err
	}
	return infos[0], nil
}

func inviteHeader(n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(n)) //nolint:gosec // at most maxInviteBody
	sum := sha256.Sum256(b)
	return append(b, sum[0])
}

func inviteSum(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte(invitePrefix))
	h.Write(b)
	return h.Sum(nil)[:inviteCheck]
}

// ParseInvite reads an invite. White space in it is ignored, since mail and terminals break lines. Errors wrap
// one of the ErrInvite values.
func ParseInvite(s string) (Invite, error) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	if err := checkInvitePrefix(s); err != nil {
		return Invite{}, err
	}
	b, canonical, err := decode32(s[len(invitePrefix):])
	if err != nil {
		return Invite{}, err
	}
	if len(b) < inviteHead {
		return Invite{}, ErrInviteCut
	}
	n := int(binary.BigEndian.Uint16(b))
	if string(inviteHeader(n)) != string(b[:inviteHead]) || n > maxInviteBody {
		return Invite{}, ErrInviteMistyped
	}
	switch end := inviteHead + n; {
	case len(b) < end+inviteCheck:
		return Invite{}, ErrInviteCut
	case len(b) > end+inviteCheck:
		return Invite{}, fmt.Errorf("%w: there is something after its end", ErrInviteMistyped)
	case !canonical, string(inviteSum(b[:end])) != string(b[end:]):
		return Invite{}, ErrInviteMistyped
	default:
		return parseInviteBody(b[inviteHead:end])
	}
}

// checkInvitePrefix tells a newer invite from something else.
func checkInvitePrefix(s string) error {
	l := strings.ToLower(s)
	switch {
	case strings.HasPrefix(l, invitePrefix):
		return nil
	case l != "" && strings.HasPrefix(invitePrefix, l):
		return ErrInviteCut
	}
	rest, ok := strings.CutPrefix(l, inviteFamily)
	version, _, dash := strings.Cut(rest, "-")
	if ok && dash && version != "" && version[0] != '0' && strings.Trim(version, "0123456789") == "" {
		return ErrInviteNewer
	}
	return ErrInviteNone
}

// parseInviteBody reads what the checksum has found whole: an error means that the one who made it was wrong.
func parseInviteBody(b []byte) (Invite, error) {
	var inv Invite
	if len(b) == 0 || b[0]&^flagPrivate != 0 {
		return Invite{}, ErrInviteNewer
	}
	private := b[0]&flagPrivate != 0
	b = b[1:]
	if private {
		if len(b) < swarmKeyBytes {
			return Invite{}, fmt.Errorf("%w: its key is too short", ErrInviteMistyped)
		}
		inv.Key = swarmKeyOf(b[:swarmKeyBytes])
		b = b[swarmKeyBytes:]
	}
	var last peer.ID
	for len(b) > 0 {
		addr, rest, ok := cutBytes(b)
		if !ok {
			return Invite{}, ErrInviteMistyped
		}
		id, rest, ok := cutBytes(rest)
		a, err := ma.NewMultiaddrBytes(addr)
		if !ok || err != nil || len(inv.Addrs) == maxInviteAddrs {
			return Invite{}, fmt.Errorf("%w: it has an address that is none", ErrInviteMistyped)
		}
		if len(id) > 0 {
			last = peer.ID(id)
		}
		s := a.String() + "/p2p/" + last.String()
		if info, err := parsePeer(s); err != nil || info.ID != last {
			return Invite{}, fmt.Errorf("%w: it has an address that is none", ErrInviteMistyped)
		}
		inv.Addrs = append(inv.Addrs, s)
		b = rest
	}
	return inv, nil
}

// cutBytes cuts bytes preceded by their length from b.
func cutBytes(b []byte) (out, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) { //nolint:gosec // w is at most len(b)
		return nil, nil, false
	}
	return b[w : w+int(n)], b[w+int(n):], true //nolint:gosec // at most len(b)
}

// encode32 is base32 in lower case without padding.
func encode32(b []byte) string {
	var out strings.Builder
	var acc, bits uint
	for _, c := range b {
		acc, bits = acc<<8|uint(c), bits+8
		for ; bits >= 5; bits -= 5 {
			out.WriteByte(inviteAlphabet[acc>>(bits-5)&31])
		}
	}
	if bits > 0 {
		out.WriteByte(inviteAlphabet[acc<<(5-bits)&31])
	}
	return out.String()
}

// decode32 decodes what is there of a string that may end anywhere, which encoding/base32 would not. canonical
// is false if the bits left over at the end are not 0.
func decode32(s string) (b []byte, canonical bool, err error) {
	var acc, bits uint
	for i, r := range s {
		v := strings.IndexRune(inviteAlphabet, unicode.ToLower(r))
		if v < 0 {
			return nil, false, fmt.Errorf("%w: %q, character %d, can't be in it", ErrInviteMistyped, r, len(invitePrefix)+i+1)
		}
		acc, bits = acc<<5|uint(v), bits+5 //nolint:gosec // 0 to 31
		if bits >= 8 {
			bits -= 8
			b = append(b, byte(acc>>bits)) //nolint:gosec // the lower eight are meant
		}
	}
	return b, bits < 5 && acc&(1<<bits-1) == 0, nil
}
