// Package mqttfront is the MQTT side of a node: listeners, connections, sessions, subscriptions and delivery
// for MQTT 3.1, 3.1.1 and 5. It knows nothing of the nodes around it but the interface Swarm, which the node
// implements. What clients of other makers need is in the specifications, and no extension is [MQTT3-7.0.0-2]; it connects
// to no other server [MQTT3-7.0.0-1].
//
// # The way of a message
//
// One goroutine reads each connection, and decodes in place all packets that one read brought. A PUBLISH is
// checked, its topic looked up in a cache of match results (routes), and appended to the write buffers of the
// connections that get it at QoS 0, or to the queues of the sessions that get it at QoS 1 or 2. At the end of
// the read the messages that somebody else may want go to the swarm in one batch, and each connection whose
// buffer was touched is written to with one system call, by the publisher's goroutine if the socket takes it
// at once, else by a writer of its own that lives until the buffer is empty. So there is no goroutine, channel
// or timer for a message, and an idle connection is one goroutine without buffers.
//
// What comes from the swarm (Broker.Deliver) goes the same way from the routes on.
//
// # Who is slowed, and what is dropped
//
// A client waits for nothing but what the swarm does for it: the acceptance of its own QoS 1 and 2 messages and, where
// many are open, the promises for its subscriptions. It is not read from until then, nor while its SUBACKs and
// UNSUBACKs pile up because it does not read them (hold.go). Retained messages are asked for a few filters of a
// session at a time, and no more while much waits in it already (retained.go).
//
// A subscriber that does not read loses, once Config.MaxPendingBytes wait for its socket, the newest QoS 0 messages;
// QoS 1 and 2 wait in its session up to Config.MaxQueuedMessages and MaxQueuedBytes, or MaxStoredMessages and
// MaxStoredBytes where the store keeps them, after which the newest are dropped. Every drop is counted in Stats.
//
// # Goroutines
//
//	runAccept   one for each listener; owner Broker; ends when the listener is closed
//	runConn     one for each connection, which it takes through the PROXY protocol, TLS and WebSocket first; owner
//	            Broker; ends when the connection is closed. For a connection over a limit it says so (turnAway), for
//	            at most maxTurnedAway at a time and turnAwayTime each, or closes it
//	runOpening  one for a connection that TLS or WebSocket is set up on; owner runConn, which waits; ends with that
//	runWriter   one for a connection whose socket did not take all at once; owner conn; ends when the buffer
//	            is empty or the connection is closed
//	runAsks     asks for retained messages for a client that has caught up; owner session; ends when no more may be
//	            asked for now
//	runArrival  takes over what another node has of a session, and runJoin a part of one beside it; owner Broker; they end
//	            with that, and in Close
//	runRoom     sends more of a session's queue once the store has room; owner session; ends with that
//	runFlush    helps to write to many connections at once; owner burst; ends when its share is written
//	lingering   one for a WebSocket connection that is being ended by us (conn.abandonLocked); owner conn; ends after
//	            Config.CloseTimeout at the latest
//	runFeed     lets clients have what was queued because there was no room for all (crowd.go); owner Broker; ends in
//	            Close
//	runTicker   keep alive, statistics, $SYS; owner Broker; ends in Close
//
// Session expiry and delayed wills are timers (time.AfterFunc), which do nothing once the broker is closed.
//
// # Locks
//
// In this order: Broker.deliverMu, registry.reg, interests.mu, Broker.shareMu, group.mu, session.mu, conn.mu;
// localRetained.mu by itself. The swarm and the store are never called with session.mu or conn.mu held, with one
// exception: SessionLog, which is told under session.mu what happens to a queue, so that it knows the order, and
// SessionStore.Room.
// Origin.Accepted, Receipt.Done and the done of Register and Retained may be called from anywhere, but not with a
// lock held that Swarm.Publish, Register or Retained take.
package mqttfront
