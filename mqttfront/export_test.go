package mqttfront

import "time"

// ReadProxyHeader is what tests outside of the package feed.
var ReadProxyHeader = readProxyHeader

// SetStuck sets how long one write may take before the connection is given up for others. For tests, before the first
// connection.
func (b *Broker) SetStuck(d time.Duration) { b.crowd.stuck = d }

// MaxTurnedAway is how many that are over a limit are told so at a time.
const MaxTurnedAway = maxTurnedAway

// SetTellTime sets how long telling somebody so may take. For tests, before the first connection.
func (b *Broker) SetTellTime(d time.Duration) { b.tellTime = d }

// SysPublisher returns what publishes $SYS at once.
func (b *Broker) SysPublisher() func() {
	tree := new(sysTree)
	return func() { tree.publish(b, time.Now()) }
}

// CameBack says that the session has come back to the node that it departed from.
func (d *Departure) CameBack() { d.back.Store(true) }
