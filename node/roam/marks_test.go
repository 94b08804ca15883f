package roam

import (
	"slices"
	"testing"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// TestMarksOnTheWire: what a session has had is the same at the other node.
func TestMarksOnTheWire(t *testing.T) {
	runs := []mqttfront.MarkRun{{Epoch: 7, First: 1, Last: 1}, {Epoch: 7, First: 3, Last: 90}, {Epoch: 2, First: 5, Last: 6}, {Epoch: 7, First: 1 << 40, Last: 1<<40 + 1}}
	ms := marksToPB(runs)
	if len(ms) != 3 || !slices.Equal(ms[0].GetRuns(), []uint64{1, 0, 2, 87}) {
		t.Errorf("%v", ms)
	}
	if got := marksOf(ms); !slices.Equal(got, runs) {
		t.Errorf("%v, want %v", got, runs)
	}
}

// FuzzMarks: whatever another node says, its runs rise, and are the same when they are said again.
func FuzzMarks(f *testing.F) {
	for _, runs := range [][]uint64{{1, 0, 2, 87}, {1}, {1 << 63, 1}, {1<<63 - 2, 1<<63 - 2, 5, 5}} {
		b, err := protobuf.Marshal(&pb.MovedMarks{Epoch: 3, Runs: runs})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m pb.MovedMarks
		if protobuf.Unmarshal(data, &m) != nil {
			return
		}
		runs := marksOf([]*pb.MovedMarks{&m})
		for i, r := range runs {
			if r.Last < r.First || r.Epoch != m.GetEpoch() || i > 0 && r.First < runs[i-1].Last {
				t.Fatalf("%v", runs)
			}
		}
		if again := marksOf(marksToPB(runs)); !slices.Equal(again, runs) {
			t.Fatalf("%v, then %v", runs, again)
		}
	})
}
