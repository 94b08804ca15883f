package dht

import "testing"

func TestPrefix(t *testing.T) {
	for _, c := range []struct {
		topic  string
		depth  int
		prefix string
		levels int
	}{
		{"a/b/c", 0, "", 0},
		{"a/b/c", 1, "a", 1},
		{"a/b/c", 2, "a/b", 2},
		{"a/b/c", 3, "a/b/c", 3},
		{"a/b/c", 9, "a/b/c", 3},
		{"a", 2, "a", 1},
		{"/a", 1, "", 1},
		{"/a", 2, "/a", 2},
		{"a//b", 2, "a/", 2},
		{"a/", 2, "a/", 2},
	} {
		if p, n := Prefix(c.topic, c.depth); p != c.prefix || n != c.levels {
			t.Errorf("Prefix(%q, %d) = %q, %d; want %q, %d", c.topic, c.depth, p, n, c.prefix, c.levels)
		}
	}
}

func TestRootIsNoTopic(t *testing.T) {
	if Root == Locate("", 1) {
		t.Error("the root and the empty first level have one location")
	}
}
