package core

// fifo is a queue on a slice that is moved together when half of it has been taken.
type fifo[T any] struct {
	items []T
	head  int
	kept  int // what compact left
}

// manyItems is for how many items an empty queue keeps memory.
const manyItems = 1024

func (q *fifo[T]) push(v T)  { q.items = append(q.items, v) }
func (q *fifo[T]) len() int  { return len(q.items) - q.head }
func (q *fifo[T]) live() []T { return q.items[q.head:] }

func (q *fifo[T]) front() T { return q.items[q.head] }

func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.items) && cap(q.items) > manyItems:
		q.items, q.head = nil, 0
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && q.head*2 > len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}

// compact takes out what is over, when so much was taken out or is over that it pays: the queue has to have
// doubled since it was last done. What is at the front keeps nothing behind it from going.
func (q *fifo[T]) compact(over func(T) bool) {
	if q.len() < 64 || q.len() < 2*q.kept {
		return
	}
	live := q.items[:0]
	for _, v := range q.live() {
		if !over(v) {
			live = append(live, v)
		}
	}
	clear(q.items[len(live):])
	q.items, q.head, q.kept = live, 0, len(live)
}

// takeAll empties the queue and returns what was in it.
func (q *fifo[T]) takeAll() []T {
	v := q.live()
	q.items, q.head, q.kept = nil, 0, 0
	return v
}
