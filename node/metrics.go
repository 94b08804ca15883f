package node

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/memory"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

// collect registers what /metrics shows beside libp2p's own.
func (n *Node) collect() {
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &metrics{n})
}

// metrics reads the counters of the node's parts when they are asked for.
type metrics struct{ n *Node }

// Describe implements prometheus.Collector: what there is follows from Collect.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// sample is one value of a metric.
type sample struct {
	name, help string
	kind       prometheus.ValueType
	value      float64
	labels     []string // name, value, name, value...
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.histograms(out)
	for _, s := range slices.Concat(brokerSamples(m.n.broker.Load().Stats()), m.swarm(), m.logins(), memorySamples(m.n.memory.Load()), diskSamples(m.n.db)) {
		var names, values []string
		for i := 0; i+1 < len(s.labels); i += 2 {
			names, values = append(names, s.labels[i]), append(values, s.labels[i+1])
		}
		desc := prometheus.NewDesc("mozzie_"+s.name, s.help, names, nil)
		out <- prometheus.MustNewConstMetric(desc, s.kind, s.value, values...)
	}
}

// histograms are what takes time.
func (m *metrics) histograms(out chan<- prometheus.Metric) {
	st := m.n.service.Load().CoreStats()
	for _, h := range []struct {
		name, help string
		h          core.Histogram
	}{
		{"kept_seconds", "How long this node's QoS 1 and 2 messages waited until other nodes kept them or they were delivered.", st.Kept},
		{"promise_seconds", "How long this node's subscriptions waited for their promise.", st.Promised},
	} {
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, bound := range core.Buckets {
			sum += h.h.Counts[i]
			buckets[bound.Seconds()] = sum
		}
		out <- prometheus.MustNewConstHistogram(prometheus.NewDesc("mozzie_"+h.name, h.help, nil, nil), h.h.Count, h.h.Sum.Seconds(), buckets)
	}
}

var qos = [3]string{"0", "1", "2"}

// brokerSamples are the counters of the MQTT side.
func brokerSamples(b *mqttfront.Stats) []sample {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	all := []sample{
		{"connections", "MQTT connections.", g, float64(b.Connections.Load()), nil},
		{"sessions", "MQTT sessions, with a connection or without.", g, float64(b.Sessions.Load()), nil},
		{"sessions_offline", "MQTT sessions without a connection.", g, float64(b.Offline.Load()), nil},
		{"subscriptions", "Subscriptions of all sessions.", g, float64(b.Subscriptions.Load()), nil},
		{"queued_messages", "Messages in sessions, waiting or unacknowledged.", g, float64(b.QueuedMessages.Load()), nil},
		{"queued_memory_bytes", "Memory that queued messages take; what waits in several sessions counts once.", g, float64(b.QueuedMemory.Load()), nil},
		{"pending_memory_bytes", "Memory that what waits for the sockets of MQTT clients takes, but for small buffers.", g, float64(b.PendingMemory.Load()), nil},
		{"queued_bytes", "Bytes of them.", g, float64(b.QueuedBytes.Load()), nil},
		{"connects_total", "MQTT connections that said CONNECT.", c, float64(b.Connected.Load()), nil},
		{"disconnects_total", "MQTT connections that ended.", c, float64(b.Disconnected.Load()), nil},
		{"received_bytes_total", "Bytes from MQTT clients.", c, float64(b.BytesReceived.Load()), nil},
		{"sent_bytes_total", "Bytes to MQTT clients.", c, float64(b.BytesSent.Load()), nil},
		{"retransmitted_messages_total", "Messages sent again to clients that came back.", c, float64(b.Retransmitted.Load()), nil},
		{"local_retained_messages", "Retained messages below $local.", g, float64(b.LocalRetained.Load()), nil},
		{"local_retained_bytes", "Bytes of them.", g, float64(b.LocalBytes.Load()), nil},
		{"local_retained_refused_total", "Messages below $local that a limit kept from being retained.", c, float64(b.LocalRefused.Load()), nil},
		{"refused_messages_total", "Messages from clients that were refused.", c, float64(b.Refused.Load()), nil},
		{"disconnected_rights_total", "Clients that were disconnected because they had lost the right to be there.", c, float64(b.LostRight.Load()), nil},
		{"reads_held_total", "Times that a client was not read from until what it had sent was accepted or answered.", c, float64(b.Held.Load()), nil},
		{"session_store_errors_total", "Times that the session store could not keep what it was told.", c, float64(b.StoreErrors.Load()), nil},
		{"sessions_not_kept_total", "MQTT sessions that end with their connection, though more was asked for, because the disk could not be written.", c, float64(b.SessionsNotKept.Load()), nil},
		{"promises_local_total", "SUBACKs that held for the nodes in reach only.", c, float64(b.PromisesLocal.Load()), nil},
		{"wills_total", "Wills published.", c, float64(b.WillsSent.Load()), nil},
		{"wills_false_total", "Wills of clients that were connected all the time, which other nodes had sent.", c, float64(b.WillsFalse.Load()), nil},
		{"accepted_total", "MQTT connections that came, refused ones included.", c, float64(b.Accepted.Load()), nil},
		{"sessions_expired_total", "MQTT sessions that nobody came back to in time.", c, float64(b.SessionsExpired.Load()), nil},
		{"connections_paced_total", "MQTT connections that waited for their turn because they came fast.", c, float64(b.Paced.Load()), nil},
		{"sessions_arrived_total", "Sessions that came from other nodes, with their clients.", c, float64(b.Arrivals.Load()), nil},
		{"sessions_departed_total", "Sessions that other nodes have taken over, with their clients.", c, float64(b.Departures.Load()), nil},
		{"sessions_joined_total", "Parts of sessions that were joined with the session, from other nodes or this one.", c, float64(b.Joins.Load()), nil},
		{"sessions_open_untold_total", "Messages of which the swarm was not told that they wait for few sessions alone: too many did.", c, float64(b.OpeningFull.Load()), nil},
		{"sessions_duplicates_total", "Messages that a session was not given because it had them at another node.", c, float64(b.Twice.Load()), nil},
		{"takeovers_total", "Sessions taken over by a new connection.", c, float64(b.Takeovers.Load()), nil},
	}
	for what, v := range map[string]uint64{"publish": b.PubsDenied.Load(), "deliver": b.DeliveriesDenied.Load()} {
		all = append(all, sample{"denied_messages_total", "Messages from and to MQTT clients that access rules did not allow.", c, float64(v), []string{"what", what}})
	}
	for i := range qos {
		all = append(all,
			sample{"received_messages_total", "Messages from MQTT clients.", c, float64(b.Received[i].Load()), []string{"qos", qos[i]}},
			sample{"sent_messages_total", "Messages to MQTT clients.", c, float64(b.Sent[i].Load()), []string{"qos", qos[i]}},
			sample{"received_payload_bytes_total", "Bytes of the payloads of messages from MQTT clients.", c, float64(b.ReceivedPayload[i].Load()), []string{"qos", qos[i]}},
			sample{"sent_payload_bytes_total", "Bytes of the payloads of messages to MQTT clients.", c, float64(b.SentPayload[i].Load()), []string{"qos", qos[i]}})
	}
	for cause, v := range map[string]uint64{"disk": b.Paused.Load(), "memory": b.Short.Load()} {
		all = append(all, sample{"queues_paused_total", "Times that no more was taken from a session's queue on the disk for a while.", c, float64(v), []string{"cause", cause}})
	}
	for cause, v := range map[string]uint64{
		"slow": b.DropSlow.Load(), "crowd": b.DropCrowd.Load(), "memory": b.DropMemory.Load(), "queues": b.DropQueues.Load(),
		"queue": b.DropQueue.Load(), "expired": b.DropExpired.Load(), "too_large": b.DropTooLarge.Load(),
		"no_member": b.DropNoMember.Load(), "session_ended": b.DropEnded.Load(),
	} {
		all = append(all, sample{"dropped_messages_total", "Messages to MQTT clients that were dropped.", c, float64(v), []string{"cause", cause}})
	}
	for cause, v := range map[string]uint64{
		"accept_error": b.AcceptErrors.Load(), "limit": b.RefusedConns.Load(), "address_limit": b.RefusedOfAddress.Load(),
		"rate": b.RefusedRate.Load(), "memory": b.RefusedMemory.Load(), "sessions": b.RefusedSessions.Load(),
		"refused": b.RefusedLogins.Load(), "proxy": b.BadProxy.Load(), "tls": b.BadHandshakes.Load(),
		"listener_limit": b.RefusedOfListener.Load(), "websocket": b.BadUpgrades.Load(), "connect_timeout": b.ConnectTimeout.Load(),
		"no_connect": b.NoConnect.Load(), "keep_alive": b.KeepAlive.Load(), "unread": b.Unread.Load(),
		"malformed": b.Malformed.Load(), "protocol_error": b.ProtocolErrors.Load(), "packet_too_large": b.TooLarge.Load(),
		"receive_maximum": b.ReceiveMaximum.Load(), "topic_alias": b.TopicAlias.Load(), "topic": b.TopicInvalid.Load(),
		"codec_panic": b.DecodePanics.Load(),
	} {
		all = append(all, sample{"connection_errors_total", "MQTT connections that ended badly or were refused.", c, float64(v), []string{"cause", cause}})
	}
	for cause, v := range map[string]uint64{
		"limit": b.SubsOverLimit.Load(), "memory": b.SubsMemory.Load(), "filter": b.SubsInvalid.Load(), "not_authorized": b.SubsDenied.Load(),
		"locations": b.SubsNoRoom.Load(),
	} {
		all = append(all, sample{"refused_subscriptions_total", "Subscriptions that were refused.", c, float64(v), []string{"cause", cause}})
	}
	return all
}

// logins are the counters of those who come to the door.
func (m *metrics) logins() []sample {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	st := &m.n.auth.door.Stats
	all := []sample{
		{"accounts", "Accounts.", g, float64(m.n.auth.book.Table().Len()), nil},
		{"login_hashes_total", "Logins whose password had to be hashed.", c, float64(st.Hashed.Load()), nil},
	}
	for what, v := range map[string]uint64{"failed": st.Failed.Load(), "slowed": st.Slowed.Load(), "busy": st.Busy.Load()} {
		all = append(all, sample{"logins_total", "Logins with a password that did not go well.", c, float64(v), []string{"what", what}})
	}
	return all
}

// memorySamples are the memory of the process, where it has a limit.
func memorySamples(w *memory.Watcher) []sample {
	if w == nil {
		return nil
	}
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	all := []sample{
		{"memory_limit_bytes", "Bytes of memory that the node may use.", g, float64(w.Limit()), nil},
		{"memory_used_bytes", "Bytes of memory in use, without garbage.", g, float64(w.Used()), nil},
		{"memory_level", "How scarce memory is: 0 ok, 1 tight, 2 critical.", g, float64(w.Level()), nil},
	}
	for _, l := range []memory.Level{memory.Tight, memory.Critical} {
		all = append(all, sample{"memory_scarce_total", "Times that memory became scarce.", c, float64(w.Rises(l)), []string{"level", l.String()}})
	}
	return all
}

// diskSamples are what the database has done.
func diskSamples(d *store.DB) []sample {
	const c, g = prometheus.CounterValue, prometheus.GaugeValue
	s := d.Stats()
	records, bytes := d.Waiting()
	return []sample{
		{"database_waiting_records", "Records that wait to be written.", g, float64(records), nil},
		{"database_waiting_bytes", "Bytes of memory that they take, about.", g, float64(bytes), nil},
		{"database_full_groups_total", "Groups of records that were written because they were full.", c, float64(s.Full.Load()), nil},
		{"database_largest_group_records", "Records in the largest group that was written.", g, float64(s.Largest.Load()), nil},
		{"database_syncs_total", "Times that the database had its log synced.", c, float64(s.Syncs.Load()), nil},
		{"database_groups_total", "Groups that records were written in.", c, float64(s.Groups.Load()), nil},
		{"database_records_total", "Records that were written or deleted.", c, float64(s.Writes.Load()), nil},
		{"database_record_bytes_total", "Bytes of them, keys included.", c, float64(s.Bytes.Load()), nil},
		{"database_unneeded_records_total", "Records that were no longer needed before they were written.", c, float64(s.Unneeded.Load()), nil},
		{"database_written_bytes_total", "Bytes that the database wrote to its files.", c, float64(s.Disk.Load()), nil},
		{"database_damaged_records_total", "Records that could not be read.", c, float64(s.Damaged.Load()), nil},
	}
}

// relayed counts the peers that are connected through relays alone.
func (m *metrics) relayed() (n int) {
	for _, id := range m.n.host.Connected() {
		if m.n.host.Relayed(id) {
			n++
		}
	}
	return n
}

func (m *metrics) swarm() []sample {
	svc := m.n.service.Load()
	st, l, g := svc.CoreStats(), svc.Stats(), svc.Gauges()
	const c, ga = prometheus.CounterValue, prometheus.GaugeValue
	all := []sample{
		{"nodes", "Nodes known, this one among them.", ga, float64(g.Nodes), nil},
		{"peers", "Nodes with route streams in both directions.", ga, float64(l.Up.Load()), nil},
		{"peers_relayed", "Connected nodes that are reached through a relay.", ga, float64(m.relayed()), nil},
		{"reservations", "Nodes that relay for this one.", ga, float64(m.n.host.Reservations()), nil},
		{"leases", "Leases held from other nodes.", ga, float64(g.Leases), nil},
		{"locations", "Locations that this node is a member of the set of.", ga, float64(g.Locations), nil},
		{"locations_serving", "Of these, where it is the rendezvous.", ga, float64(g.Serving), nil},
		{"routes", "Locations that this node reaches, or has reached lately.", ga, float64(g.Routes), nil},
		{"registrations", "Registered filters held at locations.", ga, float64(g.Registrations), nil},
		{"retained_messages", "Retained messages kept.", ga, float64(m.n.db.Retained().Total()), nil},
		{"outbox_messages", "Messages of this node that nobody else keeps yet.", ga, float64(g.Outbox), nil},
		{"custody_messages", "Messages in custody, the outbox included.", ga, float64(g.Custody), nil},
		{"custody_bytes", "Bytes of them.", ga, float64(g.CustodyBytes), nil},
		{"unsettled_messages", "Messages kept until a majority of a set has matched them.", ga, float64(g.Unsettled), nil},
		{"waiting_messages", "Messages that wait at locations until they can be served.", ga, float64(g.Waiting), nil},
		{"epochs", "Publishers' epochs remembered for subscribers here.", ga, float64(g.Epochs), nil},
		{"route_bytes_received_total", "Bytes on route streams from other nodes.", c, float64(l.BytesIn.Load()), nil},
		{"route_bytes_sent_total", "Bytes on route streams to other nodes.", c, float64(l.BytesOut.Load()), nil},
		{"route_frames_received_total", "Frames from other nodes.", c, float64(l.FramesIn.Load()), nil},
		{"route_frames_sent_total", "Frames to other nodes.", c, float64(l.FramesOut.Load()), nil},
		{"route_writes_total", "Writes that they went in.", c, float64(l.Writes.Load()), nil},
		{"route_broken_total", "Route streams that broke while their node was connected.", c, float64(l.Broken.Load()), nil},
		{"route_pending_bytes", "Bytes that wait to be written to other nodes.", ga, float64(l.Pending.Load()), nil},
		{"route_unsendable_frames_total", "Frames to other nodes that were left out because no node would take them.", c, float64(l.Unsendable.Load()), nil},
		{"malformed_total", "Frames and streams from other nodes that were dropped for what they held.", c, float64(st.Malformed + l.Malformed.Load()), nil},
		{"wills_of_others_total", "Wills sent for other nodes, which were dead.", c, float64(m.n.watch.Stats().Fired.Load()), nil},
		{"published_total", "Messages that this node's clients published to the swarm.", c, float64(st.Published), nil},
		{"suppressed_total", "QoS 0 messages not sent because nobody was interested.", c, float64(st.Suppressed), nil},
		{"held_total", "Messages that waited for what their client published before at another location.", c, float64(st.Held), nil},
		{"held_given_up_total", "Of these, those that went on before it had arrived.", c, float64(st.GivenUp), nil},
		{"matched_total", "Messages that this node served as rendezvous.", c, float64(st.Matched), nil},
		{"forwarded_total", "Messages passed on to the rendezvous.", c, float64(st.Forwarded), nil},
		{"delivered_total", "Messages from the swarm for clients of this node.", c, float64(st.Delivered), nil},
		{"duplicates_total", "Messages that came again and were dropped.", c, float64(st.Duplicates), nil},
		{"late_messages_total", "Messages from nodes that had taken this one for out of reach since; they come again.", c, float64(st.Late), nil},
		{"custody_node_total", "Messages acknowledged, with mqtt.acknowledge: swarm, though no other node had them.", c, float64(st.CustodyNode), nil},
		{"copies_total", "Messages given to a second node in custody.", c, float64(st.Copies), nil},
		{"shares_moved_total", "Messages of shared subscriptions given to another node, because the one that was picked has no member left, or is dead.", c, float64(st.SharesMoved), nil},
		{"set_changes_total", "Sets of locations that changed.", c, float64(st.SetChanges), nil},
		{"hand_overs_total", "Locations handed to another rendezvous.", c, float64(st.HandOvers), nil},
		{"failovers_total", "Locations taken over from a rendezvous out of reach.", c, float64(st.Failovers), nil},
	}
	for cause, v := range map[string]uint64{"peer": l.Full.Load(), "all": l.Crowded.Load()} {
		all = append(all, sample{"route_full_total", "Route streams given up because too much waited, for their node or for all.", c, float64(v), []string{"cause", cause}})
	}
	for cause, v := range map[string]uint64{
		"qos0_no_way": st.DroppedQoS0, "qos0_backlog": l.DroppedQoS0.Load(), "away": st.DroppedAway, "unsettled": st.DroppedUnsettled,
		"waiting": st.DroppedWaiting, "retained_limit": st.DroppedRetained, "no_member": st.NoMember,
		"custody": st.DroppedCustody,
	} {
		all = append(all, sample{"route_dropped_messages_total", "Messages between nodes that a limit cost.", c, float64(v), []string{"cause", cause}})
	}
	for limit, v := range map[string]uint64{
		"filters": st.RegistrationsFull, "locations": st.LocationsFull, "nodes": st.PeersFull, "epochs": st.ForgottenEpochs,
		"waiters": st.WaitersFull,
	} {
		all = append(all, sample{"limits_reached_total", "Times that there was no room for more of something.", c, float64(v), []string{"of", limit}})
	}
	for cause, v := range map[string]uint64{"refused": st.Refused, "unanswered": st.Unanswered} {
		all = append(all, sample{"operations_failed_total", "Requests to nodes in reach that failed.", c, float64(v), []string{"cause", cause}})
	}
	return all
}
