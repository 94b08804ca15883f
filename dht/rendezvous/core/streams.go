package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// stream is a publisher's epoch at a location, where this node is or was its rendezvous, or holds second
// copies. It knows which numbers came, until nobody can send them again.
type stream struct {
	epoch   uint64
	l       *location
	hop     NodeID // who sent the last one, and gets the acknowledgements
	low     uint64 // everything up to here is over, for everybody
	freed   uint64 // the publisher has let go of everything up to here
	seen    spans  // numbers that came, above low
	entries numbered[*entry]
	told    map[NodeID]uint64 // what the subscribers' nodes were told they may forget
	closed  bool              // nothing will follow
	lively  bool              // it is in Node.lively
	touched time.Duration     // when the last one came
}

// release notes what the publisher has let go of.
func (s *stream) release(upto uint64) { s.freed = max(s.freed, upto) }

// advance forgets the numbers that the publisher has let go of and that are over here. One that never came here
// stops it: another rendezvous may still have that message to deliver.
func (s *stream) advance() {
	low := s.low
	for s.low < s.freed && s.entries.get(s.low+1) == nil && s.seen.has(s.low+1) {
		s.low++
	}
	if s.low > low {
		s.seen.trim(s.low)
	}
}

func (n *Node) stream(l *location, epoch uint64) *stream {
	s := n.streams[epoch]
	if s == nil {
		s = &stream{epoch: epoch, l: l}
		l.streams++
		n.streams[epoch] = s
	}
	s.touched = n.now
	n.enliven(s)
	if s.l != l { // it came when the location was another's, or its place was forgotten and found again
		s.l.streams--
		s.l = l
		l.streams++
	}
	return s
}

// dropStream forgets an epoch.
func (n *Node) dropStream(s *stream) {
	s.l.streams--
	delete(n.streams, s.epoch)
}

// enliven has a stream gone through at the next tickStreams.
func (n *Node) enliven(s *stream) {
	if !s.lively {
		s.lively = true
		n.lively = append(n.lively, s)
	}
}

func (n *Node) streamsOf(l *location) []*stream {
	var all []*stream
	for _, epoch := range sortedKeys(n.streams) {
		if s := n.streams[epoch]; s.l == l {
			all = append(all, s)
		}
	}
	return all
}

// takeSeen takes over which numbers of an epoch came to a rendezvous before.
func (n *Node) takeSeen(l *location, f *pb.Seen) {
	if f.GetEpoch() == 0 {
		return
	}
	s := n.stream(l, f.GetEpoch())
	if f.GetUpto() > s.low {
		s.low = f.GetUpto()
		for _, seq := range s.entries.sorted() {
			if seq <= s.low {
				n.release(s.entries.get(seq))
			}
		}
	}
	budget := epochSize
	for _, g := range f.GetRanges() {
		for seq := max(g.GetFrom(), s.low+1); seq <= g.GetTo() && budget > 0; seq++ {
			budget--
			s.seen.add(seq)
		}
	}
	s.seen.trim(s.low)
}

// receiveForget closes an epoch, or forgets what is over in it.
func (n *Node) receiveForget(p *peer, f *pb.Forget) {
	for _, e := range f.GetEpochs() {
		if s := n.streams[e.GetEpoch()]; s != nil {
			holder := s.l.phase != serving && n.rendezvous(s.l.set) == p.id // of copies, and may have subscribers too
			if holder || s.hop == p.id || s.hop == n.self {
				s.release(e.GetUpto())
				s.closed = s.closed || e.GetClosed()
				n.enliven(s)
				n.releaseCopies(s, e.GetUpto())
				if !holder {
					continue // what its own subscribers have had is over when everybody is through
				}
			}
		}
		if to, ok := n.relayed[e.GetEpoch()]; ok && to == p.id && e.GetClosed() {
			delete(n.relayed, e.GetEpoch())
		}
		n.forgetReceived(e.GetEpoch(), e.GetUpto(), e.GetClosed())
	}
}

// releaseCopies lets go of second copies that their rendezvous says are over.
func (n *Node) releaseCopies(s *stream, upto uint64) {
	for _, seq := range s.entries.sorted() {
		if e := s.entries.get(seq); seq <= upto && e.copy {
			n.release(e)
		}
	}
}

// tickStreams tells the subscribers' nodes what is over, and forgets epochs that are.
func (n *Node) tickStreams() {
	news := map[NodeID][]*pb.Forget_Epoch{}
	all := n.lively
	n.lively = nil
	slices.SortFunc(all, func(a, b *stream) int { return cmp.Compare(a.epoch, b.epoch) })
	for _, s := range all {
		s.lively = false
		if n.streams[s.epoch] != s {
			continue
		}
		s.advance()
		over := s.closed && s.entries.len() == 0
		whole := over && s.low >= s.freed // else another may have had some of it, and tells
		for _, t := range sortedKeys(s.told) {
			if (s.told[t] < s.low || whole) && n.inReach(t) {
				s.told[t] = s.low
				news[t] = append(news[t], &pb.Forget_Epoch{Epoch: s.epoch, Upto: s.low, Closed: whole})
			}
		}
		if whole {
			n.forgetReceived(s.epoch, s.low, true) // by this node's own subscribers
		}
		if over {
			n.dropStream(s)
		}
	}
	for _, t := range sortedKeys(news) {
		n.send(t, &pb.Forget{Epochs: news[t]})
	}
}
