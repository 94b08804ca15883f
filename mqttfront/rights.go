package mqttfront

// What a client may do is with its session, where publishing finds it without asking anybody, and is worked into the
// cached routes: a session that may not receive a topic is not among its targets, so that nothing is asked for a message.
// Where messages do not come by a route (retained ones, shared subscriptions) or have waited in a queue since, each is
// checked by itself.

// grant is the rights of a session, that has some. A session without one may do everything.
type grant struct{ Rights }

// errMayNotPublish and errMayNotSubscribe are said to clients whose rights do not allow what they want.
var (
	errMayNotPublish   = &Refusal{ReasonNotAuthorized, "the access rules do not let this client publish there"}
	errMayNotSubscribe = &Refusal{ReasonNotAuthorized, "the access rules let this client receive nothing of what the filter matches"}
)

// setRights notes what the client of a session may do. It reports whether that is something else than before.
func (s *session) setRights(r Rights) (changed bool) {
	old := s.grant.Load()
	switch {
	case r == nil && old == nil, r != nil && old != nil && old.Rights == r:
		return false
	case r == nil:
		s.grant.Store(nil)
	default:
		s.grant.Store(&grant{r})
	}
	return true
}

// mayReceive reports whether the client may have messages of a topic.
func (s *session) mayReceive(name string) bool {
	g := s.grant.Load()
	return g == nil || g.CanReceive(name)
}

// mayPublish reports whether the client may publish to the topic of a slot. The answer for the topic before is
// remembered.
func (c *conn) mayPublish(sl *slot) bool {
	g := c.sess.grant.Load()
	if g == nil || c.own.granted == g && c.own.may == sl {
		return true
	}
	if !g.CanPublish(sl.topic) {
		return false
	}
	c.own.granted, c.own.may = g, sl
	return true
}

// Recheck asks Auth again about all clients and sessions, after its answers have changed. Who may not stay is
// disconnected, as Auth says (MQTT 5), and what is not allowed any more ends: at once for publishing, and for
// subscriptions with the messages that are on their way to clients in this moment.
func (b *Broker) Recheck() {
	b.checks.Add(1) // who connects meanwhile looks again: see attach
	b.reg.Lock()
	cs := b.connsLocked()
	ss := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		ss = append(ss, s)
	}
	b.reg.Unlock()
	changed := false
	for _, s := range ss {
		s.mu.Lock()
		changed = s.setRights(b.rightsOf(s)) || changed
		s.mu.Unlock()
	}
	if changed {
		b.rightsVersion.Add(1)
	}
	for _, c := range cs {
		if c.ready() {
			b.recheckConn(c)
		}
	}
}

func (b *Broker) rightsOf(s *session) Rights {
	user, id, _ := s.key.parts()
	return b.auth.Rights(user, id)
}

// recheckConn disconnects a client that may not stay.
func (b *Broker) recheckConn(c *conn) {
	if err := b.auth.Stays(c.login, c.who); err != nil {
		c.loseRight(asRefusal(err, ReasonNotAuthorized))
	}
}

var errNotTrusted = &Refusal{ReasonNotAuthorized, "the client's certificate is not accepted any more"}

// RecheckCertificates asks the listeners again about what their clients have shown, after they have come to trust others.
// Whose certificate is not accepted any more is disconnected.
func (b *Broker) RecheckCertificates() {
	b.trusts.Add(1) // whose handshake has begun looks again: see recheckNew
	b.reg.Lock()
	cs := b.connsLocked()
	b.reg.Unlock()
	for _, c := range cs {
		if c.ready() {
			b.recheckCertificate(c)
		}
	}
}

func (b *Broker) recheckCertificate(c *conn) {
	if l := c.listener; l.TLS != nil && l.Trusts != nil && !l.Trusts(c.shown) {
		c.loseRight(errNotTrusted)
	}
}

// loseRight disconnects a client; a Recheck and recheckNew may both come to do it.
func (c *conn) loseRight(r *Refusal) {
	if c.stop(r) {
		c.b.stats.LostRight.Add(1)
	}
}

// recheckNew does for a connection that has just been let in what a Recheck or a RecheckCertificates that began meanwhile
// could not.
func (b *Broker) recheckNew(c *conn, checks uint64) {
	if b.trusts.Load() != c.trusts {
		b.recheckCertificate(c)
	}
	if b.checks.Load() == checks {
		return
	}
	s := c.sess
	s.mu.Lock()
	changed := s.setRights(b.rightsOf(s))
	s.mu.Unlock()
	if changed {
		b.rightsVersion.Add(1)
	}
	b.recheckConn(c)
}
