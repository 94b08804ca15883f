package dht

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

func TestDiagnose(t *testing.T) {
	const direct, relayed = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit"
	security := func(err error) error { return fmt.Errorf("%s: %w", securityFailure, err) }
	for _, c := range []struct {
		name string
		errs map[string]error // by address
		want diagnosis
	}{
		{"refused", map[string]error{direct: syscall.ECONNREFUSED}, diagnosis{dialRefused, direct, passing}},
		{"no relay either", map[string]error{direct: syscall.ECONNREFUSED, relayed: errors.New("NO_RESERVATION")}, diagnosis{dialRefused, direct, passing}},
		{"a relay hangs up", map[string]error{direct: syscall.EHOSTUNREACH, relayed: security(io.EOF)}, diagnosis{dialNoRoute, direct, passing}},
		{"relays alone", map[string]error{relayed: errors.New("NO_RESERVATION")}, diagnosis{dialNoAnswer, "", passing}},
		{"key", map[string]error{direct: security(errors.New("invalid varint"))}, diagnosis{isPrivate, direct, certain}},
		{"crossed", map[string]error{direct: security(errors.New("error reading handshake message: " + crossed))}, diagnosis{dialCrossed, direct, passing}},
	} {
		d := new(swarm.DialError)
		for _, a := range []string{relayed, direct, relayed} {
			if err := c.errs[a]; err != nil {
				d.DialErrors = append(d.DialErrors, swarm.TransportError{Address: ma.StringCast(a), Cause: err})
			}
		}
		if got := diagnose(d, false); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
