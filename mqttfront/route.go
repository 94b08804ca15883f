package mqttfront

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// slots is a cache of topics: the name as a string that is made once, what kind of topic it is, and who is
// subscribed. Topics fall out when others need their place; nothing depends on their staying.
type slots [slotCount]atomic.Pointer[slot]

// slotCount and maxSlotTopic, in bytes, bound the cache: 2 MiB of names. Longer names are looked at anew for every message.
const slotCount, maxSlotTopic = 8192, 256

var slotSeed = maphash.MakeSeed()

// slot is a valid topic name.
type slot struct {
	topic   string
	kind    slotKind
	matched atomic.Pointer[matched]
}

// slotKind is what happens to messages of a topic.
type slotKind byte

const (
	kindSwarm  slotKind = iota // any ordinary topic
	kindLocal                  // $local/...: this node's clients only
	kindSilent                 // other $ topics: nobody gets what clients publish
	kindUsers                  // names a user: refused
)

// matched is who is subscribed to a topic outside of shared groups and may receive it, as of a version of the routes.
type matched struct {
	version uint64
	targets []target
	denied  uint64 // sessions that may not
	moving  bool   // another node may have some of one of the sessions
	kept    bool   // one of the sessions outlives its connection
}

// target is a session that gets a topic, by one or several subscriptions.
type target struct {
	s       *session
	ids     []uint32        // all their identifiers
	subs    []*subscription // all of them, where one has No Local and there are several
	qos     byte            // the highest
	retain  bool            // some want the retain flag as published
	noLocal bool            // some don't want the client's own messages
}

// localPrefix begins the topics that stay on this node.
const localPrefix = "$local/"

func kindOf(name string) slotKind {
	switch {
	case namesUser(name):
		return kindUsers
	case name[0] != '$':
		return kindSwarm
	case strings.HasPrefix(name, localPrefix):
		return kindLocal
	}
	return kindSilent
}

// namesUser reports whether a level begins with @.
func namesUser(s string) bool {
	return s != "" && (s[0] == '@' || strings.Contains(s, "/@"))
}

// slotOf returns the slot of a topic name, or what is wrong with the name.
func (b *Broker) slotOf(name []byte) (*slot, error) {
	at := &b.slots[maphash.Bytes(slotSeed, name)%slotCount]
	if sl := at.Load(); sl != nil && sl.topic == string(name) {
		return sl, nil
	}
	sl := &slot{topic: string(name)}
	if err := topic.ValidName(sl.topic, b.cfg.Topics); err != nil {
		return nil, err
	}
	sl.kind = kindOf(sl.topic)
	sl.keep(at)
	return sl, nil
}

// slotOfString is slotOf for a name that is known to be valid.
func (b *Broker) slotOfString(name string) *slot {
	at := &b.slots[maphash.String(slotSeed, name)%slotCount]
	if sl := at.Load(); sl != nil && sl.topic == name {
		return sl
	}
	sl := &slot{topic: strings.Clone(name), kind: kindOf(name)}
	sl.keep(at)
	return sl
}

// keep puts a slot into its place in the cache.
func (sl *slot) keep(at *atomic.Pointer[slot]) {
	if len(sl.topic) <= maxSlotTopic {
		at.Store(sl)
	}
}

// routesVersion rises with every change of who is to get what. Both that it is made of only rise.
func (b *Broker) routesVersion() uint64 { return b.subs.Version() + b.rightsVersion.Load() }

// targets returns who is to get the topic of a slot now.
func (b *Broker) targets(sl *slot) *matched {
	version := b.routesVersion() // before the match, so that a change meanwhile makes it stale
	if m := sl.matched.Load(); m != nil && m.version == version {
		return m
	}
	m := &matched{version: version, targets: b.match(sl.topic)}
	all := len(m.targets)
	m.targets = slices.DeleteFunc(m.targets, func(t target) bool { return !t.s.mayReceive(sl.topic) })
	m.denied = uint64(all - len(m.targets))
	m.moving = slices.ContainsFunc(m.targets, func(t target) bool { return t.s.moving.Load() })
	m.kept = slices.ContainsFunc(m.targets, func(t target) bool { return t.qos > 0 && t.s.kept.Load() })
	if len(m.targets) <= fewTargets || len(sl.topic) <= maxSlotTopic && b.wide.keep(sl, m) {
		sl.matched.Store(m)
	}
	return m
}

// match joins the subscriptions that match a topic [MQTT-3.3.2-3] to one target for each session, which gets one copy
// [MQTT-3.3.4-5].
func (b *Broker) match(name string) []target {
	var ts []target
	var first string
	var at map[*session]int // once several filters match
	b.subs.Match(name, func(filter string, s *session, sub *subscription) {
		if !s.key.mount().has(name) {
			return
		}
		switch {
		case first == "":
			first = filter
		case first != filter && at == nil:
			at = make(map[*session]int, 2*len(ts))
			for i := range ts {
				at[ts[i].s] = i
			}
		}
		if at != nil {
			if i, ok := at[s]; ok {
				ts[i].join(sub)
				return
			}
			at[s] = len(ts)
		}
		ts = append(ts, target{s: s})
		ts[len(ts)-1].join(sub)
	})
	for i := range ts {
		if !ts[i].noLocal {
			ts[i].subs = nil
		}
	}
	return ts
}

// join adds a subscription [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4].
func (t *target) join(sub *subscription) {
	t.qos = max(t.qos, sub.qos)
	t.retain = t.retain || sub.retainAsPublished
	t.noLocal = t.noLocal || sub.noLocal
	if sub.id > 0 {
		t.ids = append(t.ids, sub.id)
	}
	t.subs = append(t.subs, sub)
}

// own is the target without the subscriptions that have No Local. ok is false where nothing is left.
func (t *target) own() (own target, ok bool) {
	own = target{s: t.s}
	for _, sub := range t.subs {
		if !sub.noLocal {
			own.join(sub)
			ok = true
		}
	}
	return own, ok
}

// forgetStale drops what the cache keeps of sessions that may be gone.
func (b *Broker) forgetStale() {
	version := b.routesVersion()
	for i := range b.slots {
		if sl := b.slots[i].Load(); sl != nil {
			if m := sl.matched.Load(); m != nil && m.version != version {
				b.slots[i].CompareAndSwap(sl, nil)
			}
		}
	}
	b.wide.forgetStale(version)
}
