package watch

import (
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// TestTwoNodes: of two nodes, the one that is left sends the wills of the other.
func TestTwoNodes(t *testing.T) {
	s := newSim(t, 1)
	s.alone = true
	s.members[2].up, s.members[3].up = false, false
	s.run(8 * time.Second)
	s.killX()
	s.run(30 * time.Second)
	for _, c := range s.clients {
		if s.came[c.will.record.Epoch] != 1 {
			t.Errorf("the will of %s came %d times", c.topic, s.came[c.will.record.Epoch])
		}
	}
}

// TestCutOff: who reaches nobody, though there are others, does not take a node for dead.
func TestCutOff(t *testing.T) {
	s := newSim(t, 1)
	s.run(8 * time.Second)
	s.members[2].up, s.members[3].up = false, false
	s.killX()
	s.run(time.Minute)
	if len(s.came) > 0 {
		t.Error("a member that reaches nobody sends wills")
	}
	s.members[2].up = true // with what stood there
	s.run(30 * time.Second)
	if len(s.came) != len(s.clients) {
		t.Errorf("two members sent %d wills", len(s.came))
	}
}

// TestStopped: a node that was stopped itself has heard nobody meanwhile, and takes nobody for dead for that.
func TestStopped(t *testing.T) {
	s := newSim(t, 1)
	s.alone = true
	s.members[2].up, s.members[3].up = false, false
	s.run(8 * time.Second)
	s.members[1].frozen = true
	s.run(time.Minute)
	s.members[1].frozen = false
	s.run(time.Minute)
	if len(s.came) > 0 {
		t.Error("the wills of a node that is alive were sent")
	}
}

// TestGoesOn: a watcher that finds a mark goes on from there, and does not write another, which would have what is retained
// since as what was before.
func TestGoesOn(t *testing.T) {
	w := newWatcher("me")
	w.stands("t", dht.Location{}, &will{node: "x"})
	w.wills["t"].will.record.Epoch = 5
	w.marks("t", dht.Location{}, &fired{epoch: 5})
	var deeds []deed
	for now := time.Duration(0); now < 20*time.Second; now += tickEvery {
		w.tick(view{now: now, heard: func(core.NodeID) (time.Duration, bool) { return 0, false },
			seat: func(dht.Location) core.Seat { return core.Seat{Members: []core.NodeID{"me", "x"}, Serving: true} }})
		deeds = append(deeds, w.take()...)
	}
	if want := []deed{{kind: send, topic: "t", epoch: 5}}; !slices.Equal(deeds, want) {
		t.Fatalf("%+v", deeds)
	}
	w.sent("t", 5)
	if got, want := w.take(), []deed{{kind: seal, topic: "t", epoch: 5}}; !slices.Equal(got, want) {
		t.Fatalf("then %+v", got)
	}
	w.marks("t", dht.Location{}, &fired{epoch: 5, sent: true})
	for now := 20 * time.Second; now < 90*time.Second; now += tickEvery {
		w.tick(view{now: now, heard: func(core.NodeID) (time.Duration, bool) { return 0, false },
			seat: func(dht.Location) core.Seat { return core.Seat{Members: []core.NodeID{"me", "x"}, Serving: true} }})
	}
	if got := w.take(); len(got) > 0 {
		t.Errorf("when it was sent %+v", got)
	}
}

// TestTrust goes through when a node sends its clients' wills without asking.
func TestTrust(t *testing.T) {
	var tr trust
	now := time.Duration(0)
	// until lets seconds pass until the node is to ask, and returns how many.
	until := func(backed bool) (seconds int) {
		t.Helper()
		for range 100 {
			now += tickEvery
			seconds++
			if tr.tick(now, backed) {
				return seconds
			}
			if tr.asking {
				t.Fatal("it asks, and has not said so")
			}
		}
		return -1
	}
	if n := until(true); n != 4 || tr.may() {
		t.Errorf("after a start it asks after %d s; it may send before that: %v", n, tr.may())
	}
	if tr.answered(tr.round); !tr.may() {
		t.Error("it may not send when it has asked")
	}
	if n := until(true); n != -1 {
		t.Errorf("it asks again after %d s", n)
	}
	if tr.tick(now+hangs+1, true); tr.may() {
		t.Error("it was stopped, and may send")
	}
	now += hangs + 1
	if n := until(true); n != 3 {
		t.Errorf("after that it asks after %d s", n)
	}
	before := tr.round
	tr.tick(now+2*hangs, true)
	if tr.answered(before); tr.may() {
		t.Error("an answer from before it was stopped is believed")
	}
	now += 2 * hangs
	until(true)
	tr.answered(tr.round)
	if tr.tick(now+tickEvery, false); tr.may() {
		t.Error("it has no majority, and may send")
	}
	now += tickEvery
	if n := until(false); n != 30 {
		t.Errorf("alone it asks after %d s", n)
	}
	if tr.answered(tr.round); !tr.may() {
		t.Error("alone it may not send when it has asked")
	}
	if n := until(false); n != -1 {
		t.Errorf("alone it asks again after %d s", n)
	}
	if tr.tick(now+tickEvery, true); tr.may() {
		t.Error("others are back, and it may send")
	}
	now += tickEvery
	if n := until(true); n != 3 {
		t.Errorf("then it asks after %d s", n)
	}
}
