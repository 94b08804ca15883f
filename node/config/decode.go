package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxFile is far more than a configuration needs, so that a wrong file name does not fill the memory.
const maxFile = 1 << 20

// decoder lays one YAML document over a Config. It goes through the document by itself, rather than leave
// that to package yaml, to know the line of every value and to refuse what it does not know.
type decoder struct {
	file     string
	config   *Config
	problems Problems
}

func decodeFile(file string, text []byte, c *Config) error {
	d := &decoder{file: file, config: c}
	documents := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	switch err := documents.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments
	case err != nil:
		return d.syntax(err)
	}
	if err := documents.Decode(&more); err == nil {
		return Problems{{Where: d.where(&more), Text: "a second YAML document; a configuration is one"}}
	} else if !errors.Is(err, io.EOF) {
		return d.syntax(err)
	}
	d.section("", root.Content[0], reflect.ValueOf(c).Elem())
	return d.problems.err()
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax says where the YAML itself is wrong.
func (d *decoder) syntax(err error) error {
	where, text := d.file, err.Error()
	if m := yamlError.FindStringSubmatch(text); m != nil {
		text = m[2]
		if m[1] != "" {
			where += ":" + m[1]
		}
	}
	return Problems{{Where: where, Text: "not valid YAML: " + text}}
}

func (d *decoder) where(n *yaml.Node) string { return d.file + ":" + strconv.Itoa(n.Line) }

func (d *decoder) addf(n *yaml.Node, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Where: d.where(n), Key: key, Text: fmt.Sprintf(format, args...)})
}

// section decodes a mapping into a struct. prefix is its key with a dot, or "".
func (d *decoder) section(prefix string, n *yaml.Node, into reflect.Value) {
	n = resolve(n)
	if isNull(n) {
		return // a section with all its lines commented out
	}
	if n.Kind != yaml.MappingNode {
		d.addf(n, strings.TrimSuffix(prefix, "."), "want settings (%s), not %s", strings.Join(keysOf(into.Type()), ", "), describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		if line, twice := seen[name.Value]; twice {
			d.addf(name, key, "is set twice, the first time in line %d", line)
			continue
		}
		seen[name.Value] = name.Line
		f := fieldNamed(into, name.Value)
		if !f.IsValid() {
			d.addf(name, key, "unknown key; %s", suggestKey(name.Value, prefix, into.Type()))
			continue
		}
		if isSection(f.Type()) {
			d.section(key+".", value, f)
			continue
		}
		d.config.setOrigin(key, d.where(name))
		d.leaf(key, value, f)
	}
}

// leaf decodes a scalar or a list.
func (d *decoder) leaf(key string, n *yaml.Node, into reflect.Value) {
	n = resolve(n)
	if into.Kind() != reflect.Slice {
		if err := setScalar(n, into); err != nil {
			d.addf(n, key, "%v", err)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.addf(n, key, "want a list (\"- ...\" in lines of their own, or [a, b]), not %s", describe(n))
		return
	}
	list := reflect.MakeSlice(into.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		e = resolve(e)
		at := fmt.Sprintf("%s[%d]", key, i)
		d.config.setOrigin(at, d.where(e))
		if l, ok := list.Index(i).Addr().Interface().(*Listener); ok && e.Kind == yaml.MappingNode {
			d.listener(at, e, l)
		} else if err := setScalar(e, list.Index(i)); err != nil {
			d.addf(e, at, "%v", err)
		}
	}
	into.Set(list)
}

// listener decodes the long form of a listener.
func (d *decoder) listener(key string, n *yaml.Node, into *Listener) {
	long := struct {
		URL       string `yaml:"url"`
		Anonymous bool   `yaml:"anonymous"`
	}{}
	before := len(d.problems)
	d.section(key+".", n, reflect.ValueOf(&long).Elem())
	if len(d.problems) > before {
		return
	}
	if long.URL == "" {
		d.addf(n, key, "the listener has no url; %s", listenerWant)
		return
	}
	l, err := parseListener(long.URL)
	if err != nil {
		d.addf(n, key, "%v", err)
	}
	l.Anonymous = l.Anonymous || long.Anonymous
	*into = l
}

// setScalar sets a field from a YAML scalar. The type must fit as it is written: "1883" in quotes is no
// number, and 7880 without them no address.
func setScalar(n *yaml.Node, into reflect.Value) error {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return fmt.Errorf("want %s, not %s", wanted(into), describe(n))
	}
	var fits bool
	switch into.Interface().(type) {
	case Bytes:
		fits = n.Tag == "!!int" || n.Tag == "!!str"
	case time.Duration:
		fits = true // parseDuration says which unit is missing
	case bool:
		fits = n.Tag == "!!bool"
	case int:
		fits = n.Tag == "!!int"
	default:
		fits = n.Tag == "!!str"
	}
	if !fits {
		return fmt.Errorf("want %s, not %s", wanted(into), describe(n))
	}
	return setText(n.Value, into)
}

// setText sets a field that is no list from text: a scalar, an environment variable or a flag.
func setText(s string, into reflect.Value) error {
	var err error
	switch p := into.Addr().Interface().(type) {
	case *string:
		*p = s
	case *Secret:
		*p = Secret(strings.TrimSpace(s))
	case *bool:
		*p, err = parseBool(s)
	case *int:
		var n int64
		n, err = strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 0, 0)
		if err != nil {
			err = fmt.Errorf("want a whole number, not %q", s)
		}
		*p = int(n)
	case *Bytes:
		*p, err = parseBytes(s)
	case *time.Duration:
		*p, err = parseDuration(s)
	case *Listener:
		*p, err = parseListener(s)
	default:
		panic("config: a field of type " + into.Type().String() + " cannot be set")
	}
	return err
}

// wanted describes the type of a field to a person.
func wanted(v reflect.Value) string {
	switch v.Interface().(type) {
	case bool:
		return "true or false"
	case int:
		return "a whole number"
	case Bytes:
		return "a size such as 512KiB"
	case time.Duration:
		return "a time such as 30s"
	case Listener:
		return "a URL, or {url: URL, anonymous: true}"
	}
	return "text"
}

// describe says what a YAML node is, to a person.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return strconv.Quote(n.Value)
	case n.Tag == "!!int", n.Tag == "!!float":
		return "the number " + n.Value
	}
	return n.Value
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
