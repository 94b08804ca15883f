package mqttfront

// Yield gives a session up to another node, which is known to have the one under this key. It may be a part of that.
func (b *Broker) Yield(key, to string, number uint64) { b.depart(sessionKey(key), to, number, false) }

// Reclaim returns what has gone from here last, and waits for a node that has nothing of it, for who has claimed it since, and has
// fetched nothing under that number; nil where there is nothing.
func (b *Broker) Reclaim(key, to string, number uint64) *Departure {
	b.reg.Lock()
	defer b.reg.Unlock()
	ds := b.departures[sessionKey(key)]
	if len(ds) == 0 || b.freeLocked(sessionKey(key), number) != number {
		return nil
	}
	if d := ds[len(ds)-1]; d.number < number && d.retarget(to, number) {
		return d
	}
	return nil
}

// retarget has a session wait for another node, unless somebody has some of it, is being given it, or it is a part. registry.reg is held.
func (d *Departure) retarget(to string, number uint64) bool {
	s := d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.begun || d.over || d.given || d.part {
		return false
	}
	d.to, d.number = to, number
	s.saveLocked()
	return true
}

// Left is a part of a session that waits to be fetched, and is not being fetched now.
type Left struct {
	Key    string
	To     string // peer ID
	Number uint64 // of the claim
	Born   uint64 // of the session
}

// Left returns what waits to be fetched by other nodes, and is not being fetched now.
func (b *Broker) Left() (left []Left) {
	b.reg.Lock()
	defer b.reg.Unlock()
	for key, ds := range b.departures {
		for _, d := range ds {
			d.s.mu.Lock()
			if d.streams == 0 && !d.over {
				left = append(left, Left{string(key), d.to, d.number, d.s.born})
			}
			d.s.mu.Unlock()
		}
	}
	return left
}

// Drop forgets a part of a session that is over.
func (b *Broker) Drop(l Left) {
	b.reg.Lock()
	d := b.departureLocked(l.Key, l.To, l.Number)
	b.reg.Unlock()
	if d != nil {
		d.End()
	}
}

// Offer has a part of a session that waits to be fetched wait for the node that has the rest of it, which may be this one.
func (b *Broker) Offer(l Left, to string) {
	b.reg.Lock()
	defer b.reg.Unlock()
	if d := b.departureLocked(l.Key, l.To, l.Number); d != nil {
		d.s.mu.Lock()
		defer d.s.mu.Unlock()
		if d.streams == 0 && !d.over && d.to != to {
			d.to = to
			d.s.saveLocked()
		}
	}
}

// Fetching says that somebody begins to fetch the session, or with n = -1 that it ends.
func (d *Departure) Fetching(n int) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.streams += n
	d.given = d.given && d.streams > 0
}
