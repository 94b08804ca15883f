package core

// pumpWindow is how many frames a pump sends ahead of what is acknowledged: enough to keep a link busy, and no more
// than a link's buffer takes.
const pumpWindow = 16

// pump sends what does not fit into a frame: frames that are made one at a time, when there is room for them.
type pump struct {
	n  *Node
	to NodeID
	// next returns the next frame, and what to do when it is acknowledged or cannot be; frame is nil when there is
	// none.
	next    func() (frame func(op uint64) any, acked func(ok bool))
	done    func(ok bool) // called once, with whether all of it arrived
	flying  int
	stopped bool
	failed  bool
}

func (p *pump) run() {
	for !p.stopped && p.flying < pumpWindow {
		frame, acked := p.next()
		if frame == nil {
			p.stopped = true
			break
		}
		p.flying++
		p.n.request(p.to, frame, func(ok bool) {
			p.flying--
			if !ok {
				p.failed, p.stopped = true, true
			}
			acked(ok)
			p.run()
		})
	}
	if done := p.done; p.flying == 0 && p.stopped && done != nil {
		p.done = nil
		done(!p.failed)
	}
}
