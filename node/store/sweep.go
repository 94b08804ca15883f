package store

import "github.com/mozzie-mqtt/mozzie/proto/pb"

// sweepBatch is how many records of a session that is over are removed at a time.
const sweepBatch = 1000

// runSweep removes what sessions that are over have left, a part at a time. Owner DB, ends in Close.
func (d *DB) runSweep() {
	for {
		select {
		case <-d.sweepWake:
		case <-d.closing:
			return
		}
		for {
			d.mu.Lock()
			if len(d.toSweep) == 0 {
				d.mu.Unlock()
				break
			}
			id := d.toSweep[0]
			d.toSweep = d.toSweep[1:]
			d.mu.Unlock()
			d.sweep(id)
		}
	}
}

// sweepLaterLocked has the records of a session removed.
func (d *DB) sweepLaterLocked(session uint64) {
	d.toSweep = append(d.toSweep, session)
	wake(d.sweepWake)
}

func (d *DB) sweep(session uint64) {
	d.apply() // so that what is to be removed can be seen
	for _, kind := range []byte{kindEntry, kindInbound, kindSubscription} {
		for d.sweepSome(kind, session) {
			d.apply()
		}
	}
}

// sweepSome removes some records of a kind, and reports whether there may be more.
func (d *DB) sweepSome(kind byte, session uint64) (more bool) {
	select {
	case <-d.closing:
		return false
	default:
	}
	n := 0
	err := d.each(number(kind, session), func(key, value []byte) bool {
		d.update(func() {
			d.removeLocked(string(key))
			var e pb.StoredEntry
			if kind == kindEntry && decode(value, &e) == nil {
				d.releaseLocked(e.GetMessage(), nil)
			}
		})
		n++
		return n < sweepBatch
	})
	if err != nil {
		d.damaged(err)
	}
	return n == sweepBatch && err == nil
}
