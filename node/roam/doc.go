// Package roam lets sessions go where their clients connect. Each session of a private swarm has one holder, the node at which
// its client connected last; who holds which is said by claims, messages under a name made from the session's key, which the
// nodes that have a session under that key are registered for. The claim of a session with an expiry is retained, with the
// session but for its messages, so that it outlives its node. A claim carries a number that rises from holder to holder; where
// two meet, the higher one holds. The new holder fetches the session from the old one over a stream (Arrival); where that is
// gone, it goes on with what is retained, and fetches the rest when the other is back.
//
// Package node makes a Roam of a node's rendezvous service, host and broker; a node in an open swarm has none.
//
// # Goroutines
//
//   - runVerify: asks who holds the sessions that were here before there were other nodes. Owner Roam, ends with its work or in
//     Close.
//   - runRefresh: makes retained claims anew before they are forgotten. Owner Roam, ends in Close.
//   - runLose: gives a session up. Owner Roam, ends with that.
//   - runServe: lets another node fetch a session, in libp2p's goroutine; runAnswers reads what that says. They end with the
//     stream, and in Close.
//   - runOffers: offers parts of sessions that nobody fetches; runOffer is one offer. Owner Roam, they end in Close.
//   - runClaimLate: claims a session that went on while no other node could be reached. Owner Roam, ends with that, or in Close.
//   - what waited for a claim goes on in a goroutine of its own when that is kept. Owner Roam, ends with that.
//   - runTell: says what was taken of an arrival. Owner pull, ends with its stream.
//
// Roam.mu is taken last: neither broker nor swarm is called with it held. Roam.hearing is held while the swarm is told whether claims
// to a session come here, and taken before it.
package roam
