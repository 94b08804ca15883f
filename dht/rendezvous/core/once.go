package core

import "sync/atomic"

// Once has something said by the first of those who may. It is safe for concurrent use.
type Once struct{ said uint32 }

// First reports whether it is called for the first time.
func (o *Once) First() bool { return atomic.CompareAndSwapUint32(&o.said, 0, 1) }

// Said reports whether it was.
func (o *Once) Said() bool { return atomic.LoadUint32(&o.said) > 0 }
