package core

// fifo is a queue on a slice that is moved together when half of it has been taken.
type fifo[T any] struct {
	items []T
	head  int
}

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
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && q.head*2 > len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}

// takeAll empties the queue and returns what was in it.
func (q *fifo[T]) takeAll() []T {
	v := q.live()
	q.items, q.head = nil, 0
	return v
}
