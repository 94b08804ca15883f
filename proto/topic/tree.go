package topic

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Tree maps filters to values: any number of values for each filter, each under a key of its own. Match finds
// the values of all filters that match a topic.
//
// The zero Tree is empty and ready. All methods are safe for concurrent use; writers take a lock, readers
// take none and see each change whole once its writer has returned. Filters must be valid.
type Tree[K comparable, V any] struct {
	root    node[K, V]
	version atomic.Uint64
	length  atomic.Int64

	mu sync.Mutex // held by writers, and by the first reader of a filter whose values changed
}

// node is a prefix of filters.
type node[K comparable, V any] struct {
	kids  kids[node[K, V]]             // by literal level
	plus  atomic.Pointer[node[K, V]]   // the level +
	here  atomic.Pointer[values[K, V]] // of the filter that ends here
	below atomic.Pointer[values[K, V]] // of the filter that ends in # below here
}

func (n *node[K, V]) empty() bool {
	return n.kids.table.Load() == nil && n.plus.Load() == nil && n.here.Load() == nil && n.below.Load() == nil
}

// values are what is kept for one filter.
type values[K comparable, V any] struct {
	filter string
	seen   atomic.Pointer[[]entry[K, V]] // what readers read; nil when it must be renewed from list

	// for writers
	list   []entry[K, V]
	index  map[K]int // position in list, once the list is long
	shared bool      // readers may be reading the array of list
}

type entry[K comparable, V any] struct {
	key K
	val V
}

// indexFrom is the number of values of one filter from which they are found by map.
const indexFrom = 16

func (vs *values[K, V]) find(key K) int {
	if vs.index != nil {
		if i, ok := vs.index[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(vs.list, func(e entry[K, V]) bool { return e.key == key })
}

// own makes sure that no reader looks at list, so that it can be changed in place.
func (vs *values[K, V]) own() {
	if vs.shared {
		vs.list = slices.Clone(vs.list)
		vs.shared = false
	}
	vs.seen.Store(nil)
}

func (vs *values[K, V]) set(key K, v V) (old V, had bool) {
	if i := vs.find(key); i >= 0 {
		vs.own()
		old, vs.list[i].val = vs.list[i].val, v
		return old, true
	}
	// Readers never look beyond the length that they know, so appending disturbs nobody.
	vs.list = append(vs.list, entry[K, V]{key, v})
	vs.seen.Store(nil)
	switch {
	case vs.index != nil:
		vs.index[key] = len(vs.list) - 1
	case len(vs.list) >= indexFrom:
		vs.index = make(map[K]int, 2*indexFrom)
		for i := range vs.list {
			vs.index[vs.list[i].key] = i
		}
	}
	return old, false
}

func (vs *values[K, V]) remove(key K) (old V, had bool) {
	i := vs.find(key)
	if i < 0 {
		return old, false
	}
	vs.own()
	last := len(vs.list) - 1
	old = vs.list[i].val
	vs.list[i] = vs.list[last]
	vs.list[last] = entry[K, V]{}
	vs.list = vs.list[:last]
	if vs.index != nil {
		delete(vs.index, key)
		if i < last {
			vs.index[vs.list[i].key] = i
		}
	}
	return old, true
}

// entries returns the values for reading.
func (t *Tree[K, V]) entries(vs *values[K, V]) []entry[K, V] {
	if s := vs.seen.Load(); s != nil {
		return *s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := vs.seen.Load(); s != nil {
		return *s
	}
	s := vs.list
	vs.shared = true
	vs.seen.Store(&s)
	return s
}

// Set puts v under filter and key, in the place of what was there. The tree keeps the string filter.
func (t *Tree[K, V]) Set(filter string, key K, v V) (old V, had bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, rest := &t.root, filter
	place := &n.here
	for more := true; more; {
		var level string
		level, rest, more = cut(rest)
		switch level {
		case "#":
			place = &n.below
			more = false
			continue
		case "+":
			if n.plus.Load() == nil {
				n.plus.Store(new(node[K, V]))
			}
			n = n.plus.Load()
		default:
			kid := n.kids.get(level)
			if kid == nil {
				kid = new(node[K, V])
				n.kids.add(strings.Clone(level), kid)
			}
			n = kid
		}
		place = &n.here
	}
	vs := place.Load()
	if vs == nil {
		vs = &values[K, V]{filter: filter}
		old, had = vs.set(key, v)
		place.Store(vs)
	} else {
		old, had = vs.set(key, v)
	}
	if !had {
		t.length.Add(1)
	}
	t.version.Add(1)
	return old, had
}

// Delete takes out what is under filter and key.
func (t *Tree[K, V]) Delete(filter string, key K) (old V, had bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, had = t.deleteLocked(filter, key)
	if had {
		t.length.Add(-1)
		t.version.Add(1)
	}
	return old, had
}

func (t *Tree[K, V]) deleteLocked(filter string, key K) (old V, had bool) {
	type step struct {
		parent *node[K, V]
		level  string
	}
	var path []step
	n, rest := &t.root, filter
	place := &n.here
	for more := true; more && n != nil; {
		var level string
		level, rest, more = cut(rest)
		if level == "#" {
			place = &n.below
			break
		}
		path = append(path, step{n, level})
		if level == "+" {
			n = n.plus.Load()
		} else {
			n = n.kids.get(level)
		}
		if n != nil {
			place = &n.here
		}
	}
	if n == nil {
		return old, false
	}
	vs := place.Load()
	if vs == nil {
		return old, false
	}
	if old, had = vs.remove(key); !had || len(vs.list) > 0 {
		return old, had
	}
	place.Store(nil)
	for i := len(path) - 1; i >= 0 && n.empty(); i-- { // prune
		n = path[i].parent
		if path[i].level == "+" {
			n.plus.Store(nil)
		} else {
			n.kids.remove(path[i].level)
		}
	}
	return old, true
}

// at returns the values of a filter, or nil.
func (t *Tree[K, V]) at(filter string) *values[K, V] {
	n, rest := &t.root, filter
	for more := true; more; {
		var level string
		level, rest, more = cut(rest)
		switch level {
		case "#":
			return n.below.Load()
		case "+":
			n = n.plus.Load()
		default:
			n = n.kids.get(level)
		}
		if n == nil {
			return nil
		}
	}
	return n.here.Load()
}

// Get returns what is under filter and key.
func (t *Tree[K, V]) Get(filter string, key K) (v V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if vs := t.at(filter); vs != nil {
		if i := vs.find(key); i >= 0 {
			return vs.list[i].val, true
		}
	}
	return v, false
}

// Each visits what is under one filter, which is taken literally.
func (t *Tree[K, V]) Each(filter string, visit func(key K, v V)) {
	vs := t.at(filter)
	if vs == nil {
		return
	}
	for _, e := range t.entries(vs) {
		visit(e.key, e.val)
	}
}

// Len returns the number of values.
func (t *Tree[K, V]) Len() int { return int(t.length.Load()) }

// Version rises with every change. What Match found after Version returned v holds for as long as Version
// returns v.
func (t *Tree[K, V]) Version() uint64 { return t.version.Load() }

// Match visits the values of all filters that match a valid topic name, in no particular order. visit may
// use the tree. It allocates nothing of its own.
func (t *Tree[K, V]) Match(topic string, visit func(filter string, key K, v V)) {
	level, rest, more := cut(topic)
	if kid := t.root.kids.get(level); kid != nil {
		t.match(kid, rest, more, visit)
	}
	if topic != "" && topic[0] == '$' { // [MQTT-4.7.2-1]
		return
	}
	if plus := t.root.plus.Load(); plus != nil {
		t.match(plus, rest, more, visit)
	}
	t.visit(t.root.below.Load(), visit)
}

// match visits what matches below n, which stands for the levels of the topic before rest.
func (t *Tree[K, V]) match(n *node[K, V], rest string, more bool, visit func(string, K, V)) {
	for {
		t.visit(n.below.Load(), visit) // # stands for the parent level too
		if !more {
			t.visit(n.here.Load(), visit)
			return
		}
		var level string
		level, rest, more = cut(rest)
		kid, plus := n.kids.get(level), n.plus.Load()
		switch {
		case kid == nil && plus == nil:
			return
		case kid == nil:
			n = plus
		case plus == nil:
			n = kid
		default:
			t.match(plus, rest, more, visit)
			n = kid
		}
	}
}

func (t *Tree[K, V]) visit(vs *values[K, V], visit func(string, K, V)) {
	if vs == nil {
		return
	}
	for _, e := range t.entries(vs) {
		visit(vs.filter, e.key, e.val)
	}
}

// All visits everything, in no particular order, until visit says no.
func (t *Tree[K, V]) All(visit func(filter string, key K, v V) bool) {
	t.all(&t.root, visit)
}

func (t *Tree[K, V]) all(n *node[K, V], visit func(string, K, V) bool) bool {
	for _, vs := range []*values[K, V]{n.here.Load(), n.below.Load()} {
		if vs == nil {
			continue
		}
		for _, e := range t.entries(vs) {
			if !visit(vs.filter, e.key, e.val) {
				return false
			}
		}
	}
	if plus := n.plus.Load(); plus != nil && !t.all(plus, visit) {
		return false
	}
	return n.kids.each(func(_ string, kid *node[K, V]) bool { return t.all(kid, visit) })
}
