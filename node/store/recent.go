package store

import (
	"cmp"
	"slices"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// recents are what has happened to a queue and may not be in Pebble yet. There is no more of it than records in the two groups
// that there are at a time: the one that is gathered, and the one that goes into Pebble.
type recents struct {
	runs []*run
	gone []gone // in the order of their groups
}

// run has new entries of one group, by rising position. A queue's positions rise, but for those of a session that comes from
// another node, so that a group has one run or two.
type run struct {
	group   uint64
	entries []mqttfront.Entry // those without Msg are removed
	head    int               // all before it are
	holes   int               // how many behind it are
}

// gone is an entry that was in Pebble, or in the group on its way there, when it was removed in a later one.
type gone struct{ pos, group uint64 }

// fewHoles is how many removed entries a run may have before it is made smaller.
const fewHoles = 32

func byPosition(e mqttfront.Entry, pos uint64) int { return cmp.Compare(e.Pos, pos) }

// add adds an entry of the latest group.
func (rs *recents) add(e *mqttfront.Entry, group uint64) {
	for i := len(rs.runs) - 1; i >= 0 && rs.runs[i].group == group; i-- {
		r := rs.runs[i]
		if n := len(r.entries); n == 0 || r.entries[n-1].Pos < e.Pos {
			r.entries = append(r.entries, *e)
			return
		}
	}
	rs.runs = append(rs.runs, &run{group: group, entries: []mqttfront.Entry{*e}})
}

// remove forgets an entry, if it is there.
func (rs *recents) remove(pos uint64) {
	for _, r := range rs.runs {
		if i, found := slices.BinarySearchFunc(r.entries[r.head:], pos, byPosition); found {
			r.remove(r.head + i)
			return
		}
	}
}

// remove forgets the entry at an index. What has to be moved for that is less than what was removed since it was done last.
func (r *run) remove(i int) {
	r.entries[i] = mqttfront.Entry{Pos: r.entries[i].Pos}
	r.holes++
	for r.head < len(r.entries) && r.entries[r.head].Msg == nil {
		r.head++
		r.holes--
	}
	if n := r.head + r.holes; n == len(r.entries) || n > fewHoles && n > len(r.entries)/2 {
		r.entries = slices.DeleteFunc(r.entries, func(e mqttfront.Entry) bool { return e.Msg == nil })
		r.head, r.holes = 0, 0
	}
}

// removed notes that an entry goes in the latest group that Pebble has, or is about to.
func (rs *recents) removed(pos, group uint64) { rs.gone = append(rs.gone, gone{pos, group}) }

// applied forgets what happened in a group that is in Pebble now, and before.
func (rs *recents) applied(group uint64) {
	if rs.runs = slices.DeleteFunc(rs.runs, func(r *run) bool { return r.group <= group }); len(rs.runs) == 0 {
		rs.runs = nil
	}
	n := 0
	for n < len(rs.gone) && rs.gone[n].group <= group {
		n++
	}
	if rs.gone = slices.Delete(rs.gone, 0, n); len(rs.gone) == 0 {
		rs.gone = nil
	}
}

// behind returns the first n entries behind a position, and the positions there that are gone whatever Pebble has.
func (rs *recents) behind(after uint64, n int) (es []mqttfront.Entry, goneAt map[uint64]struct{}) {
	for _, r := range rs.runs {
		i, _ := slices.BinarySearchFunc(r.entries, after+1, byPosition)
		for had := len(es); i < len(r.entries) && len(es) < had+n; i++ {
			if r.entries[i].Msg != nil {
				es = append(es, r.entries[i])
			}
		}
	}
	slices.SortFunc(es, func(a, b mqttfront.Entry) int { return cmp.Compare(a.Pos, b.Pos) })
	for _, g := range rs.gone {
		if g.pos <= after {
			continue
		}
		if goneAt == nil {
			goneAt = map[uint64]struct{}{}
		}
		goneAt[g.pos] = struct{}{}
	}
	return es[:min(n, len(es))], goneAt
}
