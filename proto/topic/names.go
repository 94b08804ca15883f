package topic

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Names maps topic names to values, one each. Match finds the values of all topics that match a filter.
//
// The zero Names is empty and ready. All methods are safe for concurrent use; writers take a lock, readers
// none. A reader sees every change that was over before it began, and may see some that were not.
type Names[V any] struct {
	root   name[V]
	length atomic.Int64

	mu sync.Mutex // held by writers
}

// name is a prefix of topic names.
type name[V any] struct {
	kids  kids[name[V]]
	value atomic.Pointer[named[V]]
}

type named[V any] struct {
	topic string
	v     V
}

// Set puts v under topic, in the place of what was there.
func (ns *Names[V]) Set(topic string, v V) (old V, had bool) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	n, rest := &ns.root, topic
	for more := true; more; {
		var level string
		level, rest, more = cut(rest)
		kid := n.kids.get(level)
		if kid == nil {
			kid = new(name[V])
			n.kids.add(strings.Clone(level), kid)
		}
		n = kid
	}
	before := n.value.Swap(&named[V]{strings.Clone(topic), v})
	if before != nil {
		return before.v, true
	}
	ns.length.Add(1)
	return old, false
}

// Delete takes out what is under topic.
func (ns *Names[V]) Delete(topic string) (old V, had bool) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	type step struct {
		parent *name[V]
		level  string
	}
	var path []step
	n, rest := &ns.root, topic
	for more := true; more; {
		var level string
		level, rest, more = cut(rest)
		path = append(path, step{n, level})
		if n = n.kids.get(level); n == nil {
			return old, false
		}
	}
	before := n.value.Swap(nil)
	if before == nil {
		return old, false
	}
	ns.length.Add(-1)
	for i := len(path) - 1; i >= 0 && n.kids.table.Load() == nil && n.value.Load() == nil; i-- { // prune
		n = path[i].parent
		n.kids.remove(path[i].level)
	}
	return before.v, true
}

// Get returns what is under topic.
func (ns *Names[V]) Get(topic string) (v V, ok bool) {
	n, rest := &ns.root, topic
	for more := true; more; {
		var level string
		level, rest, more = cut(rest)
		if n = n.kids.get(level); n == nil {
			return v, false
		}
	}
	if val := n.value.Load(); val != nil {
		return val.v, true
	}
	return v, false
}

// Len returns the number of topics.
func (ns *Names[V]) Len() int { return int(ns.length.Load()) }

// Match visits all topics that match a valid filter, in no particular order, until visit says no.
func (ns *Names[V]) Match(filter string, visit func(topic string, v V) bool) {
	level, rest, more := cut(filter)
	wild := level == "+" || level == "#"
	if !wild {
		if kid := ns.root.kids.get(level); kid != nil {
			kid.match(rest, more, visit)
		}
		return
	}
	ns.root.kids.each(func(first string, kid *name[V]) bool {
		switch {
		case strings.HasPrefix(first, "$"): // [MQTT-4.7.2-1]
			return true
		case level == "#":
			return kid.all(visit)
		}
		return kid.match(rest, more, visit)
	})
}

// match visits what matches rest below n.
func (n *name[V]) match(rest string, more bool, visit func(string, V) bool) bool {
	for more {
		var level string
		level, rest, more = cut(rest)
		switch level {
		case "#":
			return n.all(visit)
		case "+":
			return n.kids.each(func(_ string, kid *name[V]) bool { return kid.match(rest, more, visit) })
		}
		if n = n.kids.get(level); n == nil {
			return true
		}
	}
	if val := n.value.Load(); val != nil {
		return visit(val.topic, val.v)
	}
	return true
}

// All visits everything, in no particular order, until visit says no.
func (ns *Names[V]) All(visit func(topic string, v V) bool) { ns.root.all(visit) }

func (n *name[V]) all(visit func(string, V) bool) bool {
	if val := n.value.Load(); val != nil && !visit(val.topic, val.v) {
		return false
	}
	return n.kids.each(func(_ string, kid *name[V]) bool { return kid.all(visit) })
}
