package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mozzie-mqtt/mozzie/node/strict"
)

// maxFile is far more than a configuration needs, so that a wrong file name does not fill the memory.
const maxFile = 1 << 20

// decoder lays one YAML document over a Config.
type decoder struct{ strict.Decoder }

func decodeFile(file string, text []byte, c *Config) error {
	d := new(decoder)
	d.Decoder = strict.Decoder{File: file, Scalar: d.scalar, Section: isSection, Suggest: suggestKey, Seen: c.setOrigin, Anchors: true}
	return d.Decode(text, c)
}

// scalar decodes a setting that is no list, or an element of one.
func (d *decoder) scalar(key string, n *yaml.Node, into reflect.Value) error {
	if l, ok := into.Addr().Interface().(*Listener); ok && n.Kind == yaml.MappingNode {
		d.listener(key, n, l)
		return nil
	}
	return setScalar(n, into)
}

// listener decodes the long form of a listener. What is said beside the URL beats what is said behind it.
func (d *decoder) listener(key string, n *yaml.Node, into *Listener) {
	long := NewListener("")
	before := len(d.Problems)
	d.Fields(key+".", n, reflect.ValueOf(&long).Elem())
	if len(d.Problems) > before {
		return
	}
	if long.URL == "" {
		d.Addf(n, key, "the listener has no url; %s", listenerWant)
		return
	}
	l, err := parseListener(long.URL)
	if err != nil {
		d.Addf(n, key, "%v", err)
		return
	}
	d.Fields(key+".", n, reflect.ValueOf(&l).Elem())
	l.URL, _, _ = strings.Cut(l.URL, "?")
	*into = l
}

// setScalar sets a field from a YAML scalar. The type must fit as it is written: "1883" in quotes is no
// number, and 7880 without them no address.
func setScalar(n *yaml.Node, into reflect.Value) error {
	if n.Kind != yaml.ScalarNode || strict.IsNull(n) {
		return fmt.Errorf("want %s, not %s", wanted(into), strict.Describe(n))
	}
	var fits bool
	switch into.Interface().(type) {
	case Bytes:
		fits = n.Tag == "!!int" || n.Tag == "!!str"
	case time.Duration:
		fits = true // parseDuration says which unit is missing
	case bool, Choice:
		fits = n.Tag == "!!bool"
	case int:
		fits = n.Tag == "!!int"
	default:
		fits = n.Tag == "!!str"
	}
	if !fits {
		return fmt.Errorf("want %s, not %s", wanted(into), strict.Describe(n))
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
	case *Choice:
		*p, err = parseChoice(s)
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
	case bool, Choice:
		return "true or false"
	case int:
		return "a whole number"
	case Bytes:
		return "a size such as 512KiB"
	case time.Duration:
		return "a time such as 30s"
	case Listener:
		return "a URL, or {url: URL, NAME: VALUE}"
	}
	return "text"
}
