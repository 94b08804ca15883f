package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// TestNoFilesLeft takes the node all the file descriptors that it may have: who is connected is served on, and new clients
// are again as soon as there are some.
func TestNoFilesLeft(t *testing.T) {
	long(t)
	const files = 256
	n := newNode(t, "node", "--open")
	n.prefix = []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, files), "sh"}
	n.env = append(n.env, "MOZZIE_ADMIN_PPROF=true")
	n.start()
	n.ready()
	b := startBeside(t, n)
	quiet := b.during("before")
	quiet.while(time.Second)
	before := n.footprint()
	accepting := `mozzie_connection_errors_total{cause="accept_error"}`
	errorsBefore := n.metric(accepting)

	b.comes.Store(false)
	meanwhile := b.during("meanwhile")
	f := &flooded{node: n}
	var conns []net.Conn
	for i := range 2 * files { // the system's queue takes those that the node cannot
		conns = append(conns, f.dialFrom(t, i))
	}
	meanwhile.while(3 * time.Second)
	b.caughtUp()
	closedAll(t, conns, false)
	eventually(t, patience, func() error { return visitOnce(n.mqtt) })
	after := b.during("after")
	b.comes.Store(true)
	now := n.recovers(before)
	after.while(time.Second)
	b.end()
	for _, p := range []*phase{quiet, meanwhile, after} {
		t.Log(p)
		p.served(t)
	}
	t.Logf("before: %v; after: %v", before, now)
	if v := n.metric(accepting) - errorsBefore; v <= 0 {
		t.Errorf("%s has not grown", accepting)
	} else {
		t.Logf("%s: %.0f more", accepting, v)
	}
	n.quietLog()
}
