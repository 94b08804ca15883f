package mqttfront

import (
	"math/rand/v2"
	"testing"

	"github.com/mozzie-mqtt/mozzie/proto"
)

// TestWindowOracle compares with a plain map, around the turn of the packet IDs too: none is 0, and none is given out
// while it is in use [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1].
func TestWindowOracle(t *testing.T) {
	for block := range byte(idBlocks + 1) {
		w := window{block: block}
		first, n := w.ids()
		w.first = uint16(first + n - 500) //nolint:gosec // at most 65535
		checkWindow(t, &w)
	}
}

func checkWindow(t *testing.T, w *window) {
	r := rand.New(rand.NewPCG(1, 1))
	msg := &proto.Message{}
	model := map[uint16]uint64{}
	var order []uint16
	for pos := uint64(1); pos <= 200000; pos++ {
		id := w.next()
		if id == 0 || w.block != 0 && (int(id)-1)/4095 != int(w.block)-1 {
			t.Fatalf("block %d: ID %d", w.block, id)
		}
		if _, ok := model[id]; ok {
			t.Fatalf("ID %d is in use", id)
		}
		w.push(Entry{Msg: msg, Pos: pos})
		model[id] = pos
		order = append(order, id)
		for len(order) > 0 && (len(order) > 50 || r.IntN(2) == 0) {
			i := 0
			if r.IntN(4) == 0 {
				i = r.IntN(len(order))
			}
			id := order[i]
			order = append(order[:i], order[i+1:]...)
			e := w.find(id)
			if e == nil || e.Pos != model[id] {
				t.Fatalf("ID %d: %v, want position %d", id, e, model[id])
			}
			w.remove(e)
			delete(model, id)
			if w.find(id) != nil {
				t.Fatalf("ID %d is still there", id)
			}
		}
		if w.live != len(model) {
			t.Fatalf("%d live, want %d", w.live, len(model))
		}
	}
}

func TestWindowFull(t *testing.T) {
	var w window
	msg := &proto.Message{}
	for range maxPacketIDs {
		if w.next() == 0 {
			t.Fatal("full too early")
		}
		w.push(Entry{Msg: msg})
	}
	if id := w.next(); id != 0 {
		t.Fatalf("ID %d beyond all", id)
	}
	w.remove(w.find(2))
	if id := w.next(); id != 0 {
		t.Fatalf("ID %d while 1 is in use", id)
	}
	if n := w.remove(w.find(1)); n != 2 {
		t.Errorf("%d places went, want 2", n)
	}
	if id := w.next(); id != 1 {
		t.Errorf("next is %d, want 1", id)
	}
}

// TestBlocks: those of packet IDs are all different, and each follows on another.
func TestBlocks(t *testing.T) {
	seen := map[uint16]bool{}
	block := byte(0)
	for range idBlocks {
		block = nextBlock(block)
		w := window{block: block}
		for id := w.next(); id != 0; id = w.next() {
			if seen[id] {
				t.Fatalf("ID %d is in two blocks", id)
			}
			seen[id] = true
			w.push(Entry{})
		}
	}
	if nextBlock(block) != 1 || len(seen) != idBlocks*4095 {
		t.Errorf("%d blocks, %d IDs, and then %d", block, len(seen), nextBlock(block))
	}
	for n, want := range map[uint32]byte{0: 0, 1: 1, 16: 16, 17: 0, 256: 0, 257: 0} {
		if got := BlockOf(n); got != want {
			t.Errorf("block %d is %d, want %d", n, got, want)
		}
	}
}

func TestFIFO(t *testing.T) {
	var q fifo
	next, want := uint64(0), uint64(0)
	r := rand.New(rand.NewPCG(2, 2))
	for range 100000 {
		if r.IntN(100) < 52 {
			q.push(Entry{Pos: next})
			next++
		} else if q.len() > 0 {
			if q.front().Pos != want {
				t.Fatalf("%d, want %d", q.front().Pos, want)
			}
			q.pop()
			want++
		}
		if q.len() != int(next-want) {
			t.Fatalf("length %d, want %d", q.len(), next-want)
		}
	}
}
