package access

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// Rule says what some may do. Rules have no order: something is allowed where a rule for the client allows it and none
// denies it.
type Rule struct {
	// For whom it is: anyone whom one of these names.
	Users, Groups []string
	Anonymous     bool // clients without a name
	Everyone      bool
	// Filters of the topics that they may publish to and receive. A level that is %u stands for the user's name, one that
	// is %c for the client ID.
	Publish, Subscribe []string
	// Filters of those that they may not, whatever else allows it.
	DenyPublish, DenySubscribe []string
}

// MaxFilters is how many filters rules may have together. Asking what a client may do takes the longer, the more of them
// are for it.
const MaxFilters = 20_000

// CheckFilter says what is wrong with a filter of a rule.
func CheckFilter(filter string) error {
	if strings.HasPrefix(filter, "$share/") {
		return errors.New("rules are about topics, however they are shared: leave $share/NAME/ out")
	}
	for level := range strings.SplitSeq(filter, "/") {
		if level != "%u" && level != "%c" && (strings.Contains(level, "%u") || strings.Contains(level, "%c")) {
			return fmt.Errorf("level %q: %%u and %%c have to be levels by themselves, such as devices/%%c/state", level)
		}
	}
	return topic.ValidFilter(filter, topic.Limits{})
}

// Rules are all rules. They do not change, and are safe for concurrent use.
type Rules struct {
	rules               []Rule
	everyone, anonymous []uint32 // indexes of rules
	users, groups       map[string][]uint32

	mu   sync.Mutex
	sets map[string]*set // what has been asked for so far, by the indexes of its rules
}

// NewRules makes rules of filters that CheckFilter finds right.
func NewRules(rules []Rule) *Rules {
	r := &Rules{rules: rules, users: map[string][]uint32{}, groups: map[string][]uint32{}, sets: map[string]*set{}}
	for n := range rules {
		i := uint32(n)
		if rules[n].Everyone {
			r.everyone = append(r.everyone, i)
		}
		if rules[n].Anonymous {
			r.anonymous = append(r.anonymous, i)
		}
		for _, u := range rules[n].Users {
			r.users[u] = append(r.users[u], i)
		}
		for _, g := range rules[n].Groups {
			r.groups[g] = append(r.groups[g], i)
		}
	}
	return r
}

// Len is the number of rules.
func (r *Rules) Len() int { return len(r.rules) }

// Rights returns what a client may do. user is "" for one that is anonymous.
func (r *Rules) Rights(user string, groups []string, client string) Rights {
	of := make([]bool, len(r.rules))
	name := func(indexes []uint32) {
		for _, i := range indexes {
			of[i] = true
		}
	}
	name(r.everyone)
	if user == "" {
		name(r.anonymous)
	} else {
		name(r.users[user])
		for _, g := range groups {
			name(r.groups[g])
		}
	}
	var key []byte
	for i, mine := range of {
		if mine {
			key = binary.AppendUvarint(key, uint64(i))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sets[string(key)]
	if s == nil {
		s = new(set)
		for i, mine := range of {
			if mine {
				s.add(i, &r.rules[i])
			}
		}
		if len(r.sets) >= maxSets {
			clear(r.sets) // those in use stay with who uses them
		}
		r.sets[string(key)] = s
	}
	return Rights{s, user, client}
}

// maxSets is how many combinations of rules are kept for those who come next.
const maxSets = 10_000
