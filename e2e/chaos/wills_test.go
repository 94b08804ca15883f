package chaos

import (
	"strings"
	"time"
)

// readWills makes of each will what it has to be: a message that is owed to whoever was subscribed when the connection
// ended, one that must not be sent, or one that nobody can know of.
func (c *checker) readWills() {
	for _, all := range c.conns {
		for _, k := range all {
			if k.will == nil {
				continue
			}
			c.report.Wills++
			switch owed, excuse := c.fate(k); {
			case excuse != "":
				c.report.excuse(excuse)
			case owed:
				m := k.will
				m.promised, m.firstSend, m.ackedAt, m.ackedBy = true, k.closed, c.thawed(k.node, k.closed), k.node
				c.byTopic[m.topic] = append(c.byTopic[m.topic], m)
				c.report.WillsOwed++
			default:
				k.will.wasUnfired = true
			}
		}
	}
}

// fate says whether the will of a connection has to be sent.
func (c *checker) fate(k *connection) (owed bool, excuse Excuse) {
	if k.closed == forever {
		return false, WillUnknown
	}
	gone := c.thawed(k.node, k.closed)
	crash := c.crashed(k.node, k.closed-notice, gone+notice)
	switch {
	case k.how == howSaid && !crash && !c.befallen(k.node, k.closed-answerLimit, k.closed):
		return false, ""
	case k.how == howSaid, k.how == howUnread, k.how == howRefuse, !k.accepted:
		return false, WillUnknown
	case (crash || c.doubted(k)) && !c.stayedAway(k):
		return false, WillUnknown
	case k.how == howLost || k.how == howLeft || strings.HasPrefix(k.how, howSent):
		return true, ""
	}
	return false, WillUnknown
}

// doubt is for how long after a fault a node may not know whether others have taken it for dead: it looks whether they have sent its
// clients' wills before it does.
const doubt = 15 * time.Second

// doubted reports whether a connection was ended by its node, which stopped, so soon after a fault at others that the will may have
// had to wait. Where its client goes on at another node meanwhile, it leaves none.
func (c *checker) doubted(k *connection) bool {
	if !strings.HasPrefix(k.how, howSent) || !c.befallen(k.node, k.closed, k.closed) {
		return false
	}
	for _, f := range c.faults {
		if !f.has(k.node) && f.from <= k.closed && f.to >= k.closed-doubt {
			return true
		}
	}
	return false
}

// stayedAway reports whether a client did not come back for so long after a crash of its node that its will has to be sent, by the
// node or those that watch it, with no other fault in the time between.
func (c *checker) stayedAway(k *connection) bool {
	until := k.closed + taken
	for _, other := range c.conns[k.client] {
		if other.number > k.number && other.began < until {
			return false
		}
	}
	for _, f := range c.faults {
		if !f.has(k.node) && f.from <= until && f.to >= k.closed-taken {
			return false
		}
	}
	return c.end > until
}

// alarmed reports whether a will may have been sent though its client was connected: there was a fault for so long that its node was
// taken for dead. The client's next will is another one for the nodes, and the same for who reads them.
func (c *checker) alarmed(k *connection) bool {
	for _, s := range c.storms {
		if s.to-s.from >= silence && s.from <= k.closed && s.to >= k.began {
			return true
		}
	}
	return false
}

// befallen reports whether a node was down or hung at any time between two.
func (c *checker) befallen(node int, from, to time.Duration) bool {
	for _, f := range c.faults {
		if f.has(node) && f.from <= to && f.to >= from {
			return true
		}
	}
	return false
}

// checkWills: no will is sent of a client that said goodbye. That others are sent, once, is checked as of any message.
func (c *checker) checkWills() {
	for _, all := range c.conns {
		for _, k := range all {
			switch {
			case k.will == nil || !k.will.wasUnfired || k.will.got == 0:
			case c.alarmed(k):
				c.report.excuse(WillFalseAlarm)
			default:
				c.violation(Event{At: k.closed, Client: k.client, Conn: k.number, Node: k.node, Msg: k.will.id}, "will", nil, "the client had said goodbye")
			}
		}
	}
}

// checkConnections: a client has one connection. When it connects again the old one is closed, and nothing more comes on it.
func (c *checker) checkConnections() {
	for _, all := range c.conns {
		for i, old := range all {
			for _, newer := range all[i+1:] {
				if !old.accepted || !newer.accepted || newer.acceptedAt >= old.closed {
					continue
				}
				c.report.Takeovers++
				at := newer.acceptedAt
				late := old.closed > at+takeover && c.end > at+takeover
				for _, e := range old.stale {
					late = late || e.At > at+takeover
				}
				if !late {
					break
				}
				if !c.calm(at, at+takeover) {
					c.report.excuse(TwoHolders)
					break
				}
				c.violation(Event{At: at, Client: old.client, Conn: old.number, Node: old.node}, "connections", nil, "it was open long after the client had connected again")
				break
			}
		}
	}
}
