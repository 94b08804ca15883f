package strict

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type inner struct {
	Text  string   `yaml:"text"`
	Names []string `yaml:"names"`
}

type outer struct {
	Yes   bool    `yaml:"yes_or_no"`
	Many  int     `yaml:"many"`
	One   inner   `yaml:"one"`
	Lists []inner `yaml:"lists"`
	Not   string  // has no key
}

func TestDecode(t *testing.T) {
	var o outer
	seen := map[string]string{}
	d := &Decoder{File: "f", Seen: func(key, where string) { seen[key] = where }}
	err := d.Decode([]byte("# only a comment\nyes_or_no: true\nmany: 1_000\none:\n  text: a\nlists:\n  - text: b\n    names: [x, y]\n  - {}\n"), &o)
	want := outer{Yes: true, Many: 1000, One: inner{Text: "a"}, Lists: []inner{{Text: "b", Names: []string{"x", "y"}}, {}}}
	if err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, %v", o, err)
	}
	for key, where := range map[string]string{"many": "f:3", "one.text": "f:5", "lists[1]": "f:9", "lists[0].names[1]": "f:8"} {
		if seen[key] != where {
			t.Errorf("%s is at %s, want %s", key, seen[key], where)
		}
	}
	if err := (&Decoder{}).Decode([]byte("# nothing\n"), &o); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"many: x":                        `f:1: many: want a whole number, not "x"`,
		"many: 99999999999999999999":     "f:1: many: want a whole number",
		"yes_or_no: yes":                 `want true or false, not "yes"`,
		"one: 3":                         "f:1: one: want settings (text, names), not the number 3",
		"one:\n  txt: a":                 "f:2: one.txt: unknown key; did you mean text?",
		"one:\n  colour: a":              "f:2: one.colour: unknown key; known here: text, names",
		"many: 1\nmany: 2":               "f:2: many: is set twice, the first time in line 1",
		"one: {names: a}":                "f:1: one.names: want a list",
		"one: {text: [a]}":               "f:1: one.text: want text, not a list",
		"one: {names: [[a]]}":            "f:1: one.names[0]: want text, not a list",
		"one: &a {text: x}\nlists: [*a]": "f:2: lists[0]: aliases are not known here",
		"many: 1\n---\nmany: 2":          "f:2: a second YAML document",
		"\tx":                            "f:1: not valid YAML",
		"many: 7\none: {text: [a":        "f:2: not valid YAML: did not find expected ',' or ']', in the list or section around this line",
		"many: 7\nlists:\n- {}\nx\n":     "f:4: not valid YAML: could not find expected ':'",
		"many: 7\nlists:\n  - {}\n x: 1": "f:4: not valid YAML: did not find expected key, in the list or section around this line",
		"many: [7\n":                     "f:2: not valid YAML: did not find expected ',' or ']', in the list or section around this line",
		"many: 7\none: @":                "f:2: not valid YAML: found character that cannot start any token",
		"Not: x":                         "f:1: Not: unknown key",
		"- a":                            "f:1: want settings",
	} {
		var o outer
		if err := (&Decoder{File: "f"}).Decode([]byte(text), &o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	var o outer
	if err := (&Decoder{Anchors: true}).Decode([]byte("one: &a {text: x}\nlists: [*a]"), &o); err != nil || o.Lists[0].Text != "x" {
		t.Errorf("with anchors: %+v, %v", o, err)
	}
}

// TestProblems: a file of another kind does not make a page of errors.
func TestProblems(t *testing.T) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "key%d: x\n", i)
	}
	err := (&Decoder{File: "f"}).Decode([]byte(text.String()), new(outer))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxShown+1 || lines[maxShown] != "and 950 more" {
		t.Errorf("%d lines", len(lines))
	}
}

// FuzzDecode: whatever stands there, it is decoded or refused with a place.
func FuzzDecode(f *testing.F) {
	f.Add("yes_or_no: true\nmany: 7\none: {text: a, names: [b]}\nlists: [{text: c}]\n")
	f.Add("one: &a {text: *a}\nlists: [*a, ~]\n? [x]\n: y\n<<: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		var o outer
		if err := (&Decoder{File: "f"}).Decode([]byte(text), &o); err != nil && !strings.HasPrefix(err.Error(), "f") {
			t.Errorf("%q: %v", text, err)
		}
	})
}
