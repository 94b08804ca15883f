package docs

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/mqtt.md instead of checking that they are there")

// statement is a normative statement of MQTT, from testdata/mqtt.tsv.
type statement struct {
	id    string   // MQTT-3.1.2-22 is of MQTT 5, MQTT3-3.1.2-24 of MQTT 3.1.1
	binds string   // server, client or both
	same  []string // of MQTT 5, where the code that carries those out carries out this
	says  string   // in our words
	here  string   // what there is to say of it here; "untested: why" excuses that it has no test
	code  []place
	tests []place
}

// place is where a tag is: in a declaration of a file, whose path is from the project's root.
type place struct{ path, name string }

const untested = "untested: "

// mostUntested is how many of the statements that bind a server may have no test.
const mostUntested = 0.05

// TestMQTTPage checks that every normative statement of MQTT that binds a server is carried out where a tag says so,
// and has a test that is tagged with it, and that docs/mqtt.md says where.
func TestMQTTPage(t *testing.T) {
	all := readStatements(t)
	scanTags(t, all)
	binding, without := 0, 0
	for _, s := range all {
		excused := strings.HasPrefix(s.here, untested)
		switch {
		case excused && len(s.tests) > 0:
			t.Errorf("%s has a test: %s says that it has none", s.id, statementsFile)
		case !s.listed():
		case len(s.tests) == 0 && !excused:
			t.Errorf("%s (%s) is in no test function of mqttfront, node, proto or e2e", s.id, s.says)
		case len(s.places(all)) == 0:
			t.Errorf("%s (%s) is tagged nowhere in the code", s.id, s.says)
		}
		if s.binds != "client" {
			binding++
			if excused {
				without++
			}
		}
	}
	if float64(without) > mostUntested*float64(binding) {
		t.Errorf("%d of %d statements have no test, at most %.0f %% may", without, binding, mostUntested*100)
	}
	if t.Failed() && !*update {
		return
	}
	text := read(t, "docs", "mqtt.md")
	before, rest, ok := strings.Cut(text, mqttBegin)
	have, after, ok2 := strings.Cut(rest, mqttEnd)
	if !ok || !ok2 {
		t.Fatalf("docs/mqtt.md lacks a mark: want %q, the tables and %q", mqttBegin, mqttEnd)
	}
	want := mqttTables(all, binding, without)
	switch {
	case have == want:
	case !*update:
		t.Error("docs/mqtt.md does not have the statements as the tags have them: run go test ./docs -run TestMQTTPage -update")
	default:
		if err := os.WriteFile("mqtt.md", []byte(before+mqttBegin+want+mqttEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	statementsFile     = "testdata/mqtt.tsv"
	mqttBegin, mqttEnd = "<!-- statements: made by go test ./docs -run TestMQTTPage -update -->\n", "<!-- end of statements -->\n"
)

// listed reports whether the page has the statement: those that bind a server, and those that we hold clients to.
func (s *statement) listed() bool { return s.binds != "client" || len(s.code) > 0 }

func readStatements(t *testing.T) []*statement {
	text, err := os.ReadFile(filepath.FromSlash(statementsFile))
	if err != nil {
		t.Fatal(err)
	}
	var all []*statement
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n")[1:] {
		f := strings.Split(line, "\t")
		if len(f) != 5 || seen[f[0]] || !tagID.MatchString(f[0]) || !slices.Contains([]string{"server", "client", "both"}, f[1]) || f[3] == "" {
			t.Fatalf("%s: line %d is no statement: %q", statementsFile, i+2, line)
		}
		seen[f[0]] = true
		s := &statement{id: f[0], binds: f[1], same: strings.Fields(f[2]), says: f[3], here: f[4]}
		for _, id := range s.same {
			if !seen[id] || !strings.HasPrefix(id, "MQTT-") {
				t.Fatalf("%s: %s is said to be the same as %s, which is not above it", statementsFile, s.id, id)
			}
		}
		all = append(all, s)
	}
	if len(all) != 251+141 { // appendix B of the two specifications
		t.Fatalf("%s has %d statements", statementsFile, len(all))
	}
	return all
}

var (
	tagID = regexp.MustCompile(`^MQTT3?-\d+\.\d+\.\d+-\d+$`)
	tag   = regexp.MustCompile(`\[(MQTT[^\]\s]*)\]`)
)

// scanTags notes for each statement where it is tagged. In tests only functions that are run as a test count.
func scanTags(t *testing.T, all []*statement) {
	byID := map[string]*statement{}
	for _, s := range all {
		byID[s.id] = s
	}
	files(t, ".go", func(path string) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(root, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, group := range f.Comments {
			for _, c := range group.List {
				for _, m := range tag.FindAllStringSubmatch(c.Text, -1) {
					s, p := byID[m[1]], place{filepath.ToSlash(path), declAt(f, fset, c)}
					switch {
					case s == nil:
						t.Errorf("%s: there is no statement [%s]", fset.Position(c.Pos()), m[1])
					case test && strings.HasPrefix(p.name, "Test"):
						s.tests = addPlace(s.tests, p)
					case test: // what helps tests shows nothing
					default:
						s.code = addPlace(s.code, p)
					}
				}
			}
		}
	})
}

func addPlace(ps []place, p place) []place {
	if slices.Contains(ps, p) {
		return ps
	}
	return append(ps, p)
}

// declAt returns the name of the declaration that a comment belongs to, its doc and its last line included.
func declAt(f *ast.File, fset *token.FileSet, c *ast.Comment) string {
	for _, d := range f.Decls {
		from, to := d.Pos(), fset.File(d.End()).Line(d.End())
		name := ""
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc != nil {
				from = d.Doc.Pos()
			}
			name = d.Name.Name
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
		case *ast.GenDecl:
			if d.Doc != nil {
				from = d.Doc.Pos()
			}
			name = specAt(d, fset, c)
		}
		if from <= c.Pos() && fset.File(c.Pos()).Line(c.Pos()) <= to {
			return name
		}
	}
	return ""
}

// specAt returns the first name of the specification in d that a comment belongs to.
func specAt(d *ast.GenDecl, fset *token.FileSet, c *ast.Comment) (name string) {
	line := fset.File(c.Pos()).Line(c.Pos())
	for _, s := range d.Specs {
		if name != "" && fset.File(s.Pos()).Line(s.Pos()) > line {
			break
		}
		switch s := s.(type) {
		case *ast.ValueSpec:
			name = s.Names[0].Name
		case *ast.TypeSpec:
			name = s.Name.Name
		}
	}
	return name
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// places are where a statement is carried out: where it is tagged, or those are that it is the same as.
func (s *statement) places(all []*statement) (ps []place) {
	ps = slices.Clone(s.code)
	for _, other := range all {
		if slices.Contains(s.same, other.id) {
			for _, p := range other.code {
				ps = addPlace(ps, p)
			}
		}
	}
	slices.SortStableFunc(ps, func(a, b place) int { return cmp.Compare(a.path, b.path) })
	return ps
}

// mqttTables makes the tables.
func mqttTables(all []*statement, binding, without int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d statements bind a server, %d of them have no test yet.\n", binding, without)
	for _, part := range []struct {
		heading, prefix string
		client          bool
	}{
		{"MQTT 5", "MQTT-", false},
		{"MQTT 3.1.1", "MQTT3-", false},
		{"What clients are held to, MQTT 5", "MQTT-", true},
		{"What clients are held to, MQTT 3.1.1", "MQTT3-", true},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| statement | says | carried out in | tested by |\n|---|---|---|---|\n", part.heading)
		for _, s := range all {
			if !s.listed() || !strings.HasPrefix(s.id, part.prefix) || (s.binds == "client") != part.client {
				continue
			}
			says, tests := s.says, links(s.tests)
			switch {
			case strings.HasPrefix(s.here, untested):
				tests = "*not yet: " + strings.TrimPrefix(s.here, untested) + "*"
			case s.here != "":
				says += " *(" + s.here + ")*"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.id[strings.IndexByte(s.id, '-')+1:], says, links(s.places(all)), tests)
		}
	}
	return b.String() + "\n"
}

func links(ps []place) string {
	var all []string
	for _, p := range ps {
		name := p.name
		if name == "" {
			name = filepath.Base(p.path)
		}
		all = append(all, fmt.Sprintf("[`%s`](../%s)", name, p.path))
	}
	return strings.Join(all, ", ")
}
