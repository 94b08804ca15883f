package node

import "strconv"

// sayUnderSys says what is published below $SYS/broker/mozzie/ about the swarm and the memory.
func (n *Node) sayUnderSys(say func(name, value string)) {
	say("peer_id", n.host.ID().String())
	svc := n.service.Load()
	g := svc.Gauges()
	for name, v := range map[string]int{
		"nodes": g.Nodes, "peers": int(svc.Stats().Up.Load()), "locations": g.Locations, "locations_serving": g.Serving,
		"registrations": g.Registrations, "outbox": g.Outbox, "custody": g.Custody, "retained": n.db.Retained().Total(),
	} {
		say(name, strconv.Itoa(v))
	}
	if m := n.memoryStatus(); m != nil {
		say("memory/level", m.Level)
		say("memory/used", strconv.FormatInt(m.Used, 10))
		say("memory/limit", strconv.FormatInt(m.Limit, 10))
	}
}
