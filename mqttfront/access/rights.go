package access

import (
	"strings"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Rights are what one client may do: the rules that are for it, with its names in them. Who has none may do nothing. They
// can be compared with ==.
type Rights struct {
	*set
	user, client string
}

// set is the filters of some rules.
type set struct {
	publish, subscribe, denyPublish, denySubscribe []pattern
}

// pattern is a filter, which may have %u and %c in it.
type pattern struct {
	filter string
	names  bool // it has
	rule   int  // the number of its rule
}

func (s *set) add(i int, r *Rule) {
	for _, to := range []struct {
		list *[]pattern
		from []string
	}{{&s.publish, r.Publish}, {&s.subscribe, r.Subscribe}, {&s.denyPublish, r.DenyPublish}, {&s.denySubscribe, r.DenySubscribe}} {
		for _, f := range to.from {
			*to.list = append(*to.list, pattern{f, strings.Contains(f, "%u") || strings.Contains(f, "%c"), i})
		}
	}
}

// CanPublish reports whether the client may publish to a topic.
func (r Rights) CanPublish(name string) bool {
	return r.first(r.publish, name) != nil && r.first(r.denyPublish, name) == nil
}

// CanReceive reports whether it may have what is published to a topic.
func (r Rights) CanReceive(name string) bool {
	return r.first(r.subscribe, name) != nil && r.first(r.denySubscribe, name) == nil
}

// first returns the first of some patterns that matches a topic; nil where none does.
func (r *Rights) first(ps []pattern, name string) *pattern {
	for i := range ps {
		if p := &ps[i]; p.names && r.matches(p.filter, name) || !p.names && topic.Match(p.filter, name) {
			return p
		}
	}
	return nil
}

// value is what a level of a pattern stands for. A name that could be more than one level, or none of its own, stands for
// nothing: otherwise a client could choose one that widens a rule.
func (r *Rights) value(level string) (value string, ok bool) {
	switch level {
	case "%u":
		level = r.user
	case "%c":
		level = r.client
	default:
		return level, true
	}
	return level, level != "" && level[0] != '$' && level[0] != '@' && !strings.ContainsAny(level, "/+#")
}

// matches is topic.Match with names in the filter.
func (r *Rights) matches(filter, name string) bool {
	if name[:min(len(name), 1)] == "$" && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		n, nrest, nmore := strings.Cut(name, "/")
		if f != "+" {
			if v, ok := r.value(f); !ok || v != n {
				return false
			}
		}
		switch {
		case !nmore:
			return !fmore || frest == "#"
		case !fmore:
			return false
		}
		filter, name = frest, nrest
	}
}

// fresh is a level that no filter names.
const fresh = "\x00"

// CanSubscribe reports whether a filter matches any topic that the client may receive.
func (r Rights) CanSubscribe(filter string) bool {
	_, allowed := r.subscription(filter)
	return allowed
}

// subscription says by what a subscription is allowed; or by what it is denied, nil where nothing allows any of it.
//
// What two filters have in common is one filter, or nothing. Where that is not denied as a whole, some topic of it is not
// denied that has levels in the places of its wildcards that no rule names: so only such topics need be looked at, of all
// lengths up to where no denial tells lengths apart any more.
func (r *Rights) subscription(filter string) (by *pattern, allowed bool) {
	longest := 0
	for i := range r.denySubscribe {
		longest = max(longest, topic.Levels(r.denySubscribe[i].filter))
	}
	levels := strings.Split(filter, "/")
	for i := range r.subscribe {
		allowed := strings.Split(r.subscribe[i].filter, "/")
		if !r.fill(allowed) {
			continue
		}
		common, open, ok := intersect(levels, allowed)
		if !ok {
			continue
		}
		for i := range common {
			if common[i] == "+" {
				common[i] = fresh
			}
		}
		if len(common) == 0 { // # with #: the shortest topic has one level
			common = append(common, fresh)
		}
		for {
			denied := r.first(r.denySubscribe, strings.Join(common, "/"))
			if denied == nil {
				return &r.subscribe[i], true
			}
			by = denied
			if !open || len(common) > longest {
				break
			}
			common = append(common, fresh)
		}
	}
	return by, false
}

// fill puts the client's names into the levels of a pattern. It returns false where one stands for nothing.
func (r *Rights) fill(levels []string) bool {
	for i := range levels {
		v, ok := r.value(levels[i])
		if !ok {
			return false
		}
		levels[i] = v
	}
	return true
}

// intersect returns the levels of what two filters have in common: literals and +; open says that more may follow. ok is
// false where there is no such topic.
func intersect(a, b []string) (common []string, open, ok bool) {
	if wild(a[0]) && strings.HasPrefix(b[0], "$") || wild(b[0]) && strings.HasPrefix(a[0], "$") {
		return nil, false, false
	}
	for i := 0; ; i++ {
		endA, endB := i == len(a), i == len(b)
		hashA, hashB := !endA && a[i] == "#", !endB && b[i] == "#"
		switch {
		case endA && endB, endA && hashB, endB && hashA:
			return common, false, true
		case hashA && hashB:
			return common, true, true
		case endA, endB:
			return nil, false, false
		case hashA:
			return rest(common, b[i:])
		case hashB:
			return rest(common, a[i:])
		case a[i] == "+":
			common = append(common, b[i])
		case b[i] == "+" || a[i] == b[i]:
			common = append(common, a[i])
		default:
			return nil, false, false
		}
	}
}

// rest ends an intersection with what one of the two has where the other has #.
func rest(common, more []string) ([]string, bool, bool) {
	if more[len(more)-1] == "#" {
		return append(common, more[:len(more)-1]...), true, true
	}
	return append(common, more...), false, true
}

func wild(level string) bool { return level == "+" || level == "#" }
