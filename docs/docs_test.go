// Package docs holds what people read to what is there: every dependency has its line, and the tests, metrics and
// files that a page names exist. docs/configuration.md is checked in node/config.
package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

func read(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files visits the files of the project with an extension, by their paths from its root.
func files(t *testing.T, ext string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ext):
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			visit(rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pages are the files in Markdown, with their texts.
func pages(t *testing.T) map[string]string {
	all := map[string]string{}
	files(t, ".md", func(path string) { all[path] = read(t, path) })
	return all
}

// TestDependencies checks that docs/dependencies.md has a line for each module that is imported, and for no other;
// those that only tests import in the table of their own. go.mod's "// indirect" is not relied on.
func TestDependencies(t *testing.T) {
	required := regexp.MustCompile(`(?m)^\s*(?:require )?(\S+\.\S+/?\S*) v\S+`).FindAllStringSubmatch(read(t, "go.mod"), -1)
	inProgram, inTests := map[string]bool{}, map[string]bool{}
	files(t, ".go", func(path string) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			imported := strings.Trim(i.Path.Value, `"`)
			module := ""
			for _, r := range required {
				if (imported == r[1] || strings.HasPrefix(imported, r[1]+"/")) && len(r[1]) > len(module) {
					module = r[1]
				}
			}
			switch {
			case module == "":
			case strings.HasSuffix(path, "_test.go"):
				inTests[module] = true
			default:
				inProgram[module] = true
			}
		}
	})
	if len(inProgram) < 5 {
		t.Fatalf("only %d modules found: is the test still right?", len(inProgram))
	}
	maps.DeleteFunc(inTests, func(m string, _ bool) bool { return inProgram[m] })

	program, tests, ok := strings.Cut(read(t, "docs", "dependencies.md"), "\n## In the tests only\n")
	if !ok {
		t.Fatal("docs/dependencies.md has no section of what is in the tests only")
	}
	for _, c := range []struct {
		where, text string
		want        map[string]bool
	}{{"in the program", program, inProgram}, {"in the tests only", tests, inTests}} {
		have := map[string]bool{}
		for _, line := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\| [^|]{20,} \\|$").FindAllStringSubmatch(c.text, -1) {
			have[line[1]] = true
		}
		for _, m := range slices.Sorted(maps.Keys(c.want)) {
			if !have[m] {
				t.Errorf("%s is imported %s, and docs/dependencies.md has no line with a reason for it there", m, c.where)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(have)) {
			if !c.want[m] {
				t.Errorf("docs/dependencies.md has %s %s, where nobody imports it", m, c.where)
			}
		}
	}
}

// TestNames checks that the tests and metrics that a page names exist.
func TestNames(t *testing.T) {
	tests, metrics := map[string]bool{}, map[string]bool{}
	files(t, "_test.go", func(path string) {
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
			tests[m[1]] = true
		}
	})
	for _, name := range metricsOf(t) {
		metrics[name] = true
	}
	for path, text := range pages(t) {
		for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names the test %s, which is nowhere", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`(mozzie_\\w+)").FindAllStringSubmatch(text, -1) {
			if !metrics[m[1]] {
				t.Errorf("%s names the metric %s, which node/metrics.go does not have", path, m[1])
			}
		}
	}
}

// metricsOf returns the names of the metrics in node/metrics.go.
func metricsOf(t *testing.T) (all []string) {
	for _, m := range regexp.MustCompile(`\{"([a-z]\w+)", "`).FindAllStringSubmatch(read(t, "node", "metrics.go"), -1) {
		all = append(all, "mozzie_"+m[1])
	}
	return all
}

// TestMetricsPage checks that docs/metrics.md has every metric, with every cause that its counts are split by.
func TestMetricsPage(t *testing.T) {
	page := read(t, "docs", "metrics.md")
	names := metricsOf(t)
	if len(names) < 40 {
		t.Fatalf("only %d metrics found: is the test still right?", len(names))
	}
	for _, m := range regexp.MustCompile(`"(\w+)":\s+\w+\.\w+`).FindAllStringSubmatch(read(t, "node", "metrics.go"), -1) {
		names = append(names, m[1])
	}
	for _, name := range names {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
}

// TestLinks checks that links within the project lead somewhere, to headings too.
func TestLinks(t *testing.T) {
	all := pages(t)
	for path, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
				continue
			}
			if heading != "" && !slices.Contains(headings(all[to]), heading) {
				t.Errorf("%s links to %s, where there is no such heading", path, m[1])
			}
		}
	}
}

// headings returns the anchors of a page's headings, as code hosts make them.
func headings(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(anchor, " ", "-"))
	}
	return all
}

// TestFiles checks that the files of the project that a page names in code marks exist: FOLDER/FILE.go.
func TestFiles(t *testing.T) {
	for path, text := range pages(t) {
		for _, m := range regexp.MustCompile("`([\\w.-]+(?:/[\\w.-]+)+\\.(?:go|proto|md))`").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", path, m[1])
			}
		}
	}
}
