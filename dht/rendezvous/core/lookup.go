package core

import (
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
)

// In a swarm of more than Config.Small nodes nobody knows everybody. Who is closest to a location is looked
// up in Kademlia, by the driver; those that the lookup finds are connected to, and from then on they are known
// and count as in a small swarm. Until then a message goes to the closest node known, which passes it on.

// lookupEvery is how often a route whose set nobody has agreed on is looked up again.
const lookupEvery = time.Minute

// lookup is a search for the nodes closest to a place.
type lookup struct {
	place   Place
	missing map[string]bool // peer IDs that it found and that are not connected yet
	until   time.Duration
	then    []func() // what goes on when it is over
	found   bool
}

// large reports whether the swarm has more nodes than everybody knows.
func (n *Node) large() bool {
	live := 1
	for _, p := range n.ordered {
		if !p.gone && !p.left {
			live++
		}
	}
	return live > n.cfg.Small
}

// lookUp looks for the nodes closest to a place, and calls then when they are connected, or cannot be in time.
func (n *Node) lookUp(place Place, then func()) {
	at := place.Location()
	k := n.lookups[at]
	if k == nil {
		k = &lookup{place: place, until: n.now + 2*promiseTime}
		n.lookups[at] = k
		n.out = append(n.out, Effect{Kind: Lookup, Place: place})
	}
	if then != nil {
		k.then = append(k.then, then)
	}
}

// meet asks for a connection to a node that something is to be sent to. In a small swarm everybody is
// connected to everybody anyway.
func (n *Node) meet(id NodeID) *peer {
	p := n.peers[id]
	if p == nil {
		if len(n.peers) >= n.cfg.Limits.Nodes {
			n.stats.PeersFull++
			return nil
		}
		p = n.addPeer(id)
	}
	if !p.up && !p.gone && !p.left && (p.dialled == 0 || n.now-p.dialled > lookupEvery) {
		p.dialled = max(n.now, 1)
		n.out = append(n.out, Effect{Kind: Dial, To: id, Addresses: p.addresses})
	}
	return p
}

// LookedUp tells what the lookup of a place has found: peer IDs in bytes, the closest first, only such as have
// answered.
func (n *Node) LookedUp(place Place, peers []string) {
	k := n.lookups[place.Location()]
	if k == nil || k.found {
		return
	}
	k.found = true
	k.missing = map[string]bool{}
	for _, id := range peers[:min(len(peers), SetSize+1)] {
		if id == n.self.Peer() || slices.ContainsFunc(n.ordered, func(p *peer) bool { return p.up && p.id.Peer() == id }) {
			continue
		}
		k.missing[id] = true
		n.out = append(n.out, Effect{Kind: Dial, To: MakeNodeID(0, id)})
	}
	n.endLookup(place.Location(), k)
}

// metLookup notes that a node has come up.
func (n *Node) metLookup(id NodeID) {
	for _, at := range n.lookupPlaces() {
		k := n.lookups[at]
		delete(k.missing, id.Peer())
		n.endLookup(at, k)
	}
}

func (n *Node) endLookup(at dht.Location, k *lookup) {
	if n.lookups[at] != k || n.now < k.until && (!k.found || len(k.missing) > 0) {
		return
	}
	delete(n.lookups, at)
	if r := n.routes[k.place]; r != nil {
		n.reroute(r)
	}
	for _, then := range k.then {
		then()
	}
}

func (n *Node) tickLookups() {
	for _, at := range n.lookupPlaces() {
		n.endLookup(at, n.lookups[at])
	}
}

func (n *Node) lookupPlaces() []dht.Location {
	all := make([]dht.Location, 0, len(n.lookups))
	for at := range n.lookups {
		all = append(all, at)
	}
	slices.SortFunc(all, cmpLocation)
	return all
}
