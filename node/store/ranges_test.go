package store

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRemoveRows: of many keys those are gone that are named, whatever is around them.
func TestRemoveRows(t *testing.T) {
	pb, err := pebble.Open("db", &pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer pb.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 12 {
		want := map[string]bool{}
		for _, n := range []uint64{0, 300, 5000, math.MaxUint64 - 400, math.MaxUint64} {
			for i := range uint64(800) {
				if n+i >= n { // no further than there are numbers
					want[messageKey(n+i)], want[entryKey(7, n+i)], want[entryKey(8, n+i)] = true, true, true
				}
			}
		}
		want[string(kindMessage)], want["q1"], want["n"] = true, true, true
		put := pb.NewBatch()
		for key := range want {
			_ = put.Set([]byte(key), []byte{1}, nil)
		}
		if err := pb.Apply(put, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		keep := 2 << r.IntN(12) // one in so many is kept
		var keys []string
		for key := range want {
			if inRow(key) && r.IntN(keep) > 0 {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			delete(want, key)
		}
		b := pb.NewBatch()
		size := removeRows(b, keys)
		if err := pb.Apply(b, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if round == 11 && size == 0 && len(keys) > 0 {
			t.Error("nothing is written for what is removed")
		}
		got := map[string]bool{}
		d := &DB{pb: pb}
		if err := d.iterate(&pebble.IterOptions{}, func(key, _ []byte) bool { got[string(key)] = true; return true }); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("round %d, one in %d is kept: %d keys are there, want %d", round, keep, len(got), len(want))
		}
	}
}

// TestRemoveRowsIsShort: a long row takes no more than its ends.
func TestRemoveRowsIsShort(t *testing.T) {
	b := new(pebble.Batch)
	var keys []string
	for i := range uint64(10_000) {
		keys = append(keys, entryKey(1, i))
	}
	if size := removeRows(b, keys); size != 2*17 || b.Count() != 1 {
		t.Errorf("%d bytes, %d writes for 10,000 keys in a row", size, b.Count())
	}
}

// TestSalvageRange: what a table says of a range that was removed counts for what is in other tables, unless that was written later.
func TestSalvageRange(t *testing.T) {
	fs := vfs.NewMem()
	pb, err := pebble.Open("db", &pebble.Options{FS: fs, DisableAutomaticCompactions: true})
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "%c%03d", kindLocal, i) }
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		do(pb.Set(key(i), []byte{1}, pebble.NoSync))
	}
	do(pb.Flush(), pb.DeleteRange(key(10), key(90), pebble.NoSync), pb.Set(key(50), []byte{2}, pebble.NoSync), pb.Flush(), pb.Close())
	names, err := fs.List("db")
	do(err)
	for _, name := range names {
		if strings.HasSuffix(name, ".log") { // which would know as well
			do(fs.Remove("db/" + name))
		}
	}
	d, err := open("new", Options{FS: fs, Log: slog.New(slog.DiscardHandler)}, "db")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n := 0
	do(d.each([]byte{kindLocal}, func(rest, value []byte) bool {
		n++
		i, err := strconv.Atoi(string(rest))
		if err != nil || i >= 10 && i < 90 && i != 50 || (i == 50) != (value[0] == 2) {
			t.Errorf("%s is there, as %d", rest, value)
		}
		return true
	}))
	if n != 21 {
		t.Errorf("%d records are there, want 21", n)
	}
}

// TestRemovals holds what is known of ranges against looking at each.
func TestRemovals(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	key := func() []byte { return fmt.Appendf(nil, "%02d", r.IntN(60)) }
	for range 200 {
		var rs removals
		n := r.IntN(12)
		for range n {
			rs.add(key(), key(), r.Uint64N(20)+1)
		}
		ranges := slices.Clone(rs.all)
		rs.sort()
		for range 100 {
			k, want := key(), uint64(0)
			for _, one := range ranges {
				if one.start <= string(k) && string(k) < one.end {
					want = max(want, one.number)
				}
			}
			if got := rs.of(k); got != want {
				t.Fatalf("%s: %d, want %d, of %+v", k, got, want, ranges)
			}
		}
	}
}
