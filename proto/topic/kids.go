package topic

import (
	"hash/maphash"
	"sync/atomic"
)

// kids are the children of a node of a tree, by level. It is a hash table whose readers take no lock: buckets
// are chains of links that never change once they can be seen, and the whole table is replaced when it grows
// or shrinks. Writers are serialised by the tree.
type kids[N any] struct {
	table atomic.Pointer[[]atomic.Pointer[link[N]]]
	n     int // of links; for writers
}

type link[N any] struct {
	level string
	node  *N
	next  *link[N]
}

// Tables double when chains are perLink long on average, and halve when they are mostly empty.
const perLink = 3

var seed = maphash.MakeSeed()

func bucketOf(level string, buckets int) int {
	if buckets == 1 {
		return 0
	}
	return int(maphash.String(seed, level) & uint64(buckets-1)) //nolint:gosec // one at least
}

func (k *kids[N]) get(level string) *N {
	t := k.table.Load()
	if t == nil {
		return nil
	}
	for l := (*t)[bucketOf(level, len(*t))].Load(); l != nil; l = l.next {
		if l.level == level {
			return l.node
		}
	}
	return nil
}

// each visits all children until visit says no. Children that come or go meanwhile may be seen or not.
func (k *kids[N]) each(visit func(level string, n *N) bool) bool {
	t := k.table.Load()
	if t == nil {
		return true
	}
	for i := range *t {
		for l := (*t)[i].Load(); l != nil; l = l.next {
			if !visit(l.level, l.node) {
				return false
			}
		}
	}
	return true
}

// add puts in a child whose level is not there yet.
func (k *kids[N]) add(level string, n *N) {
	t := k.table.Load()
	switch {
	case t == nil:
		k.resize(1)
	case k.n >= len(*t)*perLink:
		k.resize(2 * len(*t))
	}
	t = k.table.Load()
	b := &(*t)[bucketOf(level, len(*t))]
	b.Store(&link[N]{level: level, node: n, next: b.Load()})
	k.n++
}

// remove takes out a child that is there.
func (k *kids[N]) remove(level string) {
	t := k.table.Load()
	b := &(*t)[bucketOf(level, len(*t))]
	var kept *link[N]
	for l := b.Load(); l != nil; l = l.next {
		if l.level != level {
			kept = &link[N]{level: l.level, node: l.node, next: kept}
		}
	}
	b.Store(kept)
	k.n--
	switch {
	case k.n == 0:
		k.table.Store(nil)
	case len(*t) > 1 && k.n*4 < len(*t):
		k.resize(len(*t) / 2)
	}
}

func (k *kids[N]) resize(buckets int) {
	next := make([]atomic.Pointer[link[N]], buckets)
	k.each(func(level string, n *N) bool {
		b := &next[bucketOf(level, buckets)]
		b.Store(&link[N]{level: level, node: n, next: b.Load()})
		return true
	})
	k.table.Store(&next)
}
