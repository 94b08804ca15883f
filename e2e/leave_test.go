package e2e

import (
	"fmt"
	"testing"
)

// TestPoliteLeave stops a node, and starts another, while messages flow between two others by way of all of them:
// nothing that was acknowledged is lost, nothing comes twice, and the order is kept.
func TestPoliteLeave(t *testing.T) {
	long(t)
	for _, private := range []bool{false, true} {
		for _, n := range []int{3, 4} {
			t.Run(fmt.Sprintf("private=%v/%d", private, n), func(t *testing.T) { politeLeave(t, private, n) })
		}
	}
}

func politeLeave(t *testing.T, private bool, n int) {
	nodes := startSwarm(t, n, setup{private: private})
	from, to, leaver := nodes[0], nodes[1], nodes[2]
	tr := startTraffic(t, from, to, topicAt(t, from, leaver, "by-leaver-"), topicAt(t, from, from, "by-publisher-"), topicAt(t, from, to, "by-subscriber-"))
	tr.flows(100)
	tr.mark("a node leaves")
	leaver.stop()
	tr.mark("a node has left")
	tr.flows(100)
	rest := append(append([]*node{}, nodes[:2]...), nodes[3:]...)
	meet(t, rest...)

	newcomer := newNode(t, "newcomer", from.toJoin(private)...)
	if !private {
		newcomer.args = append(newcomer.args, "--open")
	}
	tr.mark("a node comes")
	newcomer.start()
	newcomer.ready()
	tr.mark("a node has come")
	meet(t, append(rest, newcomer)...)
	tr.flows(100)
	tr.mark("it leaves")
	newcomer.stop()
	tr.mark("it has left")
	tr.flows(100)
	for _, got := range tr.end() {
		inOrder(t, got)
	}
}

// topicAt returns a topic whose rendezvous is a certain node, as another sees it.
func topicAt(t testing.TB, asked, at *node, prefix string) string {
	t.Helper()
	for i := range 1000 {
		topic := fmt.Sprintf("%s%d/x", prefix, i)
		if asked.rendezvous(topic) == at.id {
			return topic
		}
	}
	t.Fatalf("none of 1,000 topics has its rendezvous at %s", at.name)
	return ""
}
