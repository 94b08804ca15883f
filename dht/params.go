package dht

import (
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// What the protocol fixes: nodes that differ here do not understand one another.
const (
	// kadPrefix makes kad-dht speak KadProtocol.
	kadPrefix protocol.ID = "/mozzie"
	// KadProtocol is Kademlia among the nodes of a swarm. Who speaks it is a node; whoever else connects
	// (an IPFS node that tries every port, say) is none.
	KadProtocol protocol.ID = "/mozzie/kad/1.0.0"
	// peersProtocol is how neighbours are asked for theirs; see exchange.go.
	peersProtocol protocol.ID = "/mozzie/peers/1.0.0"

	// kadK is k, the size of a bucket and of an answer. 20 is the paper's value (Maymounkov and Mazières
	// 2002), chosen so that k nodes of one bucket are unlikely to vanish within an hour.
	kadK = 20
)

// What is ours to tune: each node for itself.
const (
	// kadAlpha is α, how many nodes a lookup asks at a time. The paper has 3; a node that hangs holds one
	// place for requestTimeout, and 5 leaves enough of the others. (IPFS uses 10, for a network of which
	// much is dead; ours mostly lives.)
	kadAlpha = 5
	// kadBeta is β, how many of the closest must have answered before a lookup ends. A set has r = 3
	// members, of which the asking node may be one and kad-dht leaves it out; two more cover members that
	// die between the lookup and the first message.
	kadBeta = 5
	// kadRefresh is how often buckets that saw no lookup are refreshed. kad-dht's default of 10 minutes
	// is for tables that nothing else fills: here the neighbour exchange brings new nodes, and a dead one
	// is dropped by the lookup that meets it. A refresh costs a node up to some 300 messages.
	kadRefresh = 30 * time.Minute
	// kadRefreshTimeout bounds one lookup of a refresh.
	kadRefreshTimeout = 10 * time.Second
	// kadLookupChecks is how many nodes at a time are asked a question before they enter the table.
	kadLookupChecks = 32

	// requestTimeout is how long an answer to one Kademlia request may take. kad-dht itself allows 10 s
	// and asks twice, so that a hung node among the closest would hold every lookup for 20 s.
	requestTimeout = 3 * time.Second
	// followUpGrace is how long a lookup that is over waits for the rest of the k closest to answer.
	followUpGrace = 250 * time.Millisecond

	// dialTimeout bounds a dial with all its addresses and handshakes, dialTimeoutLocal one to a private
	// address. libp2p's 15 s and 5 s would hold a lookup for as long.
	dialTimeout      = 8 * time.Second
	dialTimeoutLocal = 3 * time.Second
	// maxDials is how many dials run at once. A handshake costs a Raspberry Pi 3 some 10 ms.
	maxDials = 16
	// maxTargets bounds the peers that are being dialled or waited for.
	maxTargets = 2048
	// maxSmall bounds Config.Small: a full mesh of more costs more than it gives.
	maxSmall = 500
	// meshSlack: the mesh is kept up to Config.Small and one in so many nodes more, so that nobody who takes
	// a swarm for small finds it without links.
	meshSlack = 4
	// sparseDegree is how many links a node of a large swarm keeps of its own accord; the routing table
	// makes more as it needs them.
	sparseDegree = 32

	// maxBook bounds the peers remembered, bookAge how long one is that was not met again, bookInterval how
	// often changes are written (an SD card's life is a feature). A node that was met for the first time, or at
	// other addresses, is written after bookSoon, in which others follow, but not within bookGap of the last time:
	// who is killed before that may find nobody at the next start.
	maxBook      = 1000
	bookAge      = 30 * 24 * time.Hour
	bookInterval = 5 * time.Minute
	bookSoon     = 3 * time.Second
	bookGap      = 30 * time.Second
	// maxAddrs bounds the addresses remembered, or passed on, of one peer.
	maxAddrs = 8

	// reservationTTL is how long a reservation stands at a relay that hears no more of it, although the
	// connection lives; they are asked for again after half of it.
	reservationTTL = 2 * time.Hour
	// maxReservations is at how many relays a node holds one. Each costs some 500 bytes an hour and a word in
	// the relay's memory; who cannot dial a node tries a few of its own relays, which should be among them.
	maxReservations = 8
	// maxCircuits bounds the circuit addresses that a node tells, keptRelayed is how many of them are kept
	// where addresses are cut to maxAddrs.
	maxCircuits, keptRelayed = 4, 3
	// relaysTried is how many relays of its own a node tries in one dial.
	relaysTried = 3
	// reserveTimeout bounds the request for a reservation; firstReserveWait is the interval after a failure, which
	// doubles up to maxReserveWait.
	reserveTimeout                   = 10 * time.Second
	firstReserveWait, maxReserveWait = time.Second, 10 * time.Minute
	// circuitsSettle is how long circuit addresses that come and go are collected before they are told: telling
	// costs a message to every peer.
	circuitsSettle = 10 * time.Second

	// relayReservations, relayCircuits and relayCircuitsPerPeer bound what a relay carries: nodes that hold
	// reservations, links in all (45 nodes that have no other way to each other), links of each. A link costs
	// some 40 KiB: two streams, two goroutines and two buffers of relayBuffer.
	relayReservations    = 256
	relayCircuits        = 1024
	relayCircuitsPerPeer = 128
	relayBuffer          = 8 << 10

	// directWait is the interval between tries to reach a peer directly that is connected through a relay. It
	// doubles up to directMaxWait.
	directWait, directMaxWait = 5 * time.Second, 15 * time.Minute

	// closeTimeout is how long Close waits for libp2p.
	closeTimeout = 4 * time.Second
)
