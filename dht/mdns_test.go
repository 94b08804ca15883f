package dht

import (
	"slices"
	"strings"
	"testing"
)

// TestMDNS has the nodes of two swarms find their own, where this machine has multicast.
func TestMDNS(t *testing.T) {
	t.Parallel()
	if !canMulticast() {
		t.Skip("no interface has multicast")
	}
	key := NewSwarmKey()
	start := func(key *SwarmKey) (*Host, *logBuffer) {
		var log logBuffer
		cfg := testConfig(t)
		cfg.SwarmKey = key
		cfg.MDNS = true
		cfg.Log = log.logger()
		return open(t, cfg), &log
	}
	a, log := start(key)
	b, _ := start(key)
	c, _ := start(nil)
	d, _ := start(nil)
	eventually(t, "mDNS has started", func() bool { return strings.Contains(log.String(), "local network") })
	if strings.Contains(log.String(), "can't look") {
		t.Skip(log.String())
	}
	eventually(t, "each swarm is together", func() bool { return linked(a, b) && linked(c, d) })
	if slices.Contains(a.Connected(), c.ID()) || slices.Contains(d.Connected(), b.ID()) {
		t.Error("two swarms are one")
	}
}

func TestMDNSServiceNames(t *testing.T) {
	private, open := mdnsService(NewSwarmKey()), mdnsService(nil)
	if private == open || private == mdnsService(NewSwarmKey()) {
		t.Error("swarms share a name")
	}
	for _, s := range []string{private, open} {
		label, rest, _ := strings.Cut(s, ".")
		if len(label) > 16 || rest != "_udp" { // an underscore and 15 characters, RFC 6763, section 7.2
			t.Errorf("service name %q", s)
		}
	}
}
