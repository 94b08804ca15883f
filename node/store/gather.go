package store

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
)

// A group is gathered for before it is written: what is no longer needed by then is never written. Most of what passes through a
// node is needed until its subscribers have it, some milliseconds. Where that has been so lately, a group that nobody is in a
// hurry for is gathered for several times as long, so that only what came last is written with it.
const (
	// gatherShort is how long a group waits for what belongs to it where nothing is known to be gone soon, or somebody is in a
	// hurry: an acknowledgement takes that much longer than the disk. What comes while the disk is at work gathers by itself.
	gatherShort = 250 * time.Microsecond
	// gatherStep is how often it is looked at where it pays to wait.
	gatherStep = time.Millisecond
	// gatherMost is how long one may be gathered for. It is what a message may wait for in addition to the disk, if nearly all
	// others were delivered sooner.
	gatherMost = 20 * time.Millisecond
	// briefly is how long records are needed, on average, where it is worth waiting: two in three are gone by then.
	briefly = gatherMost
	// lasting is what counts for a record that is needed for longer than gatherMost.
	lasting = 3 * gatherMost
)

// forecast knows for how long records were needed lately, from one of them at a time.
type forecast struct {
	id   core.Identity // of a message in custody, or
	key  string        // of another record; nothing when the next one is to be taken
	at   time.Time
	need time.Duration // average, of which each sample is an eighth
}

// put notes a new record: a message in custody, or one with a key.
func (f *forecast) put(id core.Identity, key string) {
	if f.nothing() {
		f.id, f.key, f.at = id, key, time.Now()
	}
}

func (f *forecast) nothing() bool { return f.key == "" && f.id == core.Identity{} }

// gone notes that a record is no longer needed.
func (f *forecast) gone(id core.Identity, key string) {
	if id == f.id && key == f.key && !f.nothing() {
		f.sample(min(time.Since(f.at), lasting))
	}
}

// look notes how things are.
func (f *forecast) look(now time.Time) {
	if !f.nothing() && now.Sub(f.at) > gatherMost {
		f.sample(lasting)
	}
}

func (f *forecast) sample(need time.Duration) {
	f.need += (need - f.need) / 8
	f.id, f.key = core.Identity{}, ""
}

// gather waits until the group is to be written.
func (d *DB) gather() {
	began := time.Now()
	for wait := gatherShort; ; wait = gatherStep {
		time.Sleep(wait)
		now := time.Now()
		d.mu.Lock()
		d.forecast.look(now)
		over := d.forecast.need > briefly || d.group.urgent || d.group.empty() || d.group.full()
		d.mu.Unlock()
		if over || now.Sub(began) >= gatherMost {
			return
		}
		select {
		case <-d.closing:
			return
		default:
		}
	}
}
