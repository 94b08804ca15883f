package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
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
				MaxQueuedMessages: 1, MaxQueuedBytes: 1024, MaxStoredMessages: 1, MaxStoredBytes: 1024, MaxTotalStoredBytes: 1024, MaxPendingBytes: 1024,
				MaxTotalQueuedBytes: 1024, MaxTotalPendingBytes: 32 << 20, Memory: memory.Least, MaxAccounts: 1, MaxWaitingLogins: 1,
				Peers: config.PeerLimits{MaxNodes: 1, MaxLocations: 1, MaxFilters: 1, MaxEpochs: 1, MaxOutboxMessages: 1, MaxOutboxBytes: 1024,
					MaxAwayMessages: 1, MaxAwayBytes: 1024, MaxWaitingMessages: 1, MaxWaitingBytes: 1024, MaxUnsettledMessages: 1,
					MaxUnsettledBytes: 1024, MaxCustodyMessages: 1, MaxCustodyBytes: 1024, MaxPendingBytes: 32 << 20,
					MaxTotalPendingBytes: 64 << 20}}
		},
		"most": func(c *config.Config) {
			c.MQTT.SysInterval = 24 * time.Hour
			c.Limits = config.Limits{MaxConnections: most, MaxConnectionsPerAddress: most, ConnectTimeout: time.Hour,
				MaxPacketSize: 16 << 20, ReceiveMaximum: 65535, MaxInflightMessages: 65535, TopicAliasMaximum: 65535,
				MaxKeepAlive: 65535 * time.Second, MaxSessionExpiry: 1<<63 - 1, MaxSessions: most, MaxSubscriptions: most,
				MaxConnectionRate: 1_000_000, MaxConnectionRatePerAddress: 1_000_000, MaxTopicLength: 65535,
				MaxTopicLevels: 65535, MaxQueuedMessages: most, MaxQueuedBytes: mostBytes, MaxStoredMessages: most, MaxStoredBytes: mostBytes, MaxTotalStoredBytes: mostBytes, MaxPendingBytes: mostBytes, MaxTotalQueuedBytes: mostBytes, MaxTotalPendingBytes: mostBytes, Memory: mostBytes,
				MaxRetainedMessages: most, MaxRetainedBytes: mostBytes, MaxAccounts: 100_000, MaxWaitingLogins: most,
				Peers: config.PeerLimits{MaxNodes: most, MaxLocations: most, MaxFilters: most, MaxEpochs: most, MaxOutboxMessages: most,
					MaxOutboxBytes: mostBytes, MaxAwayMessages: most, MaxAwayBytes: mostBytes, MaxWaitingMessages: most,
					MaxWaitingBytes: mostBytes, MaxUnsettledMessages: most, MaxUnsettledBytes: mostBytes, MaxCustodyMessages: most,
					MaxCustodyBytes: mostBytes, MaxPendingBytes: mostBytes - 32<<20, MaxTotalPendingBytes: mostBytes}}
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

// TestPeerLimits checks that every limit of package core comes from a setting, and that the two have the same defaults.
func TestPeerLimits(t *testing.T) {
	n := bounded(t)
	want := core.DefaultLimits()
	want.RetainedTopics, want.RetainedBytes = n.cfg.Limits.MaxRetainedMessages, int(n.cfg.Limits.MaxRetainedBytes)
	if have := n.coreLimits(); have != want {
		t.Errorf("by default %+v, want %+v", have, want)
	}
	if want := rendezvous.DefaultPending(); n.pending() != want {
		t.Errorf("by default %+v may wait, want %+v", n.pending(), want)
	}
	fields := reflect.ValueOf(&n.cfg.Limits.Peers).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetInt(int64(i) + 7)
	}
	n.cfg.Limits.MaxRetainedMessages, n.cfg.Limits.MaxRetainedBytes = 5, 6
	seen := map[int64]string{}
	for _, set := range []reflect.Value{reflect.ValueOf(n.coreLimits()), reflect.ValueOf(n.pending())} {
		for i := range set.NumField() {
			name, v := set.Type().Field(i).Name, set.Field(i).Int()
			if seen[v] != "" || v > int64(fields.NumField())+7 && name != "RetainedReply" {
				t.Errorf("%s is %d: no setting, or that of %s", name, v, seen[v])
			}
			seen[v] = name
		}
	}
}

// TestManyLevels has clients publish to far more first levels than a node deals with, and subscribe to some: each gets an
// answer, what is accepted arrives, what is not is refused with the reason, and there is room again by itself.
func TestManyLevels(t *testing.T) {
	const most = 100
	s := newSwarm(t)
	s.limit = func(l *config.Limits) { l.Peers.MaxLocations = most }
	s.start()
	sub, pub := s.connect(0, "sub"), s.connect(0, "pub")
	sub.subscribe(1, "#", "stays/#")
	publish := func(topic string) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return pub.Publish(ctx, client.Message{Topic: topic, Payload: []byte(topic), QoS: 1})
	}
	refused := func(err error) bool {
		var r *client.RefusedError
		if err != nil && (!errors.As(err, &r) || r.Code != 0x97) {
			t.Fatal(err)
		}
		return err != nil
	}
	taken := map[string]bool{}
	for i := range 3 * most {
		if topic := fmt.Sprintf("l%d/x", i); !refused(publish(topic)) {
			taken[topic] = true
		}
	}
	if err := publish("stays/x"); err != nil {
		t.Errorf("where somebody is subscribed: %v", err)
	}
	taken["stays/x"] = true
	eventually(t, func() error {
		if err := publish("another/x"); refused(err) {
			return err
		}
		return nil
	})
	taken["another/x"] = true
	for i := 0; !refused(pub.Subscribe(t.Context(), []client.Subscription{{Filter: fmt.Sprintf("s%d/#", i)}}, client.Properties{})); i++ {
		if i > most {
			t.Fatal("there is room for more subscriptions than there may be locations")
		}
	}
	if st := s.nodes[0].service.Load().CoreStats(); st.LocationsFull == 0 || s.nodes[0].broker.Load().Stats().SubsNoRoom.Load() != 1 {
		t.Error("it is not counted")
	}
	for _, m := range sub.wait(len(taken)) {
		if !taken[m.Topic] {
			t.Errorf("%s came, which was refused", m.Topic)
		}
		delete(taken, m.Topic)
	}
	if len(taken) > 0 {
		t.Errorf("%d of those that were accepted did not come", len(taken))
	}
}

// bounded is a node that is not started.
func bounded(t *testing.T) *Node {
	c := config.Default()
	c.Data = t.TempDir()
	return &Node{cfg: c}
}
