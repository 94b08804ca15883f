package core

// serve does the rendezvous' part for one message.
func (n *Node) serve(l *location, a *arrival, above ancestry) {
	keep := a.id.Epoch != 0
	var s *stream
	if keep {
		s = n.stream(l, a.id.Epoch)
		s.hop = a.from
		s.release(a.released)
		if a.id.Seq <= s.low || s.seen.has(a.id.Seq) {
			n.heardBefore(s, a)
			n.again(s, a)
			return
		}
		if a.own == nil && n.custodyFull(2) {
			n.stats.DroppedCustody++ // its publisher's node keeps it, and sends it again
			return
		}
		a.keep()
		if a.own != nil {
			a.own.via = n.self
		}
	}
	var stamp uint64
	if a.m.Retain {
		stamp = n.stamp(l, a)
	}
	except := NodeID("")
	if a.served {
		except = a.publisher
	}
	dests := n.match(l, above, a.m, a.id, except)
	sure := above.sure && n.sureHere(l)
	if !keep {
		n.serveUnkept(l, a, above, dests, sure)
		return
	}
	s.seen.add(a.id.Seq)
	e := &entry{l: l, s: s, id: a.id, m: a.m, size: a.m.Size(), at: n.now, stamp: stamp, own: a.own, matched: true}
	if e.shares = e.few[:0]; len(dests) > len(e.few) {
		e.shares = make([]share, 0, len(dests))
	}
	for _, h := range n.knownOf(a.before) { // they are asked to let go of it before it is forgotten that it came here
		n.mayHave(e, h)
	}
	holds := !n.mayChoose(e)
	held := n.leftOut(e)
	for _, d := range dests {
		if holds {
			var any bool
			d.groups, any = hold(d.groups)
			held = held || any
		}
		if d.plain || len(d.groups) > 0 {
			e.shares = append(e.shares, share{node: d.node, plain: d.plain, groups: d.groups, hold: d.hold})
		}
	}
	n.takeChosen(e, a.chosen)
	e.left = len(e.shares)
	n.take(e)
	if !sure || held {
		n.unsettle(l, e, except)
		e.unset.held = held
	}
	if stamp != 0 {
		n.retain(l, e)
	}
	echo, awaited := a.echo, a.awaited
	if !n.chosen(e) {
		n.goOut(e, echo, awaited)
		return
	}
	n.choose(e, len(a.before) > 0, except, func() { n.goOut(e, echo, awaited) })
}

// heardBefore notes who else may have a message that came before.
func (n *Node) heardBefore(s *stream, a *arrival) {
	for _, h := range n.knownOf(a.before) {
		n.mayHaveToo(s, a.id.Seq, h)
	}
}

// mayHaveToo notes that another node may have a message that came here, if it did. It may be over.
func (n *Node) mayHaveToo(s *stream, seq uint64, node NodeID) {
	switch e := s.entries.get(seq); {
	case e != nil && !e.over():
		n.mayKeep(e, node)
	case s.seen.has(seq): // else it is not forgotten that it came, and this node can't say that it is over
		n.owedBy(s, seq, node)
	}
}

// knownOf returns those of some nodes that this one has heard of. What others bring is not handed over before they have been.
func (n *Node) knownOf(nodes []string) (known []NodeID) {
	for _, id := range nodes {
		if n.peers[NodeID(id)] != nil {
			known = append(known, NodeID(id))
		}
	}
	return known
}

// goOut sends a message that is in custody here to those that it is for, and tells its publisher's node, which waits for
// that with echo, when it is retained; with awaited that waits for a second copy.
func (n *Node) goOut(e *entry, echo, awaited bool) {
	for i := range e.shares {
		if !e.gone {
			n.deliver(e, &e.shares[i])
		}
	}
	switch {
	case echo:
		n.whenListed(e.l, e.m, func() {
			if e.own != nil && e.own.firm && e.keeping > 0 {
				e.whenKept = func() { n.ackTaken(e) }
				return
			}
			n.ackTaken(e)
			if awaited { // now that it may be acknowledged
				n.hasten(e)
			}
		})
	case awaited:
		n.hasten(e)
	}
	n.finish(e)
}
