package mqttfront

import (
	"slices"
	"strings"
)

// subscriptions are those of a session, in the order of their filters, with $share/NAME/. Most sessions have one or a few,
// for which a map would be large.
type subscriptions []*subscription

func (ss subscriptions) find(filter string) (int, bool) {
	return slices.BinarySearchFunc(ss, filter, func(s *subscription, f string) int { return strings.Compare(s.filter, f) })
}

// get returns the subscription to a filter, or nil.
func (ss subscriptions) get(filter string) *subscription {
	if i, ok := ss.find(filter); ok {
		return ss[i]
	}
	return nil
}

// set adds a subscription, in place of one to the same filter.
func (ss *subscriptions) set(sub *subscription) {
	i, ok := ss.find(sub.filter)
	if ok {
		(*ss)[i] = sub
		return
	}
	*ss = slices.Insert(*ss, i, sub)
}

func (ss *subscriptions) remove(filter string) {
	if i, ok := ss.find(filter); ok {
		*ss = slices.Delete(*ss, i, i+1)
	}
}

// subscription is one filter of a session. It does not change.
type subscription struct {
	filter            string // as the client gave it
	share             string // NAME of $share/NAME/inner
	inner             string
	id                uint32
	qos               byte
	noLocal           bool
	retainAsPublished bool
	later             bool // see SubscriptionRecord
}
