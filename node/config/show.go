package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

//go:embed config.go
var source string

// Show writes the configuration as a YAML file that says of each key what it does and where its value comes
// from. It is a configuration itself, but for secrets, which are masked.
func (c *Config) Show() string {
	w := &showWriter{config: c, docs: docs()}
	w.section("", reflect.ValueOf(c).Elem(), 0)
	return w.String()
}

type showWriter struct {
	strings.Builder
	config *Config
	docs   map[string]string
}

func (w *showWriter) section(prefix string, v reflect.Value, depth int) {
	indent := strings.Repeat("  ", depth)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		if depth == 0 && i > 0 {
			w.WriteByte('\n')
		}
		for line := range strings.Lines(w.docs[v.Type().Name()+"."+f.Name]) {
			fmt.Fprintf(w, "%s# %s\n", indent, strings.TrimSuffix(line, "\n"))
		}
		if isSection(f.Type) {
			fmt.Fprintf(w, "%s%s:\n", indent, name)
			w.section(prefix+name+".", v.Field(i), depth+1)
			continue
		}
		where := w.config.origins[prefix+name]
		if where == "" {
			where = "default"
		}
		w.leaf(indent, name, where, v.Field(i))
	}
}

func (w *showWriter) leaf(indent, name, where string, v reflect.Value) {
	if v.Kind() != reflect.Slice {
		fmt.Fprintf(w, "%s%s: %s # %s\n", indent, name, scalar(v), where)
		return
	}
	if v.Len() == 0 {
		fmt.Fprintf(w, "%s%s: [] # %s\n", indent, name, where)
		return
	}
	fmt.Fprintf(w, "%s%s: # %s\n", indent, name, where)
	for i := range v.Len() {
		if l, ok := v.Index(i).Interface().(Listener); ok {
			w.listener(indent, l)
			continue
		}
		fmt.Fprintf(w, "%s  - %s\n", indent, scalar(v.Index(i)))
	}
}

// listener writes a listener: its URL alone, or the long form with what is not as it is by default.
func (w *showWriter) listener(indent string, l Listener) {
	options := l.changed()
	if len(options) == 0 {
		fmt.Fprintf(w, "%s  - %s\n", indent, quote(l.URL))
		return
	}
	fmt.Fprintf(w, "%s  - url: %s\n", indent, quote(l.URL))
	for _, o := range options {
		if o.value.Kind() != reflect.Slice {
			fmt.Fprintf(w, "%s    %s: %s\n", indent, o.key, scalar(o.value))
			continue
		}
		all := make([]string, o.value.Len())
		for i := range all {
			all[i] = strconv.Quote(o.value.Index(i).String())
		}
		fmt.Fprintf(w, "%s    %s: [%s]\n", indent, o.key, strings.Join(all, ", "))
	}
}

// scalar writes one value as YAML.
func scalar(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case bool:
		return strconv.FormatBool(x)
	case Choice:
		return strconv.FormatBool(x == Yes)
	case int:
		return strconv.Itoa(x)
	case Bytes:
		return x.String()
	case time.Duration:
		return formatDuration(x)
	case Listener:
		return quote(x.URL)
	case Secret:
		return quote(x.String())
	}
	return quote(v.String())
}

// quote puts text into quotes where YAML needs them.
func quote(s string) string {
	b, err := yaml.Marshal(s)
	if err != nil || strings.Contains(s, "\n") {
		return strconv.Quote(s)
	}
	return strings.TrimSuffix(string(b), "\n")
}

// docs returns the comments of the fields, by "Type.Field", from this package's own source: what is written
// there once is what people read.
func docs() map[string]string {
	m := map[string]string{}
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments)
	if err != nil {
		return m // cannot happen: the compiler has read the same file
	}
	ast.Inspect(file, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := t.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					m[t.Name.Name+"."+name.Name] = strings.TrimSpace(f.Doc.Text())
				}
			}
		}
		return false
	})
	return m
}
