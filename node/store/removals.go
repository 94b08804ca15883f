package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2/sstable"
)

// removal is a range of keys that was removed by a write of some number.
type removal struct {
	start, end string // the end is behind it
	number     uint64
}

// removals knows the latest removal of each key. Those of a queue hardly overlap: they are what was taken from it, part by part.
type removals struct {
	all    []removal
	at     []string // where the latest changes, in order
	latest []uint64 // from there up to the next
}

func (rs *removals) add(start, end []byte, number uint64) {
	if string(start) < string(end) {
		rs.all = append(rs.all, removal{string(start), string(end), number})
	}
}

// sort makes ready for of, when all are there.
func (rs *removals) sort() {
	for _, r := range rs.all {
		rs.at = append(rs.at, r.start, r.end)
	}
	slices.Sort(rs.at)
	rs.at = slices.Compact(rs.at)
	rs.latest = make([]uint64, len(rs.at))
	slices.SortFunc(rs.all, func(a, b removal) int { return cmp.Compare(a.number, b.number) })
	for _, r := range rs.all {
		for i, _ := slices.BinarySearch(rs.at, r.start); rs.at[i] < r.end; i++ {
			rs.latest[i] = r.number
		}
	}
	rs.all = nil
}

// of returns the number of the latest removal of a key; 0: there is none.
func (rs *removals) of(key []byte) uint64 {
	i, found := slices.BinarySearch(rs.at, string(key))
	switch {
	case found:
		return rs.latest[i]
	case i == 0:
		return 0
	}
	return rs.latest[i-1]
}

// readFrom reads the removals in a table.
func (rs *removals) readFrom(r *sstable.Reader) error {
	it, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || it == nil {
		return err
	}
	defer it.Close()
	span, err := it.First()
	for ; span != nil && err == nil; span, err = it.Next() {
		for _, k := range span.Keys {
			rs.add(span.Start, span.End, uint64(k.SeqNum()))
		}
	}
	return err
}
