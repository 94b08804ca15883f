package core

// numbered keeps values by their sequence numbers. A map does not shrink by itself: what was in the way of one burst would
// take memory for as long as the epoch lasts.
type numbered[V any] struct {
	values map[uint64]V
	most   int // that were in it since it was made
}

// fewValues is how many values a map may have room for without being made anew.
const fewValues = 256

func (t *numbered[V]) len() int { return len(t.values) }

// get returns the value of a number, or the zero value.
func (t *numbered[V]) get(seq uint64) V { return t.values[seq] }

func (t *numbered[V]) put(seq uint64, v V) {
	put(&t.values, seq, v)
	t.most = max(t.most, len(t.values))
}

func (t *numbered[V]) remove(seq uint64) {
	delete(t.values, seq)
	if t.most <= fewValues || len(t.values) > t.most/8 {
		return
	}
	fewer := make(map[uint64]V, len(t.values))
	for s, v := range t.values {
		fewer[s] = v
	}
	t.values, t.most = fewer, len(fewer)
}

// sorted returns the numbers in order.
func (t *numbered[V]) sorted() []uint64 { return sortedKeys(t.values) }
