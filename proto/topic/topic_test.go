package topic

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// slowMatch is the specification's text and nothing else: the oracle of everything here.
func slowMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "#" || f[0] == "+") {
		return false
	}
	return slowLevels(f, t)
}

func slowLevels(f, t []string) bool {
	switch {
	case len(f) == 0:
		return len(t) == 0
	case f[0] == "#":
		return true // the parent level and any number of child levels
	case len(t) == 0:
		return false
	}
	return (f[0] == "+" || f[0] == t[0]) && slowLevels(f[1:], t[1:])
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"a/b", "a", false},
		{"#", "a", true}, {"#", "a/b", true}, {"#", "/", true}, {"a/#", "a", true}, {"a/#", "a/b/c", true},
		{"a/#", "ab", false}, {"+", "a", true}, {"+", "/a", false}, {"/+", "/a", true}, {"+/+", "/a", true},
		{"+", "", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"a/+/#", "a", false}, {"a/+/#", "a/b", true},
		{"+/#", "a", true}, {"x/+/#", "x/y", true}, {"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"+/tennis/#", "sport/tennis", true}, {"/", "/", true}, {"//", "//", true}, {"//", "/", false},
		{"A", "a", false}, // [MQTT-4.7.3-4]
		// [MQTT-4.7.2-1]
		{"#", "$SYS", false}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS", true},
		{"$SYS/+", "$SYS/x", true}, {"$SYS/#", "$SYS/x/y", true}, {"a/+", "a/$b", true},
	} {
		if got := Match(c.filter, c.topic); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.topic, got)
		}
		if got := slowMatch(c.filter, c.topic); got != c.want {
			t.Errorf("the oracle is wrong on %q, %q: %v", c.filter, c.topic, got)
		}
	}
}

func TestValid(t *testing.T) {
	long := strings.Repeat("x", 65536)
	for _, c := range []struct {
		s            string
		name, filter error
	}{
		{"a", nil, nil}, {"/", nil, nil}, {"a b/ c", nil, nil}, {"温度/é/😀", nil, nil}, {"a//b", nil, nil},
		{"", ErrEmpty, ErrEmpty},                             // [MQTT-4.7.3-1]
		{long, ErrTooLong, ErrTooLong}, {long[1:], nil, nil}, // [MQTT-4.7.3-3]
		{"a\x00b", ErrEncoding, ErrEncoding},                 // [MQTT-4.7.3-2]
		{"a\xffb", ErrEncoding, ErrEncoding},                 // [MQTT-1.5.4-1]
		{"a\xed\xa0\x80", ErrEncoding, ErrEncoding},          // [MQTT-1.5.4-1]: a surrogate
		{"\ufeffa\ufeff", nil, nil},                          // [MQTT-1.5.4-3]
		{"+", ErrWildcard, nil}, {"a/+/b", ErrWildcard, nil}, // [MQTT-4.7.0-1]
		{"#", ErrWildcard, nil}, {"a/#", ErrWildcard, nil}, // [MQTT-4.7.0-1]
		// [MQTT-4.7.1-1] [MQTT-4.7.1-2]
		{"sport#", ErrWildcard, ErrWildcard}, {"sport+", ErrWildcard, ErrWildcard},
		{"a/b+/c", ErrWildcard, ErrWildcard}, {"a/#/b", ErrWildcard, ErrWildcard}, {"+a", ErrWildcard, ErrWildcard},
		{"##", ErrWildcard, ErrWildcard}, {"a/+#", ErrWildcard, ErrWildcard}, {"#/", ErrWildcard, ErrWildcard},
		{strings.Repeat("/", 65535), nil, nil},
	} {
		if err := ValidName(c.s, Limits{}); !errors.Is(err, c.name) {
			t.Errorf("name %.40q: %v, want %v", c.s, err, c.name)
		}
		if err := ValidFilter(c.s, Limits{}); !errors.Is(err, c.filter) {
			t.Errorf("filter %.40q: %v, want %v", c.s, err, c.filter)
		}
	}
	lim := Limits{Length: 10, Levels: 3}
	for s, want := range map[string]error{"a/b/c": nil, "a/b/c/d": ErrTooDeep, "0123456789": nil, "01234567890": ErrTooLong} {
		if err := ValidName(s, lim); !errors.Is(err, want) {
			t.Errorf("name %q: %v, want %v", s, err, want)
		}
	}
}

func TestParseShare(t *testing.T) { // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	for _, c := range []struct {
		in, name, inner string
		bad             bool
	}{
		{"a/b", "", "a/b", false}, {"$share/g/a/b", "g", "a/b", false}, {"$share/g//a", "g", "/a", false},
		{"$share/g/#", "g", "#", false}, {"$shared/g/a", "", "$shared/g/a", false},
		{"$share", "", "", true}, {"$share/", "", "", true}, {"$share//t", "", "", true}, {"$share/g", "", "", true},
		{"$share/g/", "", "", true}, {"$share/+/t", "", "", true}, {"$share/g#/t", "", "", true},
	} {
		name, inner, err := ParseShare(c.in)
		if (err != nil) != c.bad || name != c.name || inner != c.inner {
			t.Errorf("%q: %q, %q, %v", c.in, name, inner, err)
		}
		if err == nil && Share(name, inner) != c.in {
			t.Errorf("Share(%q, %q) is not %q", name, inner, c.in)
		}
	}
}

// randomTopic and randomFilter draw from few levels, so that much matches.
func randomTopic(r *rand.Rand) string {
	levels := []string{"a", "b", "", "$x", "cc"}
	var s []string
	for range 1 + r.IntN(5) {
		s = append(s, levels[r.IntN(len(levels))])
	}
	if t := strings.Join(s, "/"); t != "" {
		return t
	}
	return "a"
}

func randomFilter(r *rand.Rand) string {
	s := strings.Split(randomTopic(r), "/")
	for i := range s {
		if r.IntN(3) == 0 {
			s[i] = "+"
		}
	}
	if r.IntN(3) == 0 {
		s[len(s)-1] = "#"
	}
	return strings.Join(s, "/")
}

func TestMatchOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		f, name := randomFilter(r), randomTopic(r)
		if got, want := Match(f, name), slowMatch(f, name); got != want {
			t.Fatalf("Match(%q, %q) = %v", f, name, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b")
	f.Add("#", "$SYS/x")
	f.Add("+/+", "/")
	f.Fuzz(func(t *testing.T, filter, name string) {
		if ValidFilter(filter, Limits{}) != nil || ValidName(name, Limits{}) != nil {
			return
		}
		want := slowMatch(filter, name)
		if Match(filter, name) != want {
			t.Errorf("Match(%q, %q) = %v", filter, name, !want)
		}
		var tree Tree[int, int]
		tree.Set(filter, 1, 1)
		n := 0
		tree.Match(name, func(got string, _, _ int) {
			if n++; got != filter {
				t.Errorf("filter %q came back as %q", filter, got)
			}
		})
		if (n == 1) != want || n > 1 {
			t.Errorf("tree: %q, %q: %d", filter, name, n)
		}
		var names Names[int]
		names.Set(name, 1)
		n = 0
		names.Match(filter, func(got string, _ int) bool { n++; return got == name })
		if (n == 1) != want || n > 1 {
			t.Errorf("names: %q, %q: %d", filter, name, n)
		}
		if tree.Delete(filter, 1); !tree.root.empty() {
			t.Errorf("%q leaves nodes behind", filter)
		}
		if names.Delete(name); names.root.kids.table.Load() != nil {
			t.Errorf("%q leaves nodes behind", name)
		}
	})
}

// FuzzGrammar holds what is valid against the rules spelt out level by level.
func FuzzGrammar(f *testing.F) {
	for _, s := range []string{"a/b", "/", "+/#", "#", "a/#/b", "a+/b", "+", "", "\x00", "\xff", "$SYS/+", "a//b", "#/a", "\u00e9/+"} {
		f.Add(s, 4)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(most, 0)
		levels := strings.Split(s, "/")
		text := s != "" && len(s) <= MaxLength && utf8.ValidString(s) && !strings.Contains(s, "\x00") && (most == 0 || len(levels) <= most)
		name, filter := text, text
		for i, l := range levels {
			if strings.ContainsAny(l, "+#") {
				name = false
				filter = filter && (l == "+" || l == "#" && i == len(levels)-1)
			}
		}
		if err := ValidName(s, Limits{Levels: most}); (err == nil) != name {
			t.Errorf("%q as a name, %d levels: %v", s, most, err)
		}
		if err := ValidFilter(s, Limits{Levels: most}); (err == nil) != filter {
			t.Errorf("%q as a filter, %d levels: %v", s, most, err)
		}
	})
}

// FuzzShare splits shared subscriptions; what is joined again is what was split [MQTT-4.8.2-1] [MQTT-4.8.2-2].
func FuzzShare(f *testing.F) {
	for _, s := range []string{"$share/g/a/b", "$share//a", "$share/g/", "$share/g", "$share", "$share/+/a", "$shared/g/a", "a", "", "$share/g//", "$share/$share/$share/g/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, inner, err := ParseShare(s)
		levels := strings.SplitN(s, "/", 3)
		shared := levels[0] == "$share"
		right := len(levels) == 3 && levels[1] != "" && !strings.ContainsAny(levels[1], "+#") && levels[2] != ""
		switch {
		case (err != nil) != (shared && !right):
			t.Errorf("%q: %v", s, err)
		case err != nil:
		case Share(name, inner) != s, (name != "") != shared:
			t.Errorf("%q is %q and %q", s, name, inner)
		}
	})
}
