package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// page is what people read about the configuration. What is between its marks is made from this package.
var page = filepath.Join("..", "..", "docs", "configuration.md")

const beginMark, endMark = "<!-- settings: made by go test ./node/config -update -->\n", "<!-- end of settings -->\n"

var update = flag.Bool("update", false, "write the settings into docs/configuration.md instead of checking that they are there")

// TestPage checks that docs/configuration.md has every setting, as the code has it.
func TestPage(t *testing.T) {
	text := readPage(t)
	before, rest, ok := strings.Cut(text, beginMark)
	have, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		t.Fatalf("%s lacks a mark: want %q, the settings and %q", page, beginMark, endMark)
	}
	want := "\n" + settings(t) + "\n"
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("%s does not have the settings as the code has them: run go test ./node/config -run TestPage -update", page)
	}
	if err := os.WriteFile(page, []byte(before+beginMark+want+endMark+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPageExamples checks that the YAML examples in docs/configuration.md are configurations.
func TestPageExamples(t *testing.T) {
	_, rest, found := strings.Cut(readPage(t), "```yaml\n")
	if !found {
		t.Fatalf("%s has no example in YAML", page)
	}
	for n := 1; found; n++ {
		var example string
		example, rest, _ = strings.Cut(rest, "```\n")
		if _, err := Load(Sources{File: write(t, example), Env: []string{"HOME=/home/me"}}); err != nil {
			t.Errorf("example %d: %v\n%s", n, err, example)
		}
		_, rest, found = strings.Cut(rest, "```yaml\n")
	}
}

// TestEnvironmentIsOurs checks that whatever begins with MOZZIE_ in the project, in scripts and tests too, is the
// environment variable of a setting: nodes refuse to start with any other.
func TestEnvironmentIsOurs(t *testing.T) {
	c := Default()
	known := map[string]bool{"MOZZIE_CONFIG": true, "MOZZIE_ADMIN_TOKEN": true}
	for _, l := range leaves(&c) {
		known[envName(l.key)] = true
	}
	root := filepath.Join("..", "..")
	refusals := []string{filepath.Join("node", "config", "config_test.go"), filepath.Join("cmd", "mozzie", "testdata", "config.txtar")}
	names := regexp.MustCompile(`\bMOZZIE_[A-Z0-9_]+\b`)
	read := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular() || slices.Contains(refusals, rel):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read++
		for _, name := range names.FindAllString(string(text), -1) {
			if !known[name] {
				t.Errorf("%s has %s, which no setting is called by: a node with it in its environment does not start", rel, name)
			}
		}
		return nil
	})
	if err != nil || read < 100 {
		t.Fatalf("%d files read: %v", read, err)
	}
}

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings describes every key in Markdown.
func settings(t *testing.T) string {
	c := Default()
	p := &pageWriter{flags: flagsOf(t), docs: docs()}
	p.section("", reflect.ValueOf(&c).Elem())
	for key, flag := range p.flags {
		t.Errorf("--%s sets %s, which is no key", flag, key)
	}
	return strings.TrimSpace(p.String()) + "\n"
}

type pageWriter struct {
	strings.Builder
	flags map[string]string // by key; those that were written are taken out
	docs  map[string]string
}

func (p *pageWriter) section(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, doc := prefix+f.Tag.Get("yaml"), p.docs[v.Type().Name()+"."+f.Name]
		switch {
		case f.Tag.Get("yaml") == "":
		case isSection(f.Type):
			fmt.Fprintf(p, "\n### %s\n\n%s\n\n", key, doc)
			p.section(key+".", v.Field(i))
			if f.Type == reflect.TypeFor[MQTT]() {
				p.listener()
			}
		default:
			p.key(key, doc, v.Field(i))
		}
	}
}

func (p *pageWriter) key(key, doc string, v reflect.Value) {
	fmt.Fprintf(p, "- **`%s`**, `%s`", key, envName(key))
	if flag := p.flags[key]; flag != "" {
		fmt.Fprintf(p, ", `--%s`", flag)
		delete(p.flags, key)
	}
	fmt.Fprintf(p, ". %s.\n", standard(key, v))
	for line := range strings.Lines(doc) {
		p.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
	}
}

// listener describes what can be said of a listener.
func (p *pageWriter) listener() {
	fmt.Fprintf(p, "\n#### Rules of a listener\n\nWhat can be said of a listener, beside its URL:\n\n")
	l := NewListener("")
	v := reflect.ValueOf(l)
	for i := 1; i < v.NumField(); i++ {
		f := v.Type().Field(i)
		usual := standard("", v.Field(i))
		if f.Type == reflect.TypeFor[Choice]() {
			usual = "Default: as it is said here"
		}
		fmt.Fprintf(p, "- **`%s`**. %s.\n", f.Tag.Get("yaml"), usual)
		for line := range strings.Lines(p.docs["Listener."+f.Name]) {
			p.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
}

// standard says what the default of a key is.
func standard(key string, v reflect.Value) string {
	switch {
	case key == "data":
		return "Default: see [Where files are](#where-files-are)"
	case v.Kind() == reflect.Slice && v.Len() == 0, v.Kind() != reflect.Slice && scalar(v) == `""`:
		return "Default: none"
	case v.Kind() != reflect.Slice:
		return "Default: `" + scalar(v) + "`"
	}
	var all []string
	for i := range v.Len() {
		all = append(all, "`"+scalar(v.Index(i))+"`")
	}
	return "Default: " + strings.Join(all, ", ")
}

// flagsOf returns the flags that set a key, by key, from the source of the program.
func flagsOf(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "cmd", "mozzie", "settings.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		if kind, ok := lit.Type.(*ast.Ident); ok && kind.Name == "settingFlag" {
			if fields := stringsOf(lit); fields["name"] != "" && fields["key"] != "" {
				flags[fields["key"]] = fields["name"]
			}
		}
		return true
	})
	if len(flags) == 0 {
		t.Fatal("no settingFlag in cmd/mozzie/settings.go: have the flags moved?")
	}
	return flags
}

// stringsOf returns the fields of a composite literal that are string literals.
func stringsOf(lit *ast.CompositeLit) map[string]string {
	m := map[string]string{}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, isIdent := kv.Key.(*ast.Ident)
		value, isLit := kv.Value.(*ast.BasicLit)
		if !isIdent || !isLit || value.Kind != token.STRING {
			continue
		}
		if s, err := strconv.Unquote(value.Value); err == nil {
			m[key.Name] = s
		}
	}
	return m
}
