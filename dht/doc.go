// Package dht is the swarm: the libp2p host, how nodes find one another, Kademlia, and where topics live.
//
// It knows nothing of MQTT beyond topics. Package node opens a Host and hands it to those who need peers;
// the streams between nodes are theirs, on the host that Libp2p returns.
//
// # What a Host promises
//
// Open does not wait for the network: a node alone is complete, and becomes part of the swarm when peers
// appear. Bootstrap peers, peers met before, peers that mDNS finds and peers asked for with Dial are dialled
// with back-off for as long as they matter. A swarm of up to Config.Small nodes becomes a full mesh, by
// asking neighbours for theirs (/mozzie/peers/1.0.0, described at exchange.go); a larger one is held
// together by Kademlia's routing table and a handful of links. A private swarm is kept apart by libp2p's
// pre-shared key: who lacks it does not get past the first bytes. Nodes that cannot reach each other are connected
// through others that both reach (relay.go).
//
// # Goroutines
//
// Every one is owned by its Host, and ended and waited for by Close:
//
//   - runPeers: reads libp2p's event bus, keeps the set of connected nodes and tells everyone else. Ends
//     when the Host's context does.
//   - runDialer: starts dials when they are due, at most maxDials at a time, each in a goroutine of its own
//     (runDial) that is bounded by dialTimeout. Ends with the context and waits for them.
//   - runExchange: asks one neighbour at a time for its neighbours. Ends with the context.
//   - runBook: writes the peers met before to disk, soon after a new one, at intervals and once more at the end.
//   - runReserver: keeps reservations with relays, each asked for in a goroutine of its own (runReserve) that is
//     bounded by reserveTimeout. Ends with the context and waits for them.
//   - runMDNS: announces and looks for nodes on the LAN, again when this machine's addresses change. Ends
//     with the context.
//
// A lookup (Closest) runs two goroutines that end with it. libp2p and kad-dht run their own, which Close
// stops; it waits for them no longer than closeTimeout. Only a search for routers (UPnP, with Config.NAT, in
// the first seconds) can't be stopped and goes on for up to 10 s, holding nothing of the Host.
package dht
