package access

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// slowMatch is matching as the specification describes it, on levels.
func slowMatch(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (f[0] == "#" || f[0] == "+") {
		return false
	}
	return slowLevels(f, n)
}

func slowLevels(f, n []string) bool {
	switch {
	case len(f) == 1 && f[0] == "#":
		return true
	case len(f) == 0 || len(n) == 0:
		return len(f) == len(n)
	case f[0] != "+" && f[0] != n[0]:
		return false
	}
	return slowLevels(f[1:], n[1:])
}

// words are all sequences of up to depth letters, with slashes between.
func words(depth int, letters ...string) (all []string) {
	layer := []string{""}
	for d := range depth {
		var next []string
		for _, w := range layer {
			for _, l := range letters {
				if d > 0 {
					l = w + "/" + l
				}
				next = append(next, l)
			}
		}
		all, layer = append(all, next...), next
	}
	return all
}

// filters are those words, with and without # behind.
func filters(depth int, letters ...string) []string {
	all := []string{"#"}
	for _, w := range words(depth, letters...) {
		all = append(all, w)
		if strings.Count(w, "/") < depth-1 {
			all = append(all, w+"/#")
		}
	}
	return all
}

// oracle knows by trying which topics of a small world each filter matches.
type oracle struct {
	topics  []string
	matches map[string][]bool
}

func newOracle(topics, filters []string) *oracle {
	o := &oracle{topics, map[string][]bool{}}
	for _, f := range filters {
		for _, t := range topics {
			o.matches[f] = append(o.matches[f], slowMatch(f, t))
		}
	}
	return o
}

func (o *oracle) any(fs []string, topic int) bool {
	for _, f := range fs {
		if o.matches[f][topic] {
			return true
		}
	}
	return false
}

// check holds rights against what the oracle says of every topic and filter of its world.
func (o *oracle) check(t *testing.T, r Rights, rule *Rule, filters []string) {
	t.Helper()
	may := make([]bool, len(o.topics))
	for i, name := range o.topics {
		may[i] = o.any(rule.Subscribe, i) && !o.any(rule.DenySubscribe, i)
		if r.CanReceive(name) != may[i] {
			t.Fatalf("%+v: receive %q: %v", rule, name, !may[i])
		}
		if want := o.any(rule.Publish, i) && !o.any(rule.DenyPublish, i); r.CanPublish(name) != want {
			t.Fatalf("%+v: publish %q: %v", rule, name, !want)
		}
		o.decided(t, i, r.Publish(name), r.CanPublish(name), rule.Publish, rule.DenyPublish)
		o.decided(t, i, r.Subscribe(name), may[i], rule.Subscribe, rule.DenySubscribe)
	}
	for _, f := range filters {
		want := false
		for i, m := range o.matches[f] {
			want = want || m && may[i]
		}
		if r.CanSubscribe(f) != want || r.Subscribe(f).Allowed != want {
			t.Fatalf("%+v: subscribe %q: %v", rule, f, !want)
		}
	}
}

// decided checks that a verdict names a filter that decides so.
func (o *oracle) decided(t *testing.T, topic int, v Verdict, allowed bool, allow, deny []string) {
	t.Helper()
	from := deny
	if allowed {
		from = allow
	}
	named := v.Rule == 0 && slices.Contains(from, v.Filter) && o.matches[v.Filter][topic]
	if v.Allowed != allowed || !named && (v.Rule >= 0 || allowed || o.any(allow, topic)) {
		t.Fatalf("%q by %v without %v: %+v", o.topics[topic], allow, deny, v)
	}
}

// TestRightsOracle holds every filter and every topic of a small world against every pair of an allowing and a denying
// filter, and against many random sets of rules. A level that no filter names ("z") stands for all others.
func TestRightsOracle(t *testing.T) {
	fs := filters(2, "a", "b", "+", "$x")
	o := newOracle(words(4, "a", "b", "$x", "z"), fs)
	for _, allow := range fs {
		for _, deny := range fs {
			rule := Rule{Everyone: true, Publish: []string{allow}, Subscribe: []string{allow}, DenyPublish: []string{deny}, DenySubscribe: []string{deny}}
			o.check(t, NewRules([]Rule{rule}).Rights("", nil, ""), &rule, fs)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	deep := filters(3, "a", "b", "+", "", "$x")
	o = newOracle(words(4, "a", "b", "", "$x", "z"), deep)
	some := func(most int) (list []string) {
		for range r.IntN(most + 1) {
			list = append(list, deep[r.IntN(len(deep))])
		}
		return list
	}
	for range 150 {
		rule := Rule{Everyone: true, Publish: some(3), Subscribe: some(3), DenyPublish: some(3), DenySubscribe: some(5)}
		o.check(t, NewRules([]Rule{rule}).Rights("", nil, ""), &rule, deep)
	}
}

// TestRightsOfWhom: rules are for users, groups, anonymous clients and everyone, and add up; denials win.
func TestRightsOfWhom(t *testing.T) {
	rules := NewRules([]Rule{
		{Everyone: true, Subscribe: []string{"public/#"}},
		{Anonymous: true, Publish: []string{"guest/%c"}},
		{Users: []string{"alice", "bob"}, Publish: []string{"home/%u/#"}, Subscribe: []string{"#"}},
		{Groups: []string{"kids"}, DenySubscribe: []string{"secret/#", "public/tv"}, DenyPublish: []string{"+/+/oven"}},
	})
	for _, tc := range []struct {
		user   string
		groups []string
		can    string // what of: receive public/x, public/tv, secret/x; publish home/alice/lamp, home/alice/oven, guest/c1
	}{
		{"", nil, "110001"}, {"carol", nil, "110000"}, {"alice", nil, "111110"}, {"alice", []string{"x", "kids"}, "100100"},
		{"bob", nil, "111000"}, {"carol", []string{"kids"}, "100000"},
	} {
		r := rules.Rights(tc.user, tc.groups, "c1")
		got := ""
		for _, can := range []bool{r.CanReceive("public/x"), r.CanReceive("public/tv"), r.CanReceive("secret/x"), r.CanPublish("home/alice/lamp"),
			r.CanPublish("home/alice/oven"), r.CanPublish("guest/c1")} {
			got += fmt.Sprint(map[bool]int{true: 1}[can])
		}
		if got != tc.can {
			t.Errorf("%q in %v: %s, want %s", tc.user, tc.groups, got, tc.can)
		}
		if r != rules.Rights(tc.user, tc.groups, "c1") {
			t.Error("the same rights are not the same")
		}
	}
}

// TestNamesDoNotWiden: whatever a client calls itself, %u and %c stand for one level, or for nothing.
func TestNamesDoNotWiden(t *testing.T) {
	rules := NewRules([]Rule{{Everyone: true, Publish: []string{"%c", "a/%u/b", "%c/#"}, Subscribe: []string{"%u/#", "x/%c"}, DenySubscribe: []string{"x/%u"}}})
	topics := words(3, "a", "b", "x", "$SYS", "", "@a", "z")
	for _, name := range []string{"", "+", "#", "a/#", "a/b", "/", "+/+", "$SYS", "@a", "%u", "%c", "a", "b"} {
		good := name == "a" || name == "b" || name[:min(1, len(name))] == "%"
		r := rules.Rights(name, nil, name)
		for _, topic := range topics {
			first, _, _ := strings.Cut(topic, "/")
			own := good && first == name
			if want := own || good && topic == "a/"+name+"/b"; r.CanPublish(topic) != want {
				t.Errorf("%q may publish to %q: %v", name, topic, !want)
			}
			if r.CanReceive(topic) != own { // x/%c is denied as x/%u
				t.Errorf("%q may receive %q: %v", name, topic, !own)
			}
		}
		if r.CanSubscribe("#") != good || r.CanSubscribe("$SYS/#") || r.CanSubscribe("x/+") {
			t.Errorf("%q may subscribe to what it may not", name)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	for _, f := range []string{"#", "a/+/b", "%u/#", "a/%c", "100%", "%", "$SYS/#", "a//b", "%%"} {
		if err := CheckFilter(f); err != nil {
			t.Error(err)
		}
	}
	for _, f := range []string{"", "a/#/b", "a+", "x%u", "a/%c.json", "$share/g/a", "%u%c"} {
		if CheckFilter(f) == nil {
			t.Errorf("%q is good", f)
		}
	}
}

// FuzzRights: what may be subscribed to and what may be received never contradict each other.
func FuzzRights(f *testing.F) {
	f.Add("a/#", "a/+/c", "+/b/c", "a/b/c", "u", "c")
	f.Add("%u/#", "%c", "#", "u/x", "u", "$c")
	f.Add("#", "$SYS/#", "$SYS/+", "$SYS/a", "+", "#")
	f.Fuzz(func(t *testing.T, allow, deny, filter, name, user, client string) {
		if CheckFilter(allow) != nil || CheckFilter(deny) != nil || CheckFilter(filter) != nil || strings.ContainsAny(filter, "%") || name == "" || strings.ContainsAny(name, "+#") {
			return
		}
		r := NewRules([]Rule{{Everyone: true, Publish: []string{allow}, Subscribe: []string{allow}, DenyPublish: []string{deny}, DenySubscribe: []string{deny}}}).Rights(user, nil, client)
		if r.CanPublish(name) != r.CanReceive(name) {
			t.Errorf("one filter, two answers")
		}
		if r.Publish(name).Allowed != r.CanPublish(name) || r.Subscribe(filter).Allowed != r.CanSubscribe(filter) {
			t.Errorf("%q, %q: what is said is not what is done", name, filter)
		}
		if r.CanReceive(name) && slowMatch(filter, name) && !r.CanSubscribe(filter) {
			t.Errorf("%q may be received, and %q not be subscribed to", name, filter)
		}
	})
}

func BenchmarkCanPublish(b *testing.B) {
	rules := []Rule{{Groups: []string{"sensors"}, Publish: []string{"sensors/%c/#"}, Subscribe: []string{"config/%u/#"}, DenyPublish: []string{"sensors/+/config"}}}
	r := NewRules(rules).Rights("u1", []string{"sensors"}, "c1")
	b.ReportAllocs()
	for b.Loop() {
		if !r.CanPublish("sensors/c1/temperature") {
			b.Fatal("denied")
		}
	}
}
