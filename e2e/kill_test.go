package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// failOver is how soon traffic goes on after a rendezvous was killed.
const failOver = 5 * time.Second

// TestKilledRendezvous kills the rendezvous of a topic while messages flow, as a power cut does: traffic goes on
// at the next member of the set, and nothing that was acknowledged is lost, since who publishes keeps it until it
// has arrived. Then the node comes back.
func TestKilledRendezvous(t *testing.T) {
	long(t)
	for _, n := range []int{3, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			nodes := startSwarm(t, n, setup{})
			from, to, victim := nodes[0], nodes[1], nodes[2]
			tr := startTraffic(t, from, to, topicAt(t, from, victim, "kill"))
			tr.flows(50)
			before := tr.count()
			victim.kill()
			tr.goesOn(before, failOver)
			tr.flows(50)
			for _, n := range nodes[:2] {
				if r := n.rendezvous(tr.topics[0].topic); r == victim.id || r == "" {
					t.Errorf("%s still takes the dead node for the rendezvous, or none: %q", n.name, r)
				}
			}
			victim.start()
			victim.ready()
			meet(t, nodes...)
			tr.flows(50)
			crossing(t, victim, to, "killed/back")
			crossing(t, from, victim, "killed/back")
			once(t, tr.end())
		})
	}
}

// TestFrozenRendezvous stops a rendezvous without ending it, so that its connections stand and say nothing: its
// leases run out.
func TestFrozenRendezvous(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 3, setup{})
	from, to, victim := nodes[0], nodes[1], nodes[2]
	tr := startTraffic(t, from, to, topicAt(t, from, victim, "frozen"))
	tr.flows(50)
	victim.signal(syscall.SIGSTOP)
	t.Cleanup(func() { victim.signal(syscall.SIGCONT) })
	before := tr.count()
	tr.goesOn(before, 2*failOver) // a lease, and what the machine takes
	tr.flows(50)
	victim.signal(syscall.SIGCONT)
	meet(t, nodes...)
	tr.flows(50)
	once(t, tr.end())
}

// TestKilledFounder kills the node that began a swarm, some seconds after another has joined, and starts it at another
// port. Only what it has on disk leads it back: the other has no address for it that is any good.
func TestKilledFounder(t *testing.T) {
	long(t)
	nodes := startSwarm(t, 2, setup{private: true})
	founder := nodes[0]
	eventually(t, 15*time.Second, func() error {
		peers, err := os.ReadFile(filepath.Join(founder.data, "peers"))
		if err == nil && !strings.Contains(string(peers), nodes[1].id) {
			err = notYet("the founder has not written down whom it has met: %s", peers)
		}
		return err
	})
	founder.kill()
	before := "/tcp/" + founder.swarm
	founder.swarm = freePort(t)
	for i, arg := range founder.args {
		founder.args[i] = strings.Replace(arg, before, "/tcp/"+founder.swarm, 1)
	}
	founder.start()
	founder.ready()
	meet(t, nodes...)
}

// TestStopBesideFrozen stops a node politely while another hangs: it waits for that one as long as a lease lasts, and
// not at all where it has been out of reach for that time.
func TestStopBesideFrozen(t *testing.T) {
	long(t)
	const lease, prompt = 5 * time.Second, 3 * time.Second
	for _, n := range []int{2, 3} {
		for _, frozen := range []time.Duration{0, 2*lease + prompt} {
			t.Run(fmt.Sprintf("%d nodes, frozen for %v", n, frozen), func(t *testing.T) {
				stopBesideFrozen(t, n, frozen, max(lease-frozen, 0)+prompt)
			})
		}
	}
}

func stopBesideFrozen(t *testing.T, n int, frozen, most time.Duration) {
	nodes := startSwarm(t, n, setup{})
	stops, victim := nodes[0], nodes[1]
	sub, pub := connect(t, stops.mqtt), connect(t, victim.mqtt)
	const topics = 10 // with rendezvous at all nodes
	for i := range topics {
		topic := fmt.Sprintf("frozen%d/x", i)
		sub.subscribe(1, topic)
		pub.publish(topic, "x", 1)
	}
	sub.wait(t, topics)
	pub.bye()
	victim.signal(syscall.SIGSTOP)
	t.Cleanup(func() { victim.signal(syscall.SIGCONT) })
	time.Sleep(frozen) // what is tested is what it is like after that time
	began := time.Now()
	stops.stop()
	if took := time.Since(began); took > most {
		t.Errorf("it stopped after %v, want %v at most", took.Round(10*time.Millisecond), most)
	}
}

// once checks that no message came twice: clients did not have to connect again, and nodes know what they have had.
func once(t *testing.T, byTopic map[string][]message) {
	t.Helper()
	for topic, got := range byTopic {
		seen := map[string]bool{}
		for _, m := range got {
			if seen[m.payload] {
				t.Errorf("%s: %s came twice", topic, m.payload)
			}
			seen[m.payload] = true
		}
	}
}
