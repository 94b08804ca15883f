package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// leftover is what a session has left: everything where it is over, or what it had in turns before one.
type leftover struct{ session, below uint64 }

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
			l := d.toSweep[0]
			d.toSweep = d.toSweep[1:]
			d.mu.Unlock()
			d.sweep(l)
		}
	}
}

// sweepLaterLocked has records of a session removed.
func (d *DB) sweepLaterLocked(l leftover) {
	d.toSweep = append(d.toSweep, l)
	wake(d.sweepWake)
}

func (d *DB) sweep(l leftover) {
	d.apply() // so that what is to be removed can be seen
	if l.below > 0 {
		runs := under(number(kindRun, l.session))
		runs.UpperBound = binary.BigEndian.AppendUint64(number(kindRun, l.session), l.below)
		for d.sweepSome(runs) {
			d.apply()
		}
		return
	}
	for _, kind := range []byte{kindEntry, kindInbound, kindSubscription, kindRun} {
		for d.sweepSome(under(number(kind, l.session))) {
			d.apply()
		}
	}
}

// sweepSome removes some records in a range, and reports whether there may be more.
func (d *DB) sweepSome(r *pebble.IterOptions) (more bool) {
	select {
	case <-d.closing:
		return false
	default:
	}
	n := 0
	err := d.iterate(r, func(key, value []byte) bool {
		d.update(func() {
			d.removeLocked(string(key))
			var e pb.StoredEntry
			if key[0] == kindEntry && decode(value, &e) == nil {
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
