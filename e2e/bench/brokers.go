package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nodes is how many nodes are one broker across the swarm: publisher, subscriber and rendezvous can all be different.
const nodes = 3

// starter starts a broker in a directory of its own. When it fails, nothing runs.
type starter func(ctx context.Context, dir string) (*broker, error)

// peers are the other brokers' programs; "" where there is none, and why in missing.
type peers struct {
	own                    string // Mozzie's, which is the generator too
	mosquitto, nats, mochi string
	missing                map[string]error
}

// peersModule is where the versions of the brokers stand that are built from source.
const peersModule = "e2e/bench/peers"

const (
	natsModule  = "github.com/nats-io/nats-server/v2"
	mochiModule = "github.com/mochi-mqtt/server/v2"
)

// installPeers finds mosquitto, and builds the others into dir.
func installPeers(ctx context.Context, own, dir string) peers {
	p := peers{own: own, missing: map[string]error{}}
	var err error
	if p.mosquitto, err = exec.LookPath("mosquitto"); err != nil {
		p.mosquitto = "/usr/sbin/mosquitto"
		if _, err := os.Stat(p.mosquitto); err != nil {
			p.missing["mosquitto"] = errors.New("it is not installed; e2e/setup does that")
		}
	}
	build := func(name, pkg string) string {
		file := filepath.Join(dir, name)
		say("building %s", name)
		cmd := exec.CommandContext(ctx, "go", "-C", peersModule, "build", "-o", file, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			p.missing[name] = fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return file
	}
	p.nats = build("nats-server", natsModule)
	p.mochi = build("mochi", mochiModule+"/cmd")
	return p
}

// versions says what is measured.
func (p peers) versions(ctx context.Context) (all []string) {
	first := func(name string, command ...string) {
		out, _ := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput() // mosquitto's help is a failure
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if line != "" && p.missing[name] == nil {
			all = append(all, line)
		}
	}
	first("mozzie", p.own, "--version")
	first("mosquitto", p.mosquitto, "-h")
	for name, module := range map[string]string{"nats-server": natsModule, "mochi": mochiModule} {
		first(name, "go", "-C", peersModule, "list", "-m", "-f", name+" {{.Version}}", module)
	}
	return all
}

// alone are the brokers with one node.
func (p peers) alone() []starter {
	return []starter{p.swarm("Mozzie", 1, true), p.mosquittoAlone, p.natsCluster("NATS", 1), p.mochiAlone}
}

// across are those whose publishers and subscribers are at different nodes.
func (p peers) across() []starter {
	return []starter{
		p.swarm("Mozzie, open", nodes, false), p.swarm("Mozzie, private", nodes, true),
		p.mosquittoBridge, p.natsCluster("NATS", nodes),
	}
}

// kept are those with one node that keep sessions on the disk: NATS as it comes, which syncs every two minutes, and with a sync
// before each acknowledgement, as Mozzie has it; mosquitto, which writes every half hour and syncs nothing.
func (p peers) kept() []starter {
	return []starter{p.swarm("Mozzie", 1, true), p.mosquittoKept, p.natsCluster("NATS", 1), p.natsSynced}
}

// together starts a broker with start, and stops what runs of it where that fails.
func (p peers) together(name, program string, start func(*broker) error) (*broker, error) {
	if err := p.missing[program]; err != nil {
		return nil, fmt.Errorf("%s is left out: %w", name, err)
	}
	b := &broker{name: name}
	if err := start(b); err != nil {
		b.stop()
		return nil, fmt.Errorf("%s is left out: %w", name, err)
	}
	return b, nil
}

// swarm is n nodes of Mozzie, as they come.
func (p peers) swarm(name string, n int, private bool) starter {
	return func(ctx context.Context, dir string) (*broker, error) {
		return p.together(name, "mozzie", func(b *broker) (err error) {
			var join []string
			admins := make([]string, n)
			for i := range n {
				if admins[i], err = p.node(ctx, b, filepath.Join(dir, fmt.Sprint(i)), private, join, i); err != nil {
					return err
				}
				if i > 0 {
					continue
				}
				if join, err = p.joinFlags(ctx, admins[i], private); err != nil {
					return err
				}
			}
			if n > 1 {
				b.topics, err = p.topicsAt(ctx, admins)
			}
			return err
		})
	}
}

// node starts a node that is to have so many peers, and returns the address of its administration API. The first one is
// the publishers', the last the subscribers'.
func (p peers) node(ctx context.Context, b *broker, dir string, private bool, join []string, peers int) (admin string, err error) {
	free, err := ports(3)
	if err != nil {
		return "", err
	}
	mqtt, admin, swarm := local(free[0]), local(free[1]), free[2]
	args := []string{
		"run", "--data", filepath.Join(dir, "data"), "--mqtt", "tcp://" + mqtt, "--admin", admin, "--mdns=false",
		"--listen", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", swarm),
	}
	if !private {
		args = append(args, "--open", "--listen", fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", swarm))
	}
	node, err := b.start(dir, p.own, append(args, join...)...)
	if err != nil {
		return "", err
	}
	if peers == 0 {
		b.publish = mqtt
	}
	b.subscribe = mqtt
	return admin, node.until(ctx, "be ready", func() bool {
		s, err := p.status(ctx, admin)
		return err == nil && s.Ready && s.Peers >= peers
	})
}

// joinFlags are those with which a node joins another.
func (p peers) joinFlags(ctx context.Context, admin string, private bool) ([]string, error) {
	if !private {
		s, err := p.status(ctx, admin)
		if err != nil || len(s.Addresses) == 0 {
			return nil, fmt.Errorf("the first node has no address: %w", err)
		}
		return []string{"--bootstrap", s.Addresses[0]}, nil
	}
	out, err := exec.CommandContext(ctx, p.own, "invite", "--admin", admin).Output()
	if err != nil {
		return nil, fmt.Errorf("ask for an invite: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return []string{"--join", lines[len(lines)-1]}, nil
}

// topicsAt finds a first level for each of some nodes that has it as its rendezvous.
func (p peers) topicsAt(ctx context.Context, admins []string) ([]string, error) {
	const enough = 200
	topics := make([]string, len(admins))
	for i, admin := range admins {
		s, err := p.status(ctx, admin)
		for try := 0; err == nil && topics[i] == ""; try++ {
			if try == enough {
				return nil, fmt.Errorf("none of %d first levels has its rendezvous at node %d", enough, i+1)
			}
			level := fmt.Sprintf("bench%d", try)
			var out []byte
			if out, err = exec.CommandContext(ctx, p.own, "locate", level, "--admin", admin, "--json").Output(); err == nil {
				var l located
				if err = json.Unmarshal(out, &l); err == nil && l.at(s.PeerID) {
					topics[i] = level
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("find topics for each node: %w", err)
		}
	}
	return topics, nil
}

// located is what of the answer of mozzie locate is needed here.
type located struct {
	Members []struct {
		PeerID     string `json:"peer_id"`
		Rendezvous bool   `json:"rendezvous"`
	} `json:"members"`
}

func (l located) at(peer string) bool {
	for _, m := range l.Members {
		if m.Rendezvous {
			return m.PeerID == peer
		}
	}
	return false
}

// nodeStatus is what of a node's status is needed here.
type nodeStatus struct {
	PeerID    string   `json:"peer_id"`
	Ready     bool     `json:"ready"`
	Peers     int      `json:"peers"`
	Addresses []string `json:"addresses"`
}

func (p peers) status(ctx context.Context, admin string) (s nodeStatus, err error) {
	out, err := exec.CommandContext(ctx, p.own, "status", "--admin", admin, "--json").Output()
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

// mosquittoConfig lifts the limits that make mosquitto drop messages; without that it would lose in nearly all rows.
const mosquittoConfig = `listener %d 127.0.0.1
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
log_type error
log_type warning
`

// bridgeConfig is what makes of two mosquittos nearly one broker.
const bridgeConfig = `connection other
address 127.0.0.1:%d
topic # both 2
bridge_protocol_version mqttv311
cleansession true
notifications false
try_private true
`

// notKept is the default of mosquitto, said.
const notKept = "persistence false\n"

// startMosquitto starts one of a broker's mosquittos.
func (p peers) startMosquitto(ctx context.Context, b *broker, dir string, port int, more string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(mosquittoConfig, port)+more), 0o600); err != nil {
		return err
	}
	m, err := b.start(dir, p.mosquitto, "-c", file)
	if err != nil {
		return err
	}
	return m.until(ctx, "listen", accepts(local(port)))
}

func (p peers) mosquittoAlone(ctx context.Context, dir string) (*broker, error) {
	return p.oneMosquitto(ctx, dir, notKept)
}

// mosquittoKept is mosquitto with persistence.
func (p peers) mosquittoKept(ctx context.Context, dir string) (*broker, error) {
	return p.oneMosquitto(ctx, dir, fmt.Sprintf("persistence true\npersistence_location %s/\n", dir))
}

func (p peers) oneMosquitto(ctx context.Context, dir, more string) (*broker, error) {
	return p.together("mosquitto", "mosquitto", func(b *broker) error {
		free, err := ports(1)
		if err != nil {
			return err
		}
		b.publish, b.subscribe = local(free[0]), local(free[0])
		return p.startMosquitto(ctx, b, dir, free[0], more)
	})
}

// mosquittoBridge is two mosquittos, of which the publishers' has a bridge to the subscribers'. A third between them, or
// beside them, could only make it slower.
func (p peers) mosquittoBridge(ctx context.Context, dir string) (*broker, error) {
	return p.together("mosquitto bridge", "mosquitto", func(b *broker) error {
		free, err := ports(2)
		if err != nil {
			return err
		}
		b.publish, b.subscribe = local(free[0]), local(free[1])
		if err := p.startMosquitto(ctx, b, filepath.Join(dir, "b"), free[1], notKept); err != nil {
			return err
		}
		if err := p.startMosquitto(ctx, b, filepath.Join(dir, "a"), free[0], notKept+fmt.Sprintf(bridgeConfig, free[1])); err != nil {
			return err
		}
		return p.carries(ctx, b)
	})
}

// carries waits until a message gets from the publishers' node to the subscribers': servers connect to each other when they
// are ready to, and do not tell.
func (p peers) carries(ctx context.Context, b *broker) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTime)
	defer cancel()
	client := func(command, address string, args ...string) *exec.Cmd {
		host, port, _ := strings.Cut(address, ":")
		return exec.CommandContext(ctx, p.own, append([]string{command, "-V", "311", "-h", host, "-p", port, "-q", "1", "-t", "bench-ready"}, args...)...)
	}
	for ctx.Err() == nil {
		arrived := make(chan error, 1)
		go func() { arrived <- client("sub", b.subscribe, "-C", "1", "-W", "3").Run() }()
		for waiting := true; waiting; {
			select {
			case err := <-arrived:
				if err == nil {
					return nil
				}
				waiting = false
			case <-time.After(4 * poll):
				_ = client("pub", b.publish, "-m", "x").Run() // what counts is what arrives
			}
		}
	}
	return errors.New("no message gets from one of its nodes to the other")
}

// natsConfig has JetStream, which MQTT needs.
const natsConfig = `server_name: %s
listen: "%s"
jetstream { store_dir: "%s"%s }
mqtt { listen: "%s" }
`

// natsRoutes makes several servers a cluster.
const natsRoutes = `cluster {
  name: bench
  listen: "%s"
  routes: [%s]
}
`

// natsCluster is n servers.
func (p peers) natsCluster(name string, n int) starter { return p.natsServers(name, n, "") }

// natsSynced is one server that syncs before it acknowledges.
func (p peers) natsSynced(ctx context.Context, dir string) (*broker, error) {
	return p.natsServers("NATS, synced", 1, ", sync_interval: always")(ctx, dir)
}

// natsServers is n servers with more in what is said of JetStream.
func (p peers) natsServers(name string, n int, more string) starter {
	return func(ctx context.Context, dir string) (*broker, error) {
		return p.together(name, "nats-server", func(b *broker) error {
			free, err := ports(3 * n)
			if err != nil {
				return err
			}
			mqtt, own, cluster := free[:n], free[n:2*n], free[2*n:]
			var routes []string
			for _, port := range cluster {
				routes = append(routes, `"nats://`+local(port)+`"`)
			}
			for i := range n {
				dir := filepath.Join(dir, fmt.Sprint(i))
				text := fmt.Sprintf(natsConfig, fmt.Sprintf("bench%d", i), local(own[i]), filepath.Join(dir, "js"), more, local(mqtt[i]))
				if n > 1 {
					text += fmt.Sprintf(natsRoutes, local(cluster[i]), strings.Join(routes, ", "))
				}
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
				file := filepath.Join(dir, "nats.conf")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					return err
				}
				if _, err := b.start(dir, p.nats, "-c", file); err != nil {
					return err
				}
			}
			for i, server := range b.processes {
				if err := server.until(ctx, "listen", accepts(local(mqtt[i]))); err != nil {
					return err
				}
			}
			b.publish, b.subscribe = local(mqtt[0]), local(mqtt[n-1])
			return p.carries(ctx, b)
		})
	}
}

func (p peers) mochiAlone(ctx context.Context, dir string) (*broker, error) {
	return p.together("mochi", "mochi", func(b *broker) error {
		free, err := ports(3)
		if err != nil {
			return err
		}
		b.publish, b.subscribe = local(free[0]), local(free[0])
		m, err := b.start(dir, p.mochi, "-tcp", local(free[0]), "-ws", local(free[1]), "-info", local(free[2]))
		if err != nil {
			return err
		}
		return m.until(ctx, "listen", accepts(local(free[0])))
	})
}
