package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Retained tests a kind of core.Retained. open returns an empty one, and reopen what a later start of the
// program finds: for one in memory the same.
func Retained(t *testing.T, open func(t *testing.T) core.Retained, reopen func(t *testing.T, r core.Retained) core.Retained) {
	for _, c := range []struct {
		name string
		run  func(h *retained)
	}{
		{"empty", retainedEmpty}, {"every field", retainedFields}, {"the newer one stays", retainedNewer}, {"tombstones", retainedTombstones},
		{"locations", retainedLocations}, {"delete and drop", retainedDelete}, {"match", retainedMatch}, {"match ends early", retainedEarly},
		{"against a map", retainedRandom}, {"readers beside", retainedReaders},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(&retained{T: t, r: open(t), reopen: reopen})
		})
	}
}

// retained is one store under test, with what it should hold.
type retained struct {
	*testing.T
	r      core.Retained
	reopen func(t *testing.T, r core.Retained) core.Retained
	want   map[key]*core.Kept
}

type key struct {
	at    dht.Location
	topic string
}

var (
	one = dht.Locate("one", 1)
	two = dht.Locate("two", 1)
)

func (h *retained) again() {
	h.Helper()
	h.r = h.reopen(h.T, h.r)
}

// set keeps k, and notes that it should be there, where it should.
func (h *retained) set(at dht.Location, k *core.Kept, want bool) {
	h.Helper()
	if got := h.r.Set(at, k); got != want {
		h.Errorf("Set of %q with stamp %d: %v, want %v", k.Message.Topic, k.Stamp, got, want)
	}
	if want {
		if h.want == nil {
			h.want = map[key]*core.Kept{}
		}
		h.want[key{at, k.Message.Topic}] = k
	}
}

// check compares all there is.
func (h *retained) check() {
	h.Helper()
	total, size, tombs, tombSize := 0, 0, 0, 0
	at := map[dht.Location]int{one: 0, two: 0}
	for k, want := range h.want {
		at[k.at]++
		if !want.Cleared {
			total++
			size += want.Message.Size()
		} else {
			tombs++
			tombSize += want.Message.Size()
		}
		got := h.r.Get(k.at, k.topic)
		if got == nil {
			h.Errorf("nothing is kept for %q", k.topic)
			continue
		}
		if err := sameKept(got, want); err != nil {
			h.Errorf("%q: %v", k.topic, err)
		}
	}
	for l, n := range at {
		if got := h.r.Len(l); got != n {
			h.Errorf("%d topics at %v, want %d", got, l, n)
		}
	}
	if got := h.r.Total(); got != total {
		h.Errorf("%d retained messages, want %d", got, total)
	}
	if got := h.r.Bytes(); got != size {
		h.Errorf("%d bytes, want %d", got, size)
	}
	if n, bytes := h.r.Tombstones(); n != tombs || bytes != tombSize {
		h.Errorf("%d tombstones, %d bytes, want %d, %d", n, bytes, tombs, tombSize)
	}
}

func sameKept(got, want *core.Kept) error {
	if got.Stamp != want.Stamp || got.ID != want.ID || got.Cleared != want.Cleared {
		return fmt.Errorf("stamp %d, %v, cleared %v, want %d, %v, %v", got.Stamp, got.ID, got.Cleared, want.Stamp, want.ID, want.Cleared)
	}
	return sameMessage(got.Message, want.Message)
}

func kept(name string, stamp uint64, payload string) *core.Kept {
	return &core.Kept{Message: &proto.Message{Topic: name, Payload: []byte(payload), Retain: true}, Stamp: stamp,
		ID: core.Identity{Epoch: 1, Seq: stamp}}
}

func tombstone(name string, stamp uint64) *core.Kept {
	return &core.Kept{Message: &proto.Message{Topic: name, Retain: true}, Stamp: stamp,
		ID: core.Identity{Epoch: 1, Seq: stamp}, Cleared: true}
}

func retainedEmpty(h *retained) {
	if k := h.r.Get(one, "a"); k != nil {
		h.Errorf("an empty store has %+v", k)
	}
	h.r.Match(one, "#", func(k *core.Kept) bool {
		h.Errorf("an empty store has %+v", k)
		return true
	})
	h.r.Delete(one, "a")
	h.r.Drop(one)
	h.check()
	h.again()
	h.check()
}

func retainedFields(h *retained) {
	h.set(one, &core.Kept{Message: &proto.Message{Topic: "a/b", Payload: []byte("on"), Properties: []byte{1, 1}, QoS: 2, Retain: true,
		Expires: time.Now().Add(time.Hour)}, Stamp: 1<<64 - 1, ID: core.Identity{Epoch: 1<<64 - 1, Seq: 1 << 63}}, true)
	h.set(one, &core.Kept{Message: &proto.Message{Topic: "t", Retain: true}, Stamp: 1}, true) // empty, and yet no tombstone
	h.set(one, &core.Kept{Message: &proto.Message{Topic: "over", Payload: []byte("x"), Expires: time.Unix(1, 0)}, Stamp: 1}, true)
	h.set(two, tombstone("//", 5), true)
	h.set(two, kept("large", 5, string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))), true)
	h.check()
	h.again()
	h.check()
}

// retainedNewer: stamps decide, then identities; what is equal is not newer.
func retainedNewer(h *retained) {
	at := func(stamp, epoch, seq uint64) *core.Kept {
		k := kept("a", stamp, fmt.Sprint(stamp, epoch, seq))
		k.ID = core.Identity{Epoch: epoch, Seq: seq}
		return k
	}
	h.set(one, at(10, 5, 5), true)
	h.set(one, at(10, 5, 5), false)
	h.set(one, at(9, 9, 9), false)
	h.check()
	h.set(one, at(10, 5, 6), true)
	h.set(one, at(10, 4, 9), false)
	h.set(one, at(10, 6, 1), true)
	h.set(one, at(11, 1, 1), true)
	h.set(one, at(1<<63, 1, 1), true) // stamps have no sign
	h.set(one, at(12, 9, 9), false)
	h.check()
	h.again()
	h.set(one, at(1<<63, 1, 1), false)
	h.check()
}

// retainedTombstones: a cleared message stays as a tombstone, which keeps older ones out and counts in Len
// alone.
func retainedTombstones(h *retained) {
	h.set(one, kept("a", 5, "on"), true)
	h.set(one, kept("b", 5, "on"), true)
	h.set(one, tombstone("a", 6), true)
	h.set(one, kept("a", 4, "late"), false)
	h.set(one, tombstone("c", 6), true) // of what was never here
	h.check()
	found := map[string]bool{}
	h.r.Match(one, "#", func(k *core.Kept) bool {
		found[k.Message.Topic] = k.Cleared
		return true
	})
	if want := map[string]bool{"a": true, "b": false, "c": true}; !maps.Equal(found, want) {
		h.Errorf("matched %v, want %v", found, want)
	}
	h.again()
	h.check()
	h.set(one, kept("a", 7, "on again"), true)
	h.set(one, tombstone("b", 3), false)
	h.check()
}

func retainedLocations(h *retained) {
	h.set(one, kept("a", 5, "at one"), true)
	h.set(two, kept("a", 3, "at two"), true)
	h.check()
	h.set(two, tombstone("a", 4), true)
	h.check()
	if h.r.Get(dht.Locate("three", 1), "a") != nil || h.r.Len(dht.Locate("three", 1)) != 0 {
		h.Error("a location that nothing was kept at has something")
	}
	h.again()
	h.check()
}

func retainedDelete(h *retained) {
	for i := range 20 {
		h.set(one, kept(fmt.Sprint("a/", i), 1, "x"), true)
		h.set(two, kept(fmt.Sprint("a/", i), 1, "xx"), true)
	}
	h.set(one, tombstone("a", 1), true)
	forget := func(at dht.Location, name string) {
		h.r.Delete(at, name)
		delete(h.want, key{at, name})
	}
	forget(one, "a/7")
	forget(one, "a/7")
	forget(one, "a")
	forget(two, "never")
	h.check()
	h.set(one, kept("a/7", 1, "what was forgotten has no stamp to beat"), true)
	h.check()
	h.r.Drop(two)
	h.r.Drop(two)
	maps.DeleteFunc(h.want, func(k key, _ *core.Kept) bool { return k.at == two })
	h.check()
	h.again()
	h.check()
	h.set(two, kept("a/1", 1, "back"), true)
	h.check()
}

// names are topics that filters may mistake for one another.
var names = []string{"a", "a/", "/a", "/", "//", "a/b", "a/b/c", "a//b", "b", "ab", "a/b/", "$x", "$x/a", "$x/b", "ä/b", "c/d/e/f"}

// retainedMatch holds Match against topic.Match. "#" matches everything here, topics that begin with $ too.
func retainedMatch(h *retained) {
	for i, n := range names {
		if i%4 == 3 {
			h.set(one, tombstone(n, 1), true)
		} else {
			h.set(one, kept(n, 1, n), true)
		}
		h.set(two, kept(n+"/elsewhere", 1, n), true)
	}
	for _, filter := range []string{"#", "+", "+/+", "+/#", "a", "a/#", "a/+", "a/b", "a/+/c", "/", "/#", "/+", "//", "+//b", "a/b/#",
		"$x", "$x/#", "$x/+", "none", "none/#", "ä/+", "c/+/e/#", "a/b/c/d"} {
		var want, got []string
		for _, n := range names {
			if filter == "#" || topic.Match(filter, n) {
				want = append(want, n)
			}
		}
		h.r.Match(one, filter, func(k *core.Kept) bool {
			got = append(got, k.Message.Topic)
			if err := sameKept(k, h.want[key{one, k.Message.Topic}]); err != nil {
				h.Errorf("filter %q: %q: %v", filter, k.Message.Topic, err)
			}
			return true
		})
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			h.Errorf("filter %q matches %q, want %q", filter, got, want)
		}
	}
}

func retainedEarly(h *retained) {
	for i := range 10 {
		h.set(one, kept(fmt.Sprint("a/", i), 1, "x"), true)
	}
	for _, filter := range []string{"#", "a/+", "a/#"} {
		for stop := 1; stop <= 10; stop++ {
			n := 0
			h.r.Match(one, filter, func(*core.Kept) bool { n++; return n < stop })
			if n != stop {
				h.Errorf("filter %q: visited %d, was to end after %d", filter, n, stop)
			}
		}
	}
}

// retainedRandom compares with a map.
func retainedRandom(h *retained) {
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same every time
	h.want = map[key]*core.Kept{}
	for i := range 3000 {
		at := one
		if r.IntN(3) == 0 {
			at = two
		}
		k := key{at, names[r.IntN(len(names))]}
		switch r.IntN(10) {
		case 0:
			h.r.Delete(at, k.topic)
			delete(h.want, k)
		case 1:
			if r.IntN(20) == 0 {
				h.r.Drop(at)
				maps.DeleteFunc(h.want, func(o key, _ *core.Kept) bool { return o.at == at })
			}
		default:
			v := kept(k.topic, r.Uint64N(200)+1, fmt.Sprint(i))
			if v.ID.Seq = r.Uint64N(3); r.IntN(3) == 0 {
				v.Cleared, v.Message = true, &proto.Message{Topic: k.topic, Retain: true}
			}
			old := h.want[k]
			h.set(at, v, old == nil || v.Newer(old))
		}
		if i%600 == 599 {
			h.check()
			h.again()
			h.check()
		}
	}
}

func retainedReaders(h *retained) {
	beside(func() {
		for i := range uint64(300) {
			h.r.Set(one, kept("a", 2*i+1, "x"))
			h.r.Set(one, tombstone("a", 2*i+2))
		}
		h.r.Drop(one)
	}, func() {
		if n := h.r.Total(); n < 0 || n > 1 {
			h.Errorf("%d retained messages", n)
		}
		if n := h.r.Len(one); n < 0 || n > 1 {
			h.Errorf("%d topics", n)
		}
		_ = h.r.Bytes()
	})
	h.check()
}
