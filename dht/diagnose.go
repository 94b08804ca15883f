package dht

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// diagnosis is what a failed dial means to an operator.
type diagnosis struct {
	text    string
	addr    string // where, if it is one of several
	serious bool   // will not mend itself
}

// Diagnoses that will not mend themselves.
const (
	keyMismatch  = "its swarm key does not match (or no node of this kind answers there); join with an invite from the swarm that it belongs to"
	nowPrivate   = "it belongs to a private swarm, and this node to an open one (or no node of this kind answers there); join with an invite"
	otherNode    = "another node answers there, with another ID; ask it for its address again"
	dialUnknown  = "no answer"
	dialRefused  = "nobody listens there"
	dialNoRoute  = "no way there"
	dialTimedOut = "no answer in time"
)

// diagnose finds the telling one among the errors of a dial's addresses.
func diagnose(err error, private bool) diagnosis {
	best := diagnosis{text: dialUnknown}
	var d *swarm.DialError
	if !errors.As(err, &d) {
		return diagnoseOne(err, private)
	}
	for _, e := range d.DialErrors {
		if x := diagnoseOne(e.Cause, private); x.serious || best.text == dialUnknown {
			x.addr = e.Address.String()
			best = x
			if x.serious {
				break
			}
		}
	}
	return best
}

func diagnoseOne(err error, private bool) diagnosis {
	var mismatch sec.ErrPeerIDMismatch
	switch {
	case errors.As(err, &mismatch):
		return diagnosis{text: otherNode, serious: true}
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return diagnosis{text: dialTimedOut}
	case strings.Contains(err.Error(), "failed to negotiate security protocol"):
		// The link was made, and what came was not what a node says first. With a pre-shared key on one side
		// or another one on the other, both sides read noise: there is no other sign.
		if private {
			return diagnosis{text: keyMismatch, serious: true}
		}
		return diagnosis{text: nowPrivate, serious: true}
	case errors.Is(err, syscall.ECONNREFUSED):
		return diagnosis{text: dialRefused}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return diagnosis{text: dialNoRoute}
	}
	return diagnosis{text: dialUnknown}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
