package roam

import (
	"math"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// markOf returns the identity of an entry's message.
func markOf(e *mqttfront.Entry) mqttfront.Mark {
	if e.Receipt != nil {
		return e.Receipt.Mark()
	}
	return e.Mark
}

// marksToPB writes what a session has had.
func marksToPB(runs []mqttfront.MarkRun) (ms []*pb.MovedMarks) {
	var m *pb.MovedMarks
	at := uint64(0)
	for _, r := range runs {
		if m == nil || m.Epoch != r.Epoch || r.First < at {
			m, at = &pb.MovedMarks{Epoch: r.Epoch}, 0
			ms = append(ms, m)
		}
		m.Runs = append(m.Runs, r.First-at, r.Last-r.First)
		at = r.Last
	}
	return ms
}

// marksOf undoes marksToPB. What no node counts up to ends it.
func marksOf(ms []*pb.MovedMarks) (runs []mqttfront.MarkRun) {
	for _, m := range ms {
		at := uint64(0)
		for rs := m.GetRuns(); len(rs) > 1 && rs[0] < math.MaxInt64-at && rs[1] < math.MaxInt64-at-rs[0]; rs = rs[2:] {
			r := mqttfront.MarkRun{Epoch: m.GetEpoch(), First: at + rs[0], Last: at + rs[0] + rs[1]}
			runs = append(runs, r)
			at = r.Last
		}
	}
	return runs
}
