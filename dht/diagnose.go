package dht

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// diagnosis is what a failed dial means to an operator.
type diagnosis struct {
	text string
	addr string // where, if it is one of several
	sure certainty
}

// certainty says what to do about a diagnosis.
type certainty uint8

const (
	passing  certainty = iota // ordinary, and mends itself
	doubtful                  // may be that, or not
	likely                    // will not mend itself, if something like it is seen twice
	certain                   // will not mend itself
)

// What a failed dial may mean.
const (
	dialNoAnswer = "no answer"
	dialRefused  = "nobody listens there"
	dialNoRoute  = "there is no way there"
	dialCrossed  = "both nodes dialled at the same moment"
	otherNode    = "another node answers there; ask the one that is meant for its address again"
	// Both may also mean that no node answers there at all, but a web server, say.
	keyMismatch = "its swarm key does not match; join with an invite from a node of its swarm"
	isPrivate   = "its swarm key does not match: it belongs to a private swarm, and this node to none; join with an invite"
)

// securityFailure is what libp2p puts before an error that came after the link was made and before the other
// side had proved its ID. It has no type.
const securityFailure = "failed to negotiate security protocol"

// crossed is the error where both ends of a TCP connection have dialled (which the kernel allows, where both do so from
// the port that they listen at): each waits for an answer to its Noise handshake, and reads the beginning of another. Who
// has come that far has the right swarm key.
const crossed = "noise: message is too short"

// diagnose finds the telling one among the errors of a dial's addresses. private tells whether this node has
// a swarm key.
func diagnose(err error, private bool) diagnosis {
	var d *swarm.DialError
	if !errors.As(err, &d) || len(d.DialErrors) == 0 {
		return diagnoseOne(err, private)
	}
	var best diagnosis
	for _, e := range d.DialErrors {
		x := diagnosis{text: dialNoAnswer} // what goes wrong at a relay says nothing of the node
		if !isRelayed(e.Address) {
			x = diagnoseOne(e.Cause, private)
			x.addr = e.Address.String()
		}
		if best.text == "" || x.sure > best.sure || x.addr != "" && best.addr == "" {
			best = x
		}
	}
	return best
}

func diagnoseOne(err error, private bool) diagnosis {
	var other sec.ErrPeerIDMismatch
	switch {
	case errors.As(err, &other):
		return diagnosis{text: otherNode, sure: certain}
	case strings.Contains(err.Error(), crossed):
		return diagnosis{text: dialCrossed}
	case strings.Contains(err.Error(), securityFailure):
		return diagnoseSecurity(err, private)
	case errors.Is(err, syscall.ECONNREFUSED):
		return diagnosis{text: dialRefused}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return diagnosis{text: dialNoRoute}
	}
	return diagnosis{text: dialNoAnswer}
}

// diagnoseSecurity is for links on which the other side did not say what a node says first. Between swarms
// with different keys, and between an open and a private one, both sides read noise, and soon one finds that
// it is none and hangs up on the other; or both take it for the length of something and wait for that. A
// node that is just stopping, or has too many connections, hangs up as well, and one that is stuck does not
// answer.
func diagnoseSecurity(err error, private bool) diagnosis {
	var t net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return diagnosis{text: dialNoAnswer, sure: doubtful}
	}
	d := diagnosis{text: isPrivate, sure: certain}
	if private {
		d.text = keyMismatch
	}
	for _, hungUp := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, hungUp) {
			d.sure = likely
		}
	}
	return d
}
