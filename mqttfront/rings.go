package mqttfront

import "sync"

// Rings grow by doubling. One of a client that has much under way has pooledPlaces, from a pool, and goes back there when
// nothing is; one of fewPlaces at most is kept. So clients that send and get messages in bursts allocate none, and those that
// do nothing hold no memory.
const (
	firstPlaces  = 4
	fewPlaces    = 16
	pooledPlaces = 128
)

// rings makes rings of one kind.
type rings[T any] struct{ pool sync.Pool }

var (
	entryRings rings[Entry]
	ackRings   rings[ackWait]
)

// next returns an empty ring that is larger than one of n places.
func (r *rings[T]) next(n int) []T {
	switch {
	case n < fewPlaces:
		return make([]T, max(firstPlaces, 2*n))
	case n >= pooledPlaces:
		return make([]T, 2*n)
	}
	if ring, ok := r.pool.Get().(*[pooledPlaces]T); ok {
		return ring[:]
	}
	return make([]T, pooledPlaces)
}

// put takes back a ring that nobody uses any more.
func (r *rings[T]) put(ring []T) {
	if len(ring) == pooledPlaces {
		clear(ring)
		r.pool.Put((*[pooledPlaces]T)(ring))
	}
}
