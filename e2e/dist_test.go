package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// built is what "make dist" has built: the programs and packages that the tests of installing install. DIST names the
// folder; without it there is nothing to test, and "make packages", which CI runs, sets it.
type built struct {
	dir                     string
	version, debian, commit string // what it was built with: VERSION, DEB_VERSION, SOURCE_DATE_EPOCH
}

func distribution(t *testing.T) built {
	t.Helper()
	long(t)
	dir := os.Getenv("DIST")
	if dir == "" {
		t.Skip(`it tests what "make dist" builds: "make packages" runs it`)
	}
	if !filepath.IsAbs(dir) { // as seen from the top of the project
		var err error
		if dir, err = filepath.Abs(filepath.Join("..", dir)); err != nil {
			t.Fatal(err)
		}
	}
	d := built{dir: dir}
	for line := range strings.Lines(d.read(t, "BUILD")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "VERSION":
			d.version = value
		case "DEB_VERSION":
			d.debian = value
		case "SOURCE_DATE_EPOCH":
			d.commit = value
		}
	}
	if d.version == "" || d.debian == "" || d.commit == "" {
		t.Fatalf("%s says %+v", filepath.Join(dir, "BUILD"), d)
	}
	return d
}

func (d built) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (d built) program(target string) string { return filepath.Join(d.dir, "mozzie-linux-"+target) }

// build builds some targets elsewhere, from the source in a folder.
func (d built) build(t *testing.T, source, out string, env []string, targets ...string) built {
	t.Helper()
	c := exec.Command(filepath.Join(source, "deploy", "build"), append([]string{out}, targets...)...)
	c.Env = append(append(os.Environ(), "VERSION="+d.version, "DEB_VERSION="+d.debian, "SOURCE_DATE_EPOCH="+d.commit), env...)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("deploy/build: %v\n%s", err, text)
	}
	d.dir = out
	return d
}

// TestReproducible builds again what was built before: from a copy of the source in another folder, without git, by
// somebody with another home, language, time zone and umask, and with nothing compiled before. It must come out the
// same to the byte. With NIGHTLY=1 that is all of it, else what is for amd64.
func TestReproducible(t *testing.T) {
	d := distribution(t)
	source := filepath.Join(t.TempDir(), "elsewhere", "source of mozzie")
	list, err := exec.Command("git", "-C", "..", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		from, to := filepath.Join("..", name), filepath.Join(source, name)
		info, err := os.Stat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted, or a link to what is not ours
		}
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, text, info.Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	targets := []string{"amd64"}
	if os.Getenv("NIGHTLY") != "" {
		targets = []string{"armv6", "armv7", "arm64", "amd64"}
	}
	modules, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	nfpm, err := exec.Command("go", "-C", "..", "tool", "-modfile=tools/nfpm.mod", "-n", "nfpm").Output() // what compiles may be new, what packs need not
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	again := d.build(t, source, filepath.Join(t.TempDir(), "out"), []string{"HOME=" + home, "GOCACHE=" + filepath.Join(home, "cache"),
		"GOMODCACHE=" + strings.TrimSpace(string(modules)), "NFPM=" + strings.TrimSpace(string(nfpm)), "LANG=C.UTF-8", "TZ=Asia/Tokyo", "GOFLAGS=-buildvcs=true", "GIT_DIR=/nowhere"}, targets...)
	before := strings.Split(d.read(t, "SHA256SUMS"), "\n")
	sums := strings.Split(strings.TrimSpace(again.read(t, "SHA256SUMS")), "\n")
	if len(sums) < 2 {
		t.Errorf("built: %q", sums)
	}
	for _, sum := range sums {
		if !slices.Contains(before, sum) {
			t.Errorf("another came out: %s\nbefore:\n%s", sum, strings.Join(before, "\n"))
		}
	}
}

// TestStatic checks that the programs need nothing of the system that they are put on, and say what they are.
func TestStatic(t *testing.T) {
	d := distribution(t)
	for _, target := range []string{"armv6", "armv7", "arm64", "amd64"} {
		out, err := exec.Command("go", "version", "-m", d.program(target)).Output()
		if err != nil {
			t.Fatal(err)
		}
		text := string(out)
		if !strings.Contains(text, "CGO_ENABLED=0") || !strings.Contains(text, "-trimpath=true") || strings.Contains(text, "vcs.") {
			t.Errorf("%s: %s", target, text)
		}
		// Linking says nothing of a name that is not there.
		if program := d.read(t, "mozzie-linux-"+target); !strings.Contains(program, d.commit) {
			t.Errorf("%s does not know that it is from %s, by which it judges a machine's clock", target, d.commit)
		}
		if number, ok := strings.CutPrefix(target, "armv"); ok && !strings.Contains(text, "GOARM="+number+"\n") {
			t.Errorf("%s: %s", target, text)
		}
	}
	out, err := exec.Command(d.program("amd64"), "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "mozzie "+d.version+" (") {
		t.Errorf("version %s: %q, %v", d.version, out, err)
	}
	c := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	c.Dir = d.dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("SHA256SUMS: %v\n%s", err, out)
	}
}

// TestDebianVersion checks that the versions of packages sort as the versions of the program do, as dpkg sees it.
func TestDebianVersion(t *testing.T) {
	long(t)
	need(t, "dpkg")
	var all []string
	for _, c := range []struct{ version, date, want string }{
		{"g0ne", "1000000000", "0~20010909014640.g0ne"}, // before the first tag
		{"1234567", "1700000000", "0~20231114221320.1234567"},
		{"7654321-dirty", "1700000001", "0~20231114221321.7654321+dirty"},
		{"v0.1.0-rc.1", "1700000002", "0.1.0~rc.1"},
		{"v0.1.0-rc.1-3-g1234567", "1700000003", "0.1.0~rc.1+3.g1234567"},
		{"v0.1.0", "1700000004", "0.1.0"},
		{"v0.1.0-9-g1234567", "1700000005", "0.1.0+9.g1234567"},
		{"v0.1.0-10-g1234567", "1700000006", "0.1.0+10.g1234567"},
		{"v0.1.0-10-g1234567-dirty", "1700000006", "0.1.0+10.g1234567+dirty"},
		{"v0.1.1", "1700000007", "0.1.1"},
		{"v0.10.0", "1700000008", "0.10.0"},
	} {
		build := exec.Command("../deploy/build", "--print-version")
		build.Env = append(os.Environ(), "VERSION="+c.version, "SOURCE_DATE_EPOCH="+c.date, "DEB_VERSION=")
		out, err := build.Output()
		got := strings.TrimSpace(string(out))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.version, got, err, c.want)
		}
		for _, before := range all {
			if err := exec.Command("dpkg", "--compare-versions", before, "lt", got).Run(); err != nil {
				t.Errorf("%s is not before %s", before, got)
			}
		}
		all = append(all, got)
	}
}
