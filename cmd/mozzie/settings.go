package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mozzie-mqtt/mozzie/node/config"
)

// settingFlags are the flags of the commands that read a configuration.
type settingFlags struct {
	file  string
	flags []*settingFlag
}

// settingFlag is a flag that sets a key of the configuration. What is given is checked by package config,
// like what comes from the file and the environment.
type settingFlag struct {
	name, key string
	what      string // a placeholder for the help
	list      bool
	joined    bool // a list is one value, with commas
	values    []string
}

func (f *settingFlag) String() string { return strings.Join(f.values, ", ") }
func (f *settingFlag) Type() string   { return f.what }

func (f *settingFlag) Set(s string) error {
	if !f.list {
		f.values = nil
	}
	f.values = append(f.values, s)
	return nil
}

// setFlag is --set KEY=VALUE.
type setFlag struct{ flags *[]*settingFlag }

func (setFlag) String() string { return "" }
func (setFlag) Type() string   { return "KEY=VALUE" }

func (f setFlag) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return errors.New("want KEY=VALUE, such as locations.depth=2")
	}
	*f.flags = append(*f.flags, &settingFlag{name: "set", key: key, joined: true, values: []string{value}})
	return nil
}

func (s *settingFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&s.file, "config", "", "configuration `FILE` in YAML (default mozzie.yaml in the data directory, if there is one)")
	d := config.Default()
	for _, f := range []struct {
		settingFlag
		standard, usage string
	}{
		{settingFlag{name: "data", key: "data", what: "DIR"}, config.DefaultData(environment()), "directory of the node's key and state"},
		{settingFlag{name: "mqtt", key: "mqtt.listeners", what: "URL", list: true}, "tcp://127.0.0.1:1883 and ws://127.0.0.1:8083",
			"listen for MQTT clients at tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH or unix:///PATH; repeatable, port 0 for any free one. Rules go behind it, such as ?anonymous=true; see the comments of \"mozzie config show\" and docs/configuration.md"},
		{settingFlag{name: "acknowledge", key: "mqtt.acknowledge", what: "WHERE"}, d.MQTT.Acknowledge,
			"acknowledge messages of QoS 1 and 2 when they are on the disk of this node, or of another one too: node or swarm"},
		{settingFlag{name: "listen", key: "swarm.listen", what: "MULTIADDR", list: true}, "all interfaces, TCP port 7883; with --open loopback only, TCP and QUIC",
			"listen for other nodes; repeatable"},
		{settingFlag{name: "bootstrap", key: "swarm.bootstrap", what: "MULTIADDR", list: true}, "",
			"connect to this node, with /p2p/ID at the end; repeatable"},
		{settingFlag{name: "join", key: "swarm.join", what: "STRING"}, "",
			"join a swarm by an invite (see mozzie invite); kept for the next start. Others can see it in the list of processes: MOZZIE_SWARM_JOIN says it unseen"},
		{settingFlag{name: "open", key: "swarm.open", what: "BOOL"}, "", "be of a swarm that is open to anyone, rather than private"},
		{settingFlag{name: "admin", key: "admin.listen", what: "ADDR"}, d.Admin.Listen, "serve the administration API at a loopback host:port or the path of a Unix socket"},
		{settingFlag{name: "mdns", key: "swarm.mdns", what: "BOOL"}, "true", "look for nodes of the same swarm on the local network; --mdns=false does not"},
		{settingFlag{name: "log-level", key: "log.level", what: "LEVEL"}, d.Log.Level, "debug, info, warn or error"},
		{settingFlag{name: "log-format", key: "log.format", what: "FORMAT"}, d.Log.Format, "text or json"},
	} {
		value := f.settingFlag
		flag := fs.VarPF(&value, f.name, "", f.usage)
		flag.DefValue = f.standard
		if f.what == "BOOL" {
			flag.NoOptDefVal = "true"
		}
		s.flags = append(s.flags, &value)
	}
	fs.Var(setFlag{&s.flags}, "set", "set any other `KEY=VALUE`, such as locations.depth=2; a list with commas; repeatable")
	complete(cmd, "acknowledge", config.AcknowledgeNode, config.AcknowledgeSwarm)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	complete(cmd, "log-format", "text", "json")
	_ = cmd.MarkFlagDirname("data")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// complete lets shells complete the value of a flag.
func complete(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// sources returns where the configuration comes from.
func (s *settingFlags) sources() config.Sources {
	src := config.Sources{File: s.file, Env: os.Environ()}
	for _, f := range s.flags {
		if len(f.values) > 0 {
			src.Flags = append(src.Flags, config.Flag{Name: "--" + f.name, Key: f.key, Values: f.values, Joined: f.joined})
		}
	}
	return src
}

// value returns what a flag was set to, or "".
func (s *settingFlags) value(name string) string {
	for _, f := range s.flags {
		if f.name == name && len(f.values) > 0 {
			return f.values[0]
		}
	}
	return ""
}

func environment() map[string]string {
	env := map[string]string{}
	for _, e := range os.Environ() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}

var _ pflag.Value = (*settingFlag)(nil)
