package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// How long the demo waits for its nodes.
const (
	demoStart = 20 * time.Second // to be ready, and to find each other
	demoStop  = 12 * time.Second // to stop politely: somewhat more than a node takes
	demoPoll  = 50 * time.Millisecond
)

// demoSwarm is some nodes, as processes of this program, joined to a private swarm.
type demoSwarm struct {
	program string
	dir     string
	nodes   []*demoNode
	died    chan error // gets why, when a node ends by itself
	running sync.WaitGroup
}

// demoNode is one of the nodes.
type demoNode struct {
	Node   int    `json:"node"` // 1 and up
	PeerID string `json:"peer_id"`
	MQTT   string `json:"mqtt"` // host:port
	Admin  string `json:"admin"`
	Data   string `json:"data"`

	process *exec.Cmd
	client  *admin.Client
}

// startDemoSwarm starts n nodes and returns when each knows all. When it fails, nothing is left.
func startDemoSwarm(ctx context.Context, n int) (*demoSwarm, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "mozzie-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the nodes: %w", err)
	}
	s := &demoSwarm{program: program, dir: dir, died: make(chan error, n)}
	if err := s.start(ctx, n); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *demoSwarm) start(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	invite := ""
	for i := 1; i <= n; i++ {
		node, err := s.startNode(i, invite)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, node)
		if i > 1 {
			continue
		}
		if err := s.waitReady(ctx, node); err != nil {
			return err
		}
		if invite, err = node.client.Invite(ctx); err != nil {
			return fmt.Errorf("ask node 1 for an invite: %w", err)
		}
	}
	for _, node := range s.nodes {
		if err := s.waitReady(ctx, node); err != nil {
			return err
		}
	}
	for _, node := range s.nodes {
		if err := s.waitFor(ctx, node, "find the others", func(st admin.Status) bool { return st.Peers >= n-1 }); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts the process of a node.
func (s *demoSwarm) startNode(i int, invite string) (*demoNode, error) {
	n := &demoNode{Node: i, Data: filepath.Join(s.dir, fmt.Sprintf("node%d", i))}
	log, err := os.Create(n.Data + ".log")
	if err != nil {
		return nil, fmt.Errorf("make a log for node %d: %w", i, err)
	}
	defer log.Close() // the process has its own
	n.process = exec.Command(s.program, "run", "--data", n.Data, "--mqtt", "tcp://127.0.0.1:0",
		"--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--mdns=false", "--log-format", "json")
	n.process.Stdout, n.process.Stderr = log, log
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MOZZIE_") {
			n.process.Env = append(n.process.Env, e)
		}
	}
	if invite != "" { // not a flag, which everyone on the machine could read
		n.process.Env = append(n.process.Env, "MOZZIE_SWARM_JOIN="+invite)
	}
	// A group of its own, so that Ctrl-C reaches the demo alone, which stops the nodes in its own time.
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.process.Start(); err != nil {
		return nil, fmt.Errorf("start node %d: %w", i, err)
	}
	s.running.Go(func() {
		_ = n.process.Wait() // its state says the same
		s.died <- fmt.Errorf("node %d has ended (%v): %w", i, n.process.ProcessState, lastLine(n.Data+".log"))
	})
	return n, nil
}

// lastLine returns the last line of a log, as an error.
func lastLine(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text = bytes.TrimSpace(text)
	return errors.New(string(text[bytes.LastIndexByte(text, '\n')+1:]))
}

// waitReady waits until a node is ready, and notes where it is.
func (s *demoSwarm) waitReady(ctx context.Context, n *demoNode) error {
	return s.waitFor(ctx, n, "be ready", func(st admin.Status) bool {
		if !st.Ready || len(st.MQTT) == 0 {
			return false
		}
		n.PeerID, n.MQTT = st.PeerID, strings.TrimPrefix(st.MQTT[0], "tcp://")
		return true
	})
}

// waitFor waits until a node's status is as wanted. A node tells only by being asked, hence the polling.
func (s *demoSwarm) waitFor(ctx context.Context, n *demoNode, what string, ok func(admin.Status) bool) error {
	t := time.NewTicker(demoPoll)
	defer t.Stop()
	for {
		if n.client == nil {
			if address, err := datadir.Admin(n.Data); err == nil {
				n.Admin = address
				if n.client, err = admin.NewClient(address); err != nil {
					return err
				}
			}
		}
		if n.client != nil {
			if st, err := n.client.Status(ctx); err == nil && ok(st) {
				return nil
			}
		}
		select {
		case err := <-s.died:
			return err
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("node %d did not %s within %v: %w", n.Node, what, demoStart, lastLine(n.Data+".log"))
			}
			return ctx.Err()
		case <-t.C:
		}
	}
}

// stop stops the nodes and removes what they left.
func (s *demoSwarm) stop() {
	for _, n := range s.nodes {
		_ = n.process.Process.Signal(syscall.SIGTERM) // it may have ended already
	}
	kill := time.AfterFunc(demoStop, func() {
		for _, n := range s.nodes {
			_ = n.process.Process.Kill()
		}
	})
	s.running.Wait()
	kill.Stop()
	_ = os.RemoveAll(s.dir) // in the system's temporary directory, which is cleared in time
}
