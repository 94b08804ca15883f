package bench

import "time"

// Row is a named measurement. Those of one name are the same for all brokers, and from version to version.
type Row struct {
	Name, What string
	set        func(*Load) // nil: for idle clients
	offline    bool
}

// Rows are all named measurements, in their order. Where the credit is what bounds them, some thousand messages are under
// way: enough to keep everybody busy, and less than brokers drop messages for (Mozzie from 1 MiB for a subscriber on, mochi
// from 8,192 messages).
var Rows = []Row{
	{Name: "a", What: "1 to 1, QoS 0, 64 B", set: func(*Load) {}},
	{Name: "a-1k", What: "1 to 1, QoS 0, 1 KiB", set: func(l *Load) { l.Size, l.Credit = 1024, 500 }},
	{Name: "b", What: "10 to 10, QoS 0", set: func(l *Load) { l.Publishers, l.Subscribers, l.Credit = 10, 10, 1000 }},
	{Name: "c", What: "fan-out, 1 to 50, QoS 0", set: func(l *Load) { l.Subscribers, l.Credit = 50, 1000 }},
	{Name: "d", What: "fan-in, 50 to 1 with #, QoS 0", set: func(l *Load) { l.Publishers, l.Wildcard, l.Credit = 50, true, 100 }},
	{Name: "e", What: "10 to 10, QoS 1, window 100", set: func(l *Load) { l.acknowledged(1, 100) }},
	{Name: "f", What: "10 to 10, QoS 2, window 100", set: func(l *Load) { l.acknowledged(2, 100) }},
	{Name: "f-20", What: "10 to 10, QoS 2, window 20", set: func(l *Load) { l.acknowledged(2, 20) }},
	{Name: "g", What: "latency at 1,000/s, QoS 0", set: func(l *Load) { l.paced(0) }},
	{Name: "g-1", What: "latency at 1,000/s, QoS 1", set: func(l *Load) { l.paced(1) }},
	{Name: "h", What: "10,000 idle connections"},
	{Name: "h-off", What: "10,000 offline sessions", offline: true},
	{Name: "i", What: "as e, with sessions that outlive their connections", set: func(l *Load) {
		l.acknowledged(1, 100)
		l.Persistent = true
	}},
}

// Unnamed is the row of DefaultLoad, for those who say everything themselves.
var Unnamed = Row{set: func(*Load) {}}

// acknowledged is 10 pairs whose window is what bounds them.
func (l *Load) acknowledged(qos byte, window int) {
	l.Publishers, l.Subscribers = 10, 10
	l.QoS, l.Window = qos, window
}

// paced is far less than a broker can do, so that what is seen is the way and not the queue.
func (l *Load) paced(qos byte) {
	l.Rate, l.QoS, l.Credit = 1000, qos, 0
	l.Duration = 5 * time.Second
}

// Idle reports whether the row is one of idle clients, and whether these are offline.
func (r Row) Idle() (idle, offline bool) { return r.set == nil, r.offline }

// Set makes a load the row's. It is for those that are not idle.
func (r Row) Set(l *Load) { r.set(l) }

// RowNamed returns the row of a name.
func RowNamed(name string) (Row, bool) {
	for _, r := range Rows {
		if r.Name == name {
			return r, true
		}
	}
	return Row{}, false
}
