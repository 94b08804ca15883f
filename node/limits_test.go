package node

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/config"
	"github.com/mozzie-mqtt/mozzie/node/memory"
)

// TestBounds checks that what package config lets through is what the packages below take, so that what is
// refused is refused in one place, with the setting's name.
func TestBounds(t *testing.T) {
	for small, want := range map[int]bool{0: false, 1: true, 100: true, 500: true, 501: false} {
		n := bounded(t)
		n.cfg.Swarm.Small = small
		host := n.hostConfig(nil, nil)
		if ok := n.cfg.Validate() == nil; ok != want {
			t.Errorf("the configuration takes swarm.small %d: %v, want %v", small, ok, want)
		}
		if ok := host.Validate() == nil; ok != want {
			t.Errorf("the host takes swarm.small %d: %v, want %v", small, ok, want)
		}
	}
	const most, mostBytes = 1<<31 - 1, 1 << 40 // what an int of a small machine holds
	for name, change := range map[string]func(*config.Config){
		"least": func(c *config.Config) {
			c.MQTT.SysInterval = time.Second
			c.Limits = config.Limits{MaxConnections: 1, ConnectTimeout: time.Second, MaxPacketSize: 1024, ReceiveMaximum: 1,
				MaxInflightMessages: 1, MaxKeepAlive: time.Second, MaxSessions: 1, MaxSubscriptions: 1, MaxTopicLength: 1, MaxTopicLevels: 1,
				MaxQueuedMessages: 1, MaxQueuedBytes: 1024, MaxPendingBytes: 1024,
				MaxTotalQueuedBytes: 1024, MaxTotalPendingBytes: 32 << 20, Memory: memory.Least, MaxAccounts: 1, MaxWaitingLogins: 1}
		},
		"most": func(c *config.Config) {
			c.MQTT.SysInterval = 24 * time.Hour
			c.Limits = config.Limits{MaxConnections: most, MaxConnectionsPerAddress: most, ConnectTimeout: time.Hour,
				MaxPacketSize: 16 << 20, ReceiveMaximum: 65535, MaxInflightMessages: 65535, TopicAliasMaximum: 65535,
				MaxKeepAlive: 65535 * time.Second, MaxSessionExpiry: 1<<63 - 1, MaxSessions: most, MaxSubscriptions: most,
				MaxConnectionRate: 1_000_000, MaxConnectionRatePerAddress: 1_000_000, MaxTopicLength: 65535,
				MaxTopicLevels: 65535, MaxQueuedMessages: most, MaxQueuedBytes: mostBytes, MaxPendingBytes: mostBytes, MaxTotalQueuedBytes: mostBytes, MaxTotalPendingBytes: mostBytes, Memory: mostBytes,
				MaxRetainedMessages: most, MaxRetainedBytes: mostBytes, MaxAccounts: 100_000, MaxWaitingLogins: most}
		},
	} {
		n := bounded(t)
		change(&n.cfg)
		if err := n.cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := memory.Check(int64(n.cfg.Limits.Memory)); err != nil {
			t.Errorf("%s that the configuration takes: %v", name, err)
		}
		broker := n.brokerConfig()
		if err := broker.Validate(); err != nil {
			t.Errorf("%s that the configuration takes: %v", name, err)
		}
	}
}

// bounded is a node that is not started.
func bounded(t *testing.T) *Node {
	c := config.Default()
	c.Data = t.TempDir()
	return &Node{cfg: c}
}
