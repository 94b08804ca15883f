package roam

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// What is ours to tune.
const (
	// doubtTime is how long what is doubted waits before the other node is asked: as a rule the session has had it there by then. After answeredTime
	// without an answer it is sent, and all that follows.
	doubtTime    = time.Second
	answeredTime = 10 * time.Second
)

// doubts deals with what comes for a session once all that waited has come, and everybody knows where it is. It may be late, and is nowhere
// else then; as a rule it comes here by the subscriptions of others, and has come to where the session is too. So what it is is asked about
// before it is sent.
type doubts struct {
	sure  uint64      // position of the last that was asked about
	since time.Time   // when the first came that was not; zero: there is none
	asked time.Time   // when it was asked; zero: nobody is to answer
	mute  bool        // nobody answers
	timer *time.Timer // wakes who is to call sort
}

func newDoubts() *doubts {
	q := &doubts{timer: time.NewTimer(time.Hour)}
	q.timer.Stop()
	return q
}

// wait reports whether there is nothing to do for now, whatever has come.
func (q *doubts) wait(now time.Time) bool {
	if !q.asked.IsZero() {
		return now.Sub(q.asked) < answeredTime
	}
	return !q.since.IsZero() && now.Sub(q.since) < doubtTime
}

// sort returns, of all that there is when it need not wait, what is to be sent now, and what to be asked about; what is neither is to wait.
func (q *doubts) sort(es []mqttfront.Entry, now time.Time) (send []mqttfront.Entry, ask []mqttfront.MarkRun) {
	if !q.asked.IsZero() {
		q.mute = true
		q.answered()
	}
	if q.mute {
		return es, nil
	}
	n := 0
	for n < len(es) && es[n].Pos <= q.sure {
		n++
	}
	switch {
	case n > 0: // and so the session has not had it
		return es[:n], nil
	case len(es) == 0:
		q.since = time.Time{}
		return nil, nil
	case q.since.IsZero():
		q.since = now
		q.timer.Reset(doubtTime)
		return nil, nil
	}
	size := 0
	for i := range es {
		m := markOf(&es[i])
		size += es[i].Msg.Size()
		ask = append(ask, mqttfront.MarkRun{Epoch: m.Epoch, First: m.Seq, Last: m.Seq})
	}
	if len(es) < chunkEntries && size < chunkSize { // else there is more, which has waited too
		q.since = time.Time{}
	}
	q.sure, q.asked = es[len(es)-1].Pos, now
	q.timer.Reset(answeredTime)
	return nil, ask
}

// answered says that what the session has had is not among what there is any more.
func (q *doubts) answered() { q.asked = time.Time{} }
