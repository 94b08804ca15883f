package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// stream is a publisher's epoch at a location, where this node is or was its rendezvous, or holds second
// copies. It knows which numbers came, until nobody can send them again.
type stream struct {
	epoch    uint64
	l        *location
	hop      NodeID // who sent the last one, and gets the acknowledgements
	low      uint64 // everything up to here is over, for everybody, for good
	freed    uint64 // the publisher has let go of everything up to here
	seen     spans  // numbers that came, above low
	entries  numbered[*entry]
	chosen   map[proto.Group]*spans // numbers above low of messages at QoS 2 that were somebody's, and are over here
	owed     map[NodeID]*spans      // numbers above low that are over, and that a node has not let go of for good; see debts.go
	confided map[NodeID]*confidence // above low, by who was told
	told     map[NodeID]uint64      // what the subscribers' nodes were told they may forget
	closed   bool                   // nothing will follow
	lively   bool                   // it is in Node.lively
	touched  time.Duration          // when the last one came
}

func (s *stream) trim() {
	s.seen.trim(s.low)
	for g, all := range s.chosen {
		if all.trim(s.low); len(*all) == 0 {
			delete(s.chosen, g)
		}
	}
	for node, told := range s.confided {
		if told.numbers.trim(s.low); len(told.numbers) == 0 {
			delete(s.confided, node)
		}
	}
}

// release notes what the publisher has let go of.
func (s *stream) release(upto uint64) { s.freed = max(s.freed, upto) }

// advance forgets the numbers that the publisher has let go of and that are over here and for good. One that never came here
// stops it: another rendezvous may still have that message to deliver.
func (s *stream) advance() {
	if len(s.seen) == 0 || s.seen[0].from > s.low+1 {
		return
	}
	low, upto := s.low, min(s.freed, s.seen[0].to, s.firstOwed()-1)
	switch {
	case upto <= low:
		return
	case upto-low > uint64(s.entries.len()): //nolint:gosec // a count
		for seq := range s.entries.values {
			if seq > low {
				upto = min(upto, seq-1)
			}
		}
		s.low = max(low, upto)
	default:
		for s.low < upto && s.entries.get(s.low+1) == nil {
			s.low++
		}
	}
	if s.low > low {
		s.trim()
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
	if upto := f.GetUpto(); upto > s.low {
		s.seen.cover(s.low+1, upto)
		s.release(upto)
		for _, seq := range s.entries.sorted() {
			if seq <= upto {
				n.letGoOf(s.entries.get(seq))
			}
		}
		s.advance() // as far as nothing is owed that only this node knows of
	}
	budget := epochSize
	for _, g := range f.GetRanges() {
		for seq := max(g.GetFrom(), s.low+1); seq <= g.GetTo() && budget > 0; seq++ {
			budget--
			s.seen.add(seq)
		}
	}
	s.trim()
	n.takeOwed(s, f.GetOwed())
}

// receiveForget forgets what is over in epochs, and epochs that are.
func (n *Node) receiveForget(p *peer, f *pb.Forget) {
	for _, e := range f.GetEpochs() {
		s := n.streams[e.GetEpoch()]
		switch {
		case f.GetReleased():
			n.receiveReleased(p, e)
			continue
		case s != nil && s.l.phase != serving && n.rendezvous(s.l.set) == p.id: // copies, beside what its subscribers had
			s.release(e.GetUpto())
			s.closed = s.closed || e.GetClosed()
			n.forgetCopies(s, e.GetUpto())
			n.enliven(s)
		}
		n.forgetReceived(e.GetEpoch(), e.GetUpto(), e.GetClosed())
	}
}

// receiveReleased notes that a publisher's node has let go of an epoch, or of the beginning of one. What others have had of it is
// over when the rendezvous says so.
func (n *Node) receiveReleased(p *peer, e *pb.Forget_Epoch) {
	if s := n.streams[e.GetEpoch()]; s != nil && s.hop == p.id {
		s.release(e.GetUpto())
		s.closed = s.closed || e.GetClosed()
		n.enliven(s)
	}
	if back, ok := n.relayed[e.GetEpoch()]; ok && back.to == p.id && e.GetClosed() {
		delete(n.relayed, e.GetEpoch())
	}
}

// forgetCopies forgets second copies that their rendezvous says are over for good.
func (n *Node) forgetCopies(s *stream, upto uint64) {
	for _, seq := range s.entries.sorted() {
		if e := s.entries.get(seq); seq <= upto && e.copy {
			n.release(e)
		}
	}
	if upto > s.low {
		s.seen.cover(s.low+1, upto)
		s.trimOwed(upto)
		s.advance()
	}
}

// eachEntry calls do with the messages in custody that some ranges name.
func (s *stream) eachEntry(ranges []*pb.Range, do func(e *entry)) {
	for _, g := range ranges {
		to := min(g.GetTo(), g.GetFrom()+epochSize)
		if s.entries.len() == 0 {
			return
		}
		if to-g.GetFrom() > 4*uint64(s.entries.len()) { //nolint:gosec // a count; it claims more than there is: look at what there is
			for _, seq := range s.entries.sorted() {
				if seq >= g.GetFrom() && seq <= to {
					do(s.entries.get(seq))
				}
			}
			continue
		}
		for seq := max(g.GetFrom(), s.low+1); seq <= to; seq++ {
			if e := s.entries.get(seq); e != nil {
				do(e)
			}
		}
	}
}

// tickStreams tells the subscribers' nodes what is over, and forgets epochs that are.
func (n *Node) tickStreams() {
	news, due := map[NodeID][]*pb.Forget_Epoch{}, debtors{}
	all := n.lively
	n.lively = nil
	slices.SortFunc(all, func(a, b *stream) int { return cmp.Compare(a.epoch, b.epoch) })
	for _, s := range all {
		s.lively = false
		if n.streams[s.epoch] != s {
			continue
		}
		s.advance()
		due.add(n, s)
		over := s.closed && s.entries.len()+len(s.owed) == 0
		if over && s.l.waiting.len() > 0 { // what came once more may be among it
			n.enliven(s)
			continue
		}
		whole := over && s.low >= s.freed && len(s.seen) == 0 // else another may have had some of it, and tells
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
	n.collect(due)
}
