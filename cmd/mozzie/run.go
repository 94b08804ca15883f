package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

// stopTimeout bounds a polite stop, whatever peers and clients do. What is not done by then is cut off.
const stopTimeout = 9500 * time.Millisecond

// runningNode is what this command needs of a node.
type runningNode interface {
	admin.Node
	watched
	// Stop hands over what the node is responsible for, says goodbye and ends it; at the end of ctx the rest
	// is cut off.
	Stop(ctx context.Context) error
	// Gone is closed when the node has left its swarm for good, and is to be stopped.
	Gone() <-chan struct{}
}

// reloadOnHangup has the node read again what may change at each SIGHUP, until ctx ends or the node has left for good. The node says
// in the log how it went.
func reloadOnHangup(ctx context.Context, hangups <-chan os.Signal, n runningNode, m *manager) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.Gone():
			return
		case <-hangups:
			m.reloading()
			_, _ = n.Reload()
			m.ready(n.Status())
		}
	}
}

func newRun() *cobra.Command {
	settings := &settingFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node until SIGTERM or Ctrl-C",
		Long: `Run a node: an MQTT broker that is one with the other nodes of its swarm.

The first start makes the data directory, the node's key and, unless --open is given, the key of a private
swarm of its own. --join takes another node's invite instead; the node remembers it. Everything can be set in
a YAML file and by environment variables too, and more than there are flags for: see "mozzie config show".

SIGTERM and Ctrl-C stop the node politely, within 10 seconds: clients are told, and what the node was responsible
for is handed over. What waits on its disk until it is started again is said in the log. A second signal stops it at once. SIGHUP has it
read accounts, access rules and certificates again, as "mozzie reload" does.

Exit code: 0 after a polite stop, or when the node has left for good (see "mozzie leave"), 1 when the node cannot start, or
has not handed everything over in time, 2 when its configuration is wrong, or the node of the data directory has left.`,
		Example: `  mozzie run
  mozzie run --join INVITE --mqtt 'tcp://0.0.0.0:1883?anonymous=true'
  mozzie run --open --listen /ip4/0.0.0.0/tcp/7883 --bootstrap /ip4/192.0.2.7/tcp/7883/p2p/12D3KooW...`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(settings.sources())
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	settings.add(cmd)
	return cmd
}

// run starts a node, waits for a signal and stops the node.
func run(ctx context.Context, c config.Config, stdout, stderr io.Writer) error {
	began := time.Now()
	log := newLog(c.Log, stderr)
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer cancel()
	hangups := make(chan os.Signal, 1) // caught from the beginning: by default one ends the process
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	n, err := startNode(ctx, c, log)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // told to stop while it started
		}
		return err
	}
	announce(n.Status(), time.Since(began), c.Log.Format, log, stdout)
	manager := newManager(log)
	manager.ready(n.Status())
	endWatch := manager.watch(n)
	reloadOnHangup(ctx, hangups, n, manager)
	cancel() // from here on, a second signal ends the process by itself
	log.Info("stopping; a second signal stops at once")
	manager.stopping()
	endWatch()
	return stop(n, log)
}

// stop ends the node in bounded time, even where its Stop does not keep to ctx.
func stop(n runningNode, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Stop(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("stop the node: %w", err)
		}
		log.Info("stopped")
		return nil
	case <-time.After(stopTimeout + 300*time.Millisecond):
		return fmt.Errorf("the node did not stop within %v and was cut off", stopTimeout)
	}
}

func newLog(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // one of the four that Validate lets through
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// announce says that the node is ready, where it listens and how to go on: in the log for machines, and on
// standard output for people.
func announce(s admin.Status, took time.Duration, format string, log *slog.Logger, stdout io.Writer) {
	log.Info("ready", "took", took.Round(time.Millisecond), "peer_id", s.PeerID, "swarm", s.Swarm, "mqtt", s.MQTT,
		"listen", s.Addresses, "admin", s.Admin, "data", s.Data, "version", s.Version)
	if s.Swarm == "open" {
		log.Warn("this swarm is open: whatever clients publish to plain topics, anyone may read, and anyone may publish")
	}
	if format == "json" {
		return
	}
	at := mqttFlags(s.Listeners)
	fmt.Fprintf(stdout, "mozzie is ready: MQTT at %s, nodes at %s\n", orNone(s.MQTT), orNone(s.Addresses))
	fmt.Fprintf(stdout, "  subscribe:    mozzie sub%s -t 'doors/#' -v     (or any MQTT client)\n", at)
	fmt.Fprintf(stdout, "  publish:      mozzie pub%s -t doors/1 -m open\n", at)
	fmt.Fprintf(stdout, "  add a node:   mozzie run --join \"$(mozzie invite --data %s)\"\n", shellQuote(s.Data))
}

// mqttFlags returns the flags that lead a client to a listener, in clear if there is such a one; "" where that is the usual
// one.
func mqttFlags(all []admin.Listener) string {
	for _, scheme := range []string{"tcp://", "tls://", "unix://"} {
		for _, l := range all {
			at, ok := strings.CutPrefix(l.URL, scheme)
			switch {
			case !ok:
			case scheme == "tcp://":
				return addressFlags(at, "1883")
			case scheme == "tls://":
				return addressFlags(at, strconv.Itoa(tlsPort)) + " --fingerprint " + l.Fingerprint
			default:
				return " --unix " + shellQuote(at)
			}
		}
	}
	return ""
}

func addressFlags(at, usualPort string) (flags string) {
	i := strings.LastIndexByte(at, ':')
	host, port := strings.Trim(at[:i], "[]"), at[i+1:]
	if host != "0.0.0.0" && host != "::" && host != "" && host != "127.0.0.1" {
		flags += " -h " + host
	}
	if port != usualPort {
		flags += " -p " + port
	}
	return flags
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// shellQuote makes one word of a path.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\$`*?[]{}();&|<>~#!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
