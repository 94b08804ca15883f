package core_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestSharedAlone [MQTT-4.8.2-4]: a member of a set that is alone for a while serves its own clients of a shared subscription. It may be
// started again then. When it is back among the others nobody else of the group gets at QoS 2 what they had.
func TestSharedAlone(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		alone := s.members[2]
		alone.subscribe("$share/g/a/#", 2)
		s.run(3 * time.Second)
		for _, v := range s.group {
			v.wake()
		}
		s.cut(alone)
		s.run(time.Duration(s.rng.Int64N(int64(30 * time.Second))))
		s.publish(10, 2)
		if s.rng.IntN(2) == 0 {
			alone.crash()
			s.run(5 * time.Second)
			alone.reboot()
			s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		}
		s.rejoin(alone)
		s.come(1)
		s.report(seed)
	})
}

// TestSharedTwoRendezvous [MQTT-4.8.2-4]: two members of a set can't see each other, and each serves. What has come to the first and is
// sent to the second stays with the first's choice, which the third member knows.
func TestSharedTwoRendezvous(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		first, second, publisher := s.members[0], s.members[1], s.members[2]
		near, far := s.group[0], s.group[1] // of the first
		part, join := s.parting()
		for _, v := range s.group {
			v.wake()
		}
		far.asleep = s.rng.IntN(2) == 0
		near.asleep = s.rng.IntN(2) == 0
		part(first, second)
		part(first, far)
		part(first, s.group[2])
		part(second, near)
		s.run(time.Duration(s.rng.Int64N(int64(10 * time.Second))))
		for range 10 {
			s.all = append(s.all, publisher.publish("a/b", 2, false, "v"))
			s.run(time.Duration(s.rng.Int64N(int64(40 * time.Millisecond))))
		}
		part(first, publisher)
		if s.rng.IntN(2) == 0 { // nobody hears, or says, who has been chosen
			s.mute = func(frame any) bool { _, ok := frame.(*pb.Chosen); return ok }
		}
		s.run(20 * time.Second)
		s.mute = nil
		join()
		s.meet()
		s.come(1)
		s.report(seed)
	})
}

// TestSharedNoted [MQTT-4.8.2-4]: a rendezvous that has lost sight of the other members chooses, and so does the next one, to which the publisher's
// node sends the message again, knowing nothing of the first but what that node has been told.
func TestSharedNoted(t *testing.T) {
	eachSeed(t, fewer(), func(t *testing.T, seed uint64) {
		s := newSharing(t, seed)
		first, publisher := s.members[0], s.group[2]
		part, join := s.parting()
		for _, v := range s.group {
			v.wake()
			v.asleep = s.rng.IntN(2) == 0
		}
		publish := func() {
			s.all = append(s.all, publisher.publish("a/b", 2, false, "v"))
			s.run(time.Duration(s.rng.Int64N(int64(40 * time.Millisecond))))
		}
		for range s.rng.IntN(3) {
			publish()
		}
		part(first, s.group[1])
		for _, other := range s.members[1:] {
			part(first, other)
			part(other, s.group[0])
		}
		s.run(time.Duration(s.rng.Int64N(int64(10*time.Second))) * time.Duration(s.rng.IntN(2)))
		for range 10 {
			publish()
		}
		part(first, publisher)
		s.run(20 * time.Second)
		join()
		s.meet()
		for _, v := range s.group {
			v.wake()
		}
		s.come(1)
		s.report(seed)
	})
}

// parting returns what cuts links, and what has them be whole again.
func (s *sim) parting() (part func(v, w *simNode), join func()) {
	gone := map[[2]*simNode]bool{}
	s.apart = func(v, w *simNode) bool { return gone[[2]*simNode{v, w}] || gone[[2]*simNode{w, v}] }
	part = func(v, w *simNode) {
		gone[[2]*simNode{v, w}] = true
		s.disconnect(v, w)
	}
	return part, func() { clear(gone) }
}
