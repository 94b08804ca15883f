package core

import (
	"slices"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// span is a run of sequence numbers, both ends included.
type span struct{ from, to uint64 }

// spans is a set of sequence numbers, as runs in order. Numbers mostly come in order, so that it is short.
type spans []span

// add puts a number in and reports whether it was missing.
func (s *spans) add(seq uint64) bool {
	t := *s
	if last := len(t) - 1; last >= 0 && t[last].to+1 == seq {
		t[last].to = seq
		return true
	}
	i, found := slices.BinarySearchFunc(t, seq, func(e span, seq uint64) int {
		switch {
		case e.to < seq:
			return -1
		case e.from > seq:
			return 1
		}
		return 0
	})
	if found {
		return false
	}
	before := i > 0 && t[i-1].to+1 == seq
	after := i < len(t) && t[i].from == seq+1
	switch {
	case before && after:
		t[i-1].to = t[i].to
		*s = slices.Delete(t, i, i+1)
	case before:
		t[i-1].to = seq
	case after:
		t[i].from = seq
	default:
		*s = slices.Insert(t, i, span{seq, seq})
	}
	return true
}

// has reports whether a number is in.
func (s spans) has(seq uint64) bool {
	for i := len(s) - 1; i >= 0 && s[i].to >= seq; i-- {
		if s[i].from <= seq {
			return true
		}
	}
	return false
}

// remove takes a number out.
func (s *spans) remove(seq uint64) {
	for i, e := range *s {
		if e.from > seq || e.to < seq {
			continue
		}
		var parts []span
		if e.from < seq {
			parts = append(parts, span{e.from, seq - 1})
		}
		if e.to > seq {
			parts = append(parts, span{seq + 1, e.to})
		}
		*s = slices.Replace(*s, i, i+1, parts...)
		return
	}
}

// cut takes a run of numbers out.
func (s *spans) cut(from, to uint64) {
	var rest spans
	for _, e := range *s {
		if e.from < from {
			rest = append(rest, span{e.from, min(e.to, from-1)})
		}
		if e.to > to {
			rest = append(rest, span{max(e.from, to+1), e.to})
		}
	}
	*s = rest
}

// cover puts a run of numbers in that is before all others, or begins before them.
func (s *spans) cover(from, to uint64) {
	if s.trim(to); len(*s) > 0 && (*s)[0].from == to+1 {
		(*s)[0].from = from
		return
	}
	*s = slices.Insert(*s, 0, span{from, to})
}

// trim takes everything up to a number out.
func (s *spans) trim(upto uint64) {
	t := *s
	i := 0
	for i < len(t) && t[i].to <= upto {
		i++
	}
	if i > 0 {
		t = slices.Delete(t, 0, i)
	}
	if len(t) > 0 && t[0].from <= upto {
		t[0].from = upto + 1
	}
	*s = t
}

// empty reports whether there is nothing behind a number.
func (s spans) empty(upto uint64) bool { return len(s) == 0 || s[len(s)-1].to <= upto }

func (s spans) pb() []*pb.Range {
	r := make([]*pb.Range, len(s))
	for i, e := range s {
		r[i] = &pb.Range{From: e.from, To: e.to}
	}
	return r
}

// acks collects sequence numbers of many epochs for one acknowledgement.
type acks struct {
	order  []uint64
	epochs map[uint64]*spans
}

func (a *acks) add(id Identity) {
	if a.epochs == nil {
		a.epochs = map[uint64]*spans{}
	}
	s := a.epochs[id.Epoch]
	if s == nil {
		s = new(spans)
		a.epochs[id.Epoch] = s
		a.order = append(a.order, id.Epoch)
	}
	s.add(id.Seq)
}

func (a *acks) has(id Identity) bool {
	s := a.epochs[id.Epoch]
	return s != nil && s.has(id.Seq)
}

// take returns what was collected, in the order of the epochs' first numbers, and begins anew.
func (a *acks) take() []*pb.Ranges {
	if len(a.order) == 0 {
		return nil
	}
	r := make([]*pb.Ranges, len(a.order))
	for i, e := range a.order {
		r[i] = &pb.Ranges{Epoch: e, Ranges: a.epochs[e].pb()}
	}
	a.order = a.order[:0]
	clear(a.epochs)
	return r
}
