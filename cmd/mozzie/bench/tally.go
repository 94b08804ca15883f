package bench

import "slices"

// maxGaps bounds the gaps that a tally remembers. In a flow with more, the oldest are lost for good.
const maxGaps = 1 << 16

// tally counts the messages of a flow by their numbers, which begin at 0. While all come in order it is one comparison.
type tally struct {
	next uint64 // one past the highest number that came
	gaps []gap  // numbers below next that did not come, ascending

	Unique     uint64 // messages that came, each counted once
	Duplicates uint64 // messages that had come before
	Late       uint64 // messages that came behind a later one
}

// gap is the numbers from, ..., to-1.
type gap struct{ from, to uint64 }

// add counts a message and reports whether it is new.
func (t *tally) add(number uint64) bool {
	if number == t.next {
		t.next++
		t.Unique++
		return true
	}
	if number > t.next {
		if len(t.gaps) == maxGaps {
			t.gaps = slices.Delete(t.gaps, 0, maxGaps/2) // half, so that not each message moves the rest
		}
		t.gaps = append(t.gaps, gap{t.next, number})
		t.next = number + 1
		t.Unique++
		return true
	}
	if !t.fill(number) {
		t.Duplicates++
		return false
	}
	t.Unique++
	t.Late++
	return true
}

// fill takes a number out of the gap that it is in, if there is one.
func (t *tally) fill(number uint64) bool {
	i, _ := slices.BinarySearchFunc(t.gaps, number, func(g gap, n uint64) int {
		if g.to <= n {
			return -1
		}
		return 1
	})
	if i == len(t.gaps) || number < t.gaps[i].from {
		return false
	}
	g := t.gaps[i]
	switch {
	case g.to == g.from+1:
		t.gaps = slices.Delete(t.gaps, i, i+1)
	case number == g.from:
		t.gaps[i].from++
	case number == g.to-1:
		t.gaps[i].to--
	default:
		t.gaps[i].to = number
		t.gaps = slices.Insert(t.gaps, i+1, gap{number + 1, g.to})
	}
	return true
}
