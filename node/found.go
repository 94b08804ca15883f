package node

// sayFound says in the log what an earlier start of the node has left: on a node that has just been made, nothing.
func (n *Node) sayFound() {
	f := n.broker.Load().Found()
	outbox := n.service.Load().Gauges().Outbox
	custody, retained := n.db.Custody().Len(), n.db.Retained().Total()+f.LocalRetained
	if f.Sessions == 0 && f.Wills == 0 && custody == 0 && retained == 0 {
		return
	}
	n.log.Info("brought back what was here", "sessions", f.Sessions, "subscriptions", f.Subscriptions, "queued", f.Queued,
		"inflight", f.Inflight+f.Inbound, "retained", retained, "custody", custody, "outbox", outbox, "wills", f.Wills)
}
