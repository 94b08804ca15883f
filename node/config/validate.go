package config

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// What MQTT itself allows.
const (
	mqttMaxCount     = 65_535 // two byte integers: Receive Maximum, Topic Alias Maximum, levels
	mqttMaxKeepAlive = mqttMaxCount * time.Second
)

// What the packages below node take. A test of package node holds these bounds against theirs.
const (
	maxPacketSize = 16 << 20 // what fits a frame between nodes
	maxSmall      = 500      // a full mesh of more costs more than it gives
	maxAccounts   = 100_000  // what the file of accounts has room for
	maxCount      = 1 << 40  // far more than fits a machine
	maxRate       = 1_000_000

	minMemory       = 64 << 20
	minTotalPending = 32 << 20
	minPeerPending  = 32 << 20 // a frame between nodes, and room for what comes behind it
)

// Validate says what is impossible in the configuration: nil, or Problems, each with its key and, where
// Load has read the value, with the place that it comes from.
func (c *Config) Validate() error {
	v := validator{config: c}
	v.data()
	v.mqtt()
	v.swarm()
	v.intRange("locations.depth", c.Locations.Depth, 1, 8)
	if _, err := c.Storage.interval(); err != nil {
		v.addf("storage.sync", "%v", err)
	}
	if _, _, err := AdminAddress(c.Admin.Listen); err != nil {
		v.addf("admin.listen", "%v", err)
	}
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.limits()
	v.peerLimits()
	return v.problems.Err()
}

type validator struct {
	config   *Config
	problems Problems
}

func (v *validator) addf(key, format string, args ...any) {
	// An element of a list is where it is itself, if that is known, or else where its list is.
	where, known := v.config.origins[key]
	if list, _, ok := strings.Cut(key, "["); ok && !known {
		where = v.config.origins[list]
	}
	v.problems = append(v.problems, Problem{Where: where, Key: key, Text: fmt.Sprintf(format, args...)})
}

func (v *validator) intRange(key string, value, least, most int) {
	if value < least || value > most {
		v.addf(key, "want %d to %d, not %d", least, most, value)
	}
}

func (v *validator) atLeast(key string, value, least int64) {
	switch {
	case value < least:
		v.addf(key, "want at least %d, not %d", least, value)
	case value > maxCount:
		v.addf(key, "want at most %d, not %d", int64(maxCount), value)
	}
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	v.addf(key, "want %s or %s, not %q", strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1], value)
}

func (v *validator) data() {
	if v.config.Data == "" {
		v.addf("data", "want the path of a directory")
	}
}

func (v *validator) mqtt() {
	listeners := v.config.MQTT.Listeners
	if len(listeners) == 0 {
		v.addf("mqtt.listeners", "want at least one URL, such as tcp://127.0.0.1:1883")
	}
	seen := map[string]bool{}
	for i, l := range listeners {
		key := fmt.Sprintf("mqtt.listeners[%d]", i)
		if option, err := l.check(); err != nil {
			switch _, known := v.config.origins[key+"."+option]; {
			case known && option != "url":
				v.addf(key+"."+option, "%v", err)
			case option == "url":
				v.addf(key, "%v", err)
			default:
				v.addf(key, "%s: %v", option, err)
			}
		} else if seen[l.URL] && !strings.HasSuffix(l.URL, ":0") {
			v.addf(key, "%q is in the list twice", l.URL)
		}
		seen[l.URL] = true
	}
	if a := v.config.MQTT.Acknowledge; a != AcknowledgeNode && a != AcknowledgeSwarm {
		v.addf("mqtt.acknowledge", "want node or swarm, not %q", a)
	}
	if d := v.config.MQTT.SysInterval; d != 0 && (d < time.Second || d > 24*time.Hour) {
		v.addf("mqtt.sys_interval", "want 1s to 1d, or 0s for never, not %s", formatDuration(d))
	}
}

func (v *validator) swarm() {
	s := &v.config.Swarm
	if len(s.Listen) == 0 {
		v.addf("swarm.listen", "want at least one multiaddress, such as /ip4/0.0.0.0/tcp/7883")
	}
	for i, a := range s.Listen {
		if err := checkListen(a); err != nil {
			v.addf(fmt.Sprintf("swarm.listen[%d]", i), "%v", err)
		}
	}
	for i, a := range s.Bootstrap {
		if err := checkBootstrap(a); err != nil {
			v.addf(fmt.Sprintf("swarm.bootstrap[%d]", i), "%v", err)
		}
	}
	v.oneOf("swarm.reachability", s.Reachability, ReachabilityAuto, ReachabilityPublic, ReachabilityPrivate)
	v.intRange("swarm.small", s.Small, 1, maxSmall)
}

func (v *validator) limits() {
	l := &v.config.Limits
	v.atLeast("limits.max_connections", int64(l.MaxConnections), 1)
	v.atLeast("limits.max_connections_per_address", int64(l.MaxConnectionsPerAddress), 0)
	v.intRange("limits.max_connection_rate", l.MaxConnectionRate, 0, maxRate)
	v.intRange("limits.max_connection_rate_per_address", l.MaxConnectionRatePerAddress, 0, maxRate)
	if l.ConnectTimeout < time.Second || l.ConnectTimeout > time.Hour {
		v.addf("limits.connect_timeout", "want 1s to 1h, not %s", formatDuration(l.ConnectTimeout))
	}
	if l.MaxPacketSize < 1024 || l.MaxPacketSize > maxPacketSize {
		v.addf("limits.max_packet_size", "want 1KiB to %s, not %s", Bytes(maxPacketSize), l.MaxPacketSize)
	}
	v.intRange("limits.receive_maximum", l.ReceiveMaximum, 1, mqttMaxCount)
	v.intRange("limits.max_inflight_messages", l.MaxInflightMessages, 1, mqttMaxCount)
	v.intRange("limits.topic_alias_maximum", l.TopicAliasMaximum, 0, mqttMaxCount)
	if l.MaxKeepAlive < time.Second || l.MaxKeepAlive > mqttMaxKeepAlive {
		v.addf("limits.max_keep_alive", "want 1s to %s, not %s", formatDuration(mqttMaxKeepAlive), formatDuration(l.MaxKeepAlive))
	}
	v.intRange("limits.max_topic_length", l.MaxTopicLength, 1, mqttMaxCount)
	v.intRange("limits.max_accounts", l.MaxAccounts, 1, maxAccounts)
	v.atLeast("limits.max_waiting_logins", int64(l.MaxWaitingLogins), 1)
	v.intRange("limits.max_topic_levels", l.MaxTopicLevels, 1, mqttMaxCount)
	if l.Memory != 0 {
		v.atLeast("limits.memory", int64(l.Memory), minMemory)
	}
	for _, least := range []struct {
		key   string
		value int64
		least int64
	}{
		{"limits.max_sessions", int64(l.MaxSessions), 1},
		{"limits.max_subscriptions", int64(l.MaxSubscriptions), 1},
		{"limits.max_queued_messages", int64(l.MaxQueuedMessages), 1},
		{"limits.max_queued_bytes", int64(l.MaxQueuedBytes), 1024},
		{"limits.max_stored_messages", int64(l.MaxStoredMessages), 1},
		{"limits.max_stored_bytes", int64(l.MaxStoredBytes), 1024},
		{"limits.max_pending_bytes", int64(l.MaxPendingBytes), 1024},
		{"limits.max_total_queued_bytes", int64(l.MaxTotalQueuedBytes), 1024},
		{"limits.max_total_stored_bytes", int64(l.MaxTotalStoredBytes), 1024},
		{"limits.max_total_pending_bytes", int64(l.MaxTotalPendingBytes), minTotalPending},
		{"limits.max_retained_messages", int64(l.MaxRetainedMessages), 0},
		{"limits.max_retained_bytes", int64(l.MaxRetainedBytes), 0},
	} {
		v.atLeast(least.key, least.value, least.least)
	}
}

func (v *validator) peerLimits() {
	l := &v.config.Limits.Peers
	for _, least := range []struct {
		key   string
		value int64
		least int64
	}{
		{"max_nodes", int64(l.MaxNodes), 1},
		{"max_locations", int64(l.MaxLocations), 1},
		{"max_filters", int64(l.MaxFilters), 1},
		{"max_epochs", int64(l.MaxEpochs), 1},
		{"max_outbox_messages", int64(l.MaxOutboxMessages), 1},
		{"max_outbox_bytes", int64(l.MaxOutboxBytes), 1024},
		{"max_away_messages", int64(l.MaxAwayMessages), 1},
		{"max_away_bytes", int64(l.MaxAwayBytes), 1024},
		{"max_waiting_messages", int64(l.MaxWaitingMessages), 1},
		{"max_waiting_bytes", int64(l.MaxWaitingBytes), 1024},
		{"max_unsettled_messages", int64(l.MaxUnsettledMessages), 1},
		{"max_unsettled_bytes", int64(l.MaxUnsettledBytes), 1024},
		{"max_custody_messages", int64(l.MaxCustodyMessages), 1},
		{"max_custody_bytes", int64(l.MaxCustodyBytes), 1024},
		{"max_pending_bytes", int64(l.MaxPendingBytes), minPeerPending},
	} {
		v.atLeast("limits.peers."+least.key, least.value, least.least)
	}
	if least := l.MaxPendingBytes + minPeerPending; l.MaxTotalPendingBytes < least || l.MaxTotalPendingBytes > maxCount {
		v.addf("limits.peers.max_total_pending_bytes", "want at least %s, not %s", least, l.MaxTotalPendingBytes)
	}
}

// parseMultiaddr parses an address, and guesses what was meant by one that is none.
func parseMultiaddr(s, hint string) (ma.Multiaddr, error) {
	if a, err := ma.NewMultiaddr(s); err == nil && len(a) > 0 {
		return a, nil
	}
	host, port, err := net.SplitHostPort(s)
	if ip := net.ParseIP(host); err == nil && ip != nil && checkPort(port) == nil {
		family := "ip6"
		if ip.To4() != nil {
			family = "ip4"
		}
		hint = "did you mean /" + family + "/" + host + "/tcp/" + port + "?"
	}
	return nil, fmt.Errorf("%q is not a multiaddress; %s", s, hint)
}

const listenWant = "want /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1 (or ip6)"

// checkListen says what is wrong with an address to listen at.
func checkListen(s string) error {
	a, err := parseMultiaddr(s, listenWant)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(a))
	for _, c := range a {
		names = append(names, c.Protocol().Name)
	}
	names[0] = strings.TrimSuffix(strings.TrimSuffix(names[0], "4"), "6")
	switch strings.Join(names, "/") {
	case "ip/tcp", "ip/udp/quic-v1":
		return nil
	}
	return fmt.Errorf("%q is not an address to listen at; %s", s, listenWant)
}

const bootstrapWant = "want an address with the node's ID, such as /ip4/192.168.1.7/tcp/7883/p2p/ID; \"mozzie status\" at that node prints it"

// checkBootstrap says what is wrong with another node's address.
func checkBootstrap(s string) error {
	a, err := parseMultiaddr(s, bootstrapWant)
	if err != nil {
		return err
	}
	if len(a) < 2 || a[len(a)-1].Protocol().Code != ma.P_P2P {
		return fmt.Errorf("%q does not end in /p2p/ID; %s", s, bootstrapWant)
	}
	return nil
}
