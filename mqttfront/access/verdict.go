package access

// Verdict is whether a client may do something, and the filter that decided.
type Verdict struct {
	Allowed bool
	// Rule is the number of the rule that the filter is of, counted from 0; below 0 where no rule allows it.
	Rule   int
	Filter string
}

// Publish says whether the client may publish to a topic, and why.
func (r Rights) Publish(name string) Verdict {
	if denied := r.first(r.denyPublish, name); denied != nil {
		return verdict(denied, false)
	}
	allowed := r.first(r.publish, name)
	return verdict(allowed, allowed != nil)
}

// Subscribe says whether the client may subscribe to a filter, and why. Of a filter with wildcards it may get less than
// what matches: see CanReceive.
func (r Rights) Subscribe(filter string) Verdict {
	by, allowed := r.subscription(filter)
	return verdict(by, allowed)
}

func verdict(by *pattern, allowed bool) Verdict {
	if by == nil {
		return Verdict{Rule: -1}
	}
	return Verdict{allowed, by.rule, by.filter}
}
