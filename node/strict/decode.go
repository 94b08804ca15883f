package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Decoder lays one YAML document over a struct whose fields have yaml tags. It goes through the document by itself,
// rather than leave that to package yaml, to know the line of every value and to refuse what it does not know.
//
// Fields are strings, booleans, whole numbers, structs, lists of these, or what Scalar knows.
type Decoder struct {
	File     string
	Problems Problems
	// Scalar decodes a value that is no list, and no section, of a type beyond those above. It returns what is wrong
	// with it. Nil where there are no such types.
	Scalar func(key string, n *yaml.Node, into reflect.Value) error
	// Section reports whether a type that is a struct holds settings rather than being one; nil: every struct does.
	Section func(reflect.Type) bool
	// Suggest says what an unknown key may have been meant to be; nil: Suggest of this package.
	Suggest func(name, prefix string, section reflect.Type) string
	// Seen is told the place of every key and of every element of a list, in the order of the file; nil: nobody is.
	Seen func(key, where string)
	// Anchors allows aliases, each of which stands for as much as its anchor has.
	Anchors bool
}

// Decode decodes a document. A text without one, such as nothing but comments, leaves into as it is. The error is
// d.Problems, or nil.
func (d *Decoder) Decode(text []byte, into any) error {
	documents := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	switch err := documents.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return d.syntax(err)
	}
	if err := documents.Decode(&more); err == nil {
		return Problems{{Where: d.Where(&more), Text: "a second YAML document; there can be one only"}}
	} else if !errors.Is(err, io.EOF) {
		return d.syntax(err)
	}
	d.Fields("", root.Content[0], reflect.ValueOf(into).Elem())
	return d.Problems.Err()
}

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	// yamlParser matches the errors of package yaml's parser, which counts lines from 0; its scanner does from 1.
	yamlParser = regexp.MustCompile(`^(?:did not find expected (?:<|node content$|'-' indicator$|key$|',' or )|found (?:undefined|duplicate|incompatible) )`)
	// yamlWhole matches those of which the line may be where the list or section begins, whatever line of it is wrong.
	yamlWhole = regexp.MustCompile(`(?:indicator|key|[\]}]')$`)
)

// syntax says where the YAML itself is wrong.
func (d *Decoder) syntax(err error) error {
	where, text := d.File, err.Error()
	if m := yamlError.FindStringSubmatch(text); m != nil {
		text = m[2]
		line, _ := strconv.Atoi(m[1]) // none is the first, whoever counts
		if yamlParser.MatchString(text) {
			line++
			if yamlWhole.MatchString(text) {
				text += ", in the list or section around this line"
			}
		}
		where += ":" + strconv.Itoa(max(line, 1))
	}
	return Problems{{Where: where, Text: "not valid YAML: " + text}}
}

// Where returns the place of a node, as FILE:LINE.
func (d *Decoder) Where(n *yaml.Node) string { return d.File + ":" + strconv.Itoa(n.Line) }

// Addf adds a problem with what stands at a node.
func (d *Decoder) Addf(n *yaml.Node, key, format string, args ...any) {
	d.Problems = append(d.Problems, Problem{Where: d.Where(n), Key: key, Text: fmt.Sprintf(format, args...)})
}

func (d *Decoder) seen(key string, n *yaml.Node) {
	if d.Seen != nil {
		d.Seen(key, d.Where(n))
	}
}

// resolve follows an alias to what it stands for. It returns nil where there may be none.
func (d *Decoder) resolve(key string, n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.AliasNode {
		return n
	}
	if !d.Anchors {
		d.Addf(n, strings.TrimSuffix(key, "."), "aliases are not known here: write out what is meant")
		return nil
	}
	return n.Alias
}

// isSection reports whether a type holds settings rather than being one.
func (d *Decoder) isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && (d.Section == nil || d.Section(t))
}

// Fields decodes a mapping into a struct. prefix is its key with a dot, or "".
func (d *Decoder) Fields(prefix string, n *yaml.Node, into reflect.Value) {
	n = d.resolve(prefix, n)
	if n == nil || IsNull(n) {
		return // a section with all its lines commented out
	}
	if n.Kind != yaml.MappingNode {
		d.Addf(n, strings.TrimSuffix(prefix, "."), "want settings (%s), not %s", strings.Join(KeysOf(into.Type()), ", "), Describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		if line, twice := seen[name.Value]; twice {
			d.Addf(name, key, "is set twice, the first time in line %d", line)
			continue
		}
		seen[name.Value] = name.Line
		f := FieldNamed(into, name.Value)
		if !f.IsValid() {
			suggest := d.Suggest
			if suggest == nil {
				suggest = func(name, _ string, section reflect.Type) string { return Suggest(name, KeysOf(section)) }
			}
			d.Addf(name, key, "unknown key; %s", suggest(name.Value, prefix, into.Type()))
			continue
		}
		if d.isSection(f.Type()) {
			d.Fields(key+".", value, f)
			continue
		}
		d.seen(key, name)
		d.leaf(key, value, f)
	}
}

// leaf decodes a scalar or a list.
func (d *Decoder) leaf(key string, n *yaml.Node, into reflect.Value) {
	if n = d.resolve(key, n); n == nil {
		return
	}
	if into.Kind() != reflect.Slice {
		if err := d.scalar(key, n, into); err != nil {
			d.Addf(n, key, "%v", err)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.Addf(n, key, "want a list (\"- ...\" in lines of their own, or [a, b]), not %s", Describe(n))
		return
	}
	list := reflect.MakeSlice(into.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		if e = d.resolve(at, e); e == nil {
			continue
		}
		d.seen(at, e)
		if d.isSection(list.Index(i).Type()) {
			d.Fields(at+".", e, list.Index(i))
		} else if err := d.scalar(at, e, list.Index(i)); err != nil {
			d.Addf(e, at, "%v", err)
		}
	}
	into.Set(list)
}

// scalar sets a field from a YAML scalar. The type must fit as it is written: "1883" in quotes is no number, and 7880
// without them no text.
func (d *Decoder) scalar(key string, n *yaml.Node, into reflect.Value) error {
	if d.Scalar != nil {
		return d.Scalar(key, n, into)
	}
	want, tag := "text", "!!str"
	switch into.Kind() {
	case reflect.Bool:
		want, tag = "true or false", "!!bool"
	case reflect.Int:
		want, tag = "a whole number", "!!int"
	}
	if n.Kind != yaml.ScalarNode || n.Tag != tag {
		return fmt.Errorf("want %s, not %s", want, Describe(n))
	}
	switch into.Kind() {
	case reflect.String:
		into.SetString(n.Value)
		return nil
	case reflect.Bool:
		into.SetBool(n.Value == "true")
		if n.Value != "true" && n.Value != "false" {
			return fmt.Errorf("want true or false, not %q", n.Value)
		}
		return nil
	case reflect.Int:
		i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 0)
		if err != nil {
			return fmt.Errorf("want a whole number, not %q", n.Value)
		}
		into.SetInt(i)
		return nil
	}
	panic("strict: a field of type " + into.Type().String() + " cannot be set")
}

// Describe says what a YAML node is, to a person.
func Describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case IsNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return strconv.Quote(n.Value)
	case n.Tag == "!!int", n.Tag == "!!float":
		return "the number " + n.Value
	}
	return n.Value
}

// IsNull reports whether a node is no value at all.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
