package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/backup"
)

// backUp writes a backup of node i.
func (s *testSwarm) backUp(i int) string {
	s.t.Helper()
	snapshot, err := s.nodes[i].Backup()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.nodes[i].Backup(); !errors.Is(err, admin.ErrBusy) {
		s.t.Errorf("a second backup meanwhile: %v", err)
	}
	path := filepath.Join(s.t.TempDir(), "backup")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(snapshot.Write(f), f.Close())
	}
	if err := errors.Join(err, snapshot.Close()); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// agree waits until all nodes have the same set for a topic, of three.
func (s *testSwarm) agree(topic string) {
	s.t.Helper()
	eventually(s.t, func() error {
		var first admin.Location
		for i, n := range s.nodes {
			l, err := n.Locate(s.t.Context(), topic)
			switch {
			case err != nil:
				return err
			case i == 0:
				first = l
			}
			same := slices.EqualFunc(l.Members, first.Members, func(a, b admin.Member) bool { return a.PeerID == b.PeerID && a.Reachable })
			if len(l.Members) != 3 || l.Version != first.Version || !same {
				return fmt.Errorf("node %d has version %d of the set with %d members, node 0 version %d", i, l.Version, len(l.Members), first.Version)
			}
		}
		return nil
	})
}

// TestRestoreInSwarm brings an old backup of a node back into a swarm that has gone on. The node has its name, its clients
// their sessions as of the backup, and it counts as a new one: what is retained it has from the others, messages come once.
func TestRestoreInSwarm(t *testing.T) {
	s := startSwarm(t, 3)
	payloads := func(got []client.Message) (all []string) {
		for _, m := range got {
			all = append(all, string(m.Payload))
		}
		slices.Sort(all)
		return all
	}
	send := func(from int, qos byte, retain bool, topic string, texts ...string) {
		t.Helper()
		pub := s.connect(from, fmt.Sprint("pub", from))
		for _, text := range texts {
			pub.publish(client.Message{Topic: topic, Payload: []byte(text), QoS: qos, Retain: retain})
		}
		_ = pub.Disconnect()
	}
	away := s.connect(0, "away", kept)
	away.subscribe(2, "a/#")
	_ = away.Disconnect()
	send(1, 2, false, "a/b", "1", "2")
	send(0, 1, false, "a/b", "3")
	send(1, 1, true, "r", "old")
	eventually(t, func() error {
		if n, _ := s.nodes[0].broker.Load().Queued(); n != 3 {
			return fmt.Errorf("%d messages wait", n)
		}
		return nil
	})
	id, peer := s.nodes[0].db.ID(), s.nodes[0].host.ID()
	file := s.backUp(0)

	// The swarm goes on.
	away = s.connect(0, "away", kept)
	away.wait(3)
	_ = away.Disconnect()
	send(0, 2, false, "a/b", "4") // under the epoch that the backup knows, if any
	send(1, 1, true, "r", "new")
	away = s.connect(0, "away", kept)
	away.wait(1)
	_ = away.Disconnect()
	s.stopNode(0)
	if _, err := backup.Restore(file, s.configs[0].Data, backup.Options{Force: true, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	s.again(0)
	s.meet()
	if n := s.nodes[0]; n.db.ID() == id || n.host.ID() != peer {
		t.Errorf("database %x, was %x; peer %s, was %s", n.db.ID(), id, n.host.ID(), peer)
	}

	away = s.connect(0, "away", kept)
	away.wait(3)
	other := s.connect(2, "other")
	other.subscribe(2, "a/#")
	s.agree("a/b") // until then the node was a swarm of its own, which meets the other
	want := []string{"5", "6", "7", "8"}
	send(0, 2, false, "a/b", "5", "6")
	send(1, 2, false, "a/b", "7", "8")
	if got := payloads(other.wait(4)); !slices.Equal(got, want) {
		t.Errorf("another node's client got %q, want %q", got, want)
	}
	if got, want := payloads(away.wait(7)), append([]string{"1", "2", "3"}, want...); !slices.Equal(got, want) {
		t.Errorf("its client got %q, want %q", got, want)
	}
	for i := range s.nodes {
		eventually(t, func() error { // the node is filled from the others
			sub := s.connect(i, fmt.Sprint("sub", i))
			defer func() { _ = sub.Disconnect() }()
			sub.subscribe(1, "r")
			if got := payloads(sub.wait(1)); !slices.Equal(got, []string{"new"}) {
				return fmt.Errorf("node %d has %q retained", i, got)
			}
			return nil
		})
	}
}
