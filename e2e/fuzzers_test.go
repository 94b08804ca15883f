package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fuzzTarget is a function that fuzzes a decoder.
type fuzzTarget struct {
	dir, name string
	adds      bool // it has seeds of its own
}

// fuzzTargets finds all of them by parsing the project's tests, and the folders where inputs for them are kept.
func fuzzTargets(t *testing.T) (all []fuzzTarget, kept []string) {
	t.Helper()
	files := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() != ".." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() && strings.HasPrefix(d.Name(), "Fuzz"):
			kept = append(kept, filepath.ToSlash(path))
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
				dir, err := filepath.Rel("..", filepath.Dir(path))
				if err != nil {
					return err
				}
				all = append(all, fuzzTarget{filepath.ToSlash(dir), f.Name.Name, addsSeeds(f)})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, kept
}

// addsSeeds reports whether a fuzz target calls Add.
func addsSeeds(f *ast.FuncDecl) (adds bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Add" {
			adds = true
		}
		return true
	})
	return adds
}

// TestFuzzTargets: every fuzz target has seeds, and is among those that .ci/fuzz runs, in CI and for "make nightly".
// That the seeds are more than one is checked by .ci/fuzz, which runs them.
func TestFuzzTargets(t *testing.T) {
	out, err := exec.Command("../.ci/fuzz", "-l").Output()
	if err != nil {
		t.Fatalf(".ci/fuzz -l: %v", err)
	}
	runs := strings.Split(strings.TrimSpace(string(out)), "\n")
	all, kept := fuzzTargets(t)
	known := map[string]bool{}
	for _, f := range all {
		known["../"+f.dir+"/testdata/fuzz/"+f.name] = true
		if !slices.Contains(runs, f.dir+" "+f.name) {
			t.Errorf("%s in %s is not run by .ci/fuzz", f.name, f.dir)
		}
		corpus, err := filepath.Glob(filepath.Join("..", f.dir, "testdata", "fuzz", f.name, "*"))
		if err != nil || !f.adds && len(corpus) == 0 {
			t.Errorf("%s in %s has no seeds: add some with f.Add (%v)", f.name, f.dir, err)
		}
	}
	if len(runs) != len(all) {
		t.Errorf("%d targets, .ci/fuzz runs %d", len(all), len(runs))
	}
	for _, dir := range kept { // what a fuzzer once failed on is kept for one that is still there
		if !known[dir] {
			t.Errorf("%s: there is no such fuzz target", dir)
		}
	}
	for _, file := range []string{"../.ci/run", "../Makefile"} {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), ".ci/fuzz") {
			t.Errorf("%s does not run .ci/fuzz (%v)", file, err)
		}
	}
}
