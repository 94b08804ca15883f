// Package watch has a node's wills sent where the node dies. The will of each client stands as a retained message at the node's
// own location, of which the name is made from its peer ID; so the set of that location has it in three copies, and the same
// nodes watch the node: each asks it for a lease, which tells when it was alive. When the rendezvous of the location has not
// heard of it for 15 s, and another member says the same, it sends the wills, each under the identity that it was given when its
// client connected. Before it sends one it marks it as fired, and waits until all members in reach have the mark.
//
// The node that was watched asks its location before it sends a will, unless it knows that it was not taken for dead: it holds
// leases from a majority of the set, and has for a while. What was fired is not sent again; where the client was connected all
// the time, it was a false alarm, and is put right.
//
// Package node makes a Watch of a node's rendezvous service, host and broker, in open and private swarms alike. It is no part of
// package roam, since sessions are not for open swarms, wills are.
//
// # Files
//
// watcher.go and trust.go decide, without clock and I/O: what a node does about others' wills, and whether it may send its own.
// watch.go, keep.go, fire.go and ask.go drive them. names.go and records.go say how things look, store.go notes what stands here.
//
// # Goroutines
//
//   - runWork: does one thing after another: what others say, what the broker wants, and a tick each second. Owner Watch, ends in
//     Close.
//   - runAsk: asks a member. Owner Watch, bounded by askTime.
//   - runAnswer: answers one, in libp2p's goroutine. Ends with the stream, after askTime at the latest.
//
// Neither broker nor swarm is called with Watch.mu or Store.mu held, but for the swarm's clock.
package watch
