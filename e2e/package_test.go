package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDebianPackage lives through the life of the package for amd64 on a minimal Debian: it is installed, its service
// is set up and joins a swarm, it is upgraded while messages wait, removed and purged. There is no systemd in there:
// the test does what it would do, as the unit says.
func TestDebianPackage(t *testing.T) {
	d := distribution(t)
	deb := newDebian(t)
	before := deb.all()
	deb.put(d.deb("amd64"), "/mozzie.deb", 0o644)

	deb.install("/mozzie.deb")
	deb.installed(d)
	deb.run("mozzie", "passwd", "alice", "--generate", "--data", "/var/lib/mozzie") // root prepares what the service reads
	if got := deb.who("/var/lib/mozzie/accounts.yaml"); got != "mozzie:mozzie 600" {
		t.Errorf("accounts that root has made are of %s", got)
	}
	s := deb.service(d)
	s.configure()
	s.upgrade()
	s.stop()

	deb.run("dpkg", "--remove", "mozzie")
	for _, gone := range []string{"/usr/bin/mozzie", unitFile, "/usr/share/doc/mozzie"} {
		if deb.exists(gone) {
			t.Errorf("removed, there still is %s", gone)
		}
	}
	for _, there := range []string{"/etc/mozzie/mozzie.yaml", "/var/lib/mozzie/node.key"} {
		if !deb.exists(there) {
			t.Errorf("removed, not purged, there is no %s any more", there)
		}
	}

	deb.run("dpkg", "--purge", "mozzie")
	if out, err := deb.try("getent", "passwd", "mozzie"); err == nil {
		t.Errorf("purged, there still is the user %s", out)
	}
	if out, err := deb.try("getent", "group", "mozzie"); err == nil {
		t.Errorf("purged, there still is the group %s", out)
	}
	for _, name := range deb.all() {
		if !slices.Contains(before, name) && !strings.HasSuffix(name, ".deb") {
			t.Errorf("purged, there still is %s", name)
		}
	}
}

const unitFile = "/usr/lib/systemd/system/mozzie.service"

func (d built) deb(architecture string) string {
	return filepath.Join(d.dir, "mozzie_"+d.debian+"_"+architecture+".deb")
}

// usual is what dpkg says of its work.
var usual = regexp.MustCompile(`^(\(Reading database|Selecting previously|Preparing to unpack|Unpacking|Setting up|Created symlink) `)

// install installs a package. Whatever else is printed is a complaint.
func (c chroot) install(file string) {
	c.t.Helper()
	out := c.run("dpkg", "--install", file)
	for line := range strings.Lines(out) {
		if !usual.MatchString(line) {
			c.t.Errorf("dpkg --install says: %s", line)
		}
	}
}

// installed checks what the package has made of the system.
func (c chroot) installed(d built) {
	t := c.t
	t.Helper()
	for name, want := range map[string]string{
		"/usr/bin/mozzie":         "root:root 755",
		unitFile:                  "root:root 644",
		"/etc/mozzie":             "root:mozzie 750", // only the service reads what may be an invite
		"/etc/mozzie/mozzie.yaml": "root:mozzie 640",
		"/var/lib/mozzie":         "mozzie:mozzie 700",
	} {
		if got := c.who(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	user := strings.Split(strings.TrimSpace(c.run("getent", "passwd", "mozzie")), ":")
	if user[5] != "/var/lib/mozzie" || user[6] != "/usr/sbin/nologin" {
		t.Errorf("the user is %q", user)
	}
	if password := c.run("getent", "shadow", "mozzie"); !strings.HasPrefix(password, "mozzie:!") {
		t.Errorf("the user's password is %q", password)
	}
	if !c.exists("/etc/systemd/system/multi-user.target.wants/mozzie.service") {
		t.Error("the service is not enabled")
	}
	if out := c.run("dpkg", "--verify", "mozzie"); out != "" {
		t.Errorf("dpkg --verify says: %s", out)
	}
	if got := c.run("dpkg-query", "-W", "-f", "${Version} ${Conffiles}", "mozzie"); !strings.HasPrefix(got, d.debian+" ") || !strings.Contains(got, "/etc/mozzie/mozzie.yaml") {
		t.Errorf("dpkg knows it as %s", got)
	}
	if got := c.run("mozzie", "--version"); !strings.HasPrefix(got, "mozzie "+d.version+" ") {
		t.Errorf("it says that it is %s, want %s", got, d.version)
	}
	if c.read("/etc/mozzie/mozzie.yaml") != c.run("mozzie", "config", "example") {
		t.Error("/etc/mozzie/mozzie.yaml is not what mozzie config example prints")
	}
	// What clients and commands connect to is on loopback.
	shown := c.run("mozzie", "config", "show", "--config", "/etc/mozzie/mozzie.yaml")
	listeners := regexp.MustCompile(`(?m)^ *(?:- (?:url: )?\w+://|listen: )(\S+):\d+`).FindAllStringSubmatch(shown, -1)
	if len(listeners) < 3 {
		t.Errorf("it listens at %q", listeners)
	}
	for _, l := range listeners {
		if l[1] != "127.0.0.1" {
			t.Errorf("it listens at %s unasked", l[1])
		}
	}
	for _, what := range []string{"/usr/share/doc/mozzie/copyright", "/usr/share/bash-completion/completions/mozzie",
		"/usr/share/zsh/vendor-completions/_mozzie", "/usr/share/fish/vendor_completions.d/mozzie.fish", "/usr/share/man/man1/mozzie.1.gz"} {
		if !c.exists(what) {
			t.Errorf("there is no %s", what)
		}
	}
}

// service is the service of an installed package, and a node beside it that is not of the package.
type service struct {
	*node
	c      chroot
	d      built
	native *node
}

// service prepares the service to be run as the unit says.
func (c chroot) service(d built) *service {
	t := c.t
	t.Helper()
	native := newNode(t, "native")
	native.start()
	native.ready()
	n := newNode(t, "packaged")
	words := unit(t, c.read(unitFile), "ExecStart")
	if len(words) != 1 {
		t.Fatalf("the unit has the ExecStart %q", words)
	}
	start := strings.Fields(words[0])
	n.data = c.path("/var/lib/mozzie")
	n.prefix = []string{"/usr/sbin/chroot", "--userspec=" + unit(t, c.read(unitFile), "User")[0] + ":" + unit(t, c.read(unitFile), "Group")[0], c.root}
	n.program, n.args = start[0], start[1:]
	return &service{node: n, c: c, d: d, native: native}
}

// unit returns the values of a setting in a unit file.
func unit(t testing.TB, text, name string) (values []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(text, -1) {
		values = append(values, m[1])
	}
	if len(values) == 0 {
		t.Fatalf("the unit has no %s", name)
	}
	return values
}

// configure edits the configuration as an administrator does, and puts the invite where the manual says.
func (s *service) configure() {
	s.t.Helper()
	file := s.c.path("/etc/mozzie/mozzie.yaml")
	text := s.c.read("/etc/mozzie/mozzie.yaml")
	for setting, value := range map[string]string{
		"  #listeners:": "  listeners: [tcp://" + s.mqtt + ", ws://" + s.ws + "]\n  #listeners:",
		"  #listen: 1":  "  listen: " + s.admin + "\n  #listen: 1",
		"  #mdns: true": "  mdns: false\n  listen: [/ip4/127.0.0.1/tcp/" + s.swarm + "]",
	} {
		if strings.Count(text, setting) != 1 {
			s.t.Fatalf("%s has %q %d times", file, setting, strings.Count(text, setting))
		}
		text = strings.Replace(text, setting, value, 1)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		s.t.Fatal(err)
	}
	s.c.run("mozzie", "config", "check", "/etc/mozzie/mozzie.yaml")
	if got := s.c.who("/etc/mozzie/mozzie.yaml"); got != "root:mozzie 640" {
		s.t.Errorf("edited, /etc/mozzie/mozzie.yaml is of %s", got)
	}
	environment := strings.TrimPrefix(unit(s.t, s.c.read(unitFile), "EnvironmentFile")[0], "-")
	if err := os.WriteFile(s.c.path(environment), []byte("MOZZIE_SWARM_JOIN="+s.native.invite()+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.env = append(strings.Fields(s.c.read(environment)), "STATE_DIRECTORY=/var/lib/mozzie")
}

// begin starts the service, and returns when it is of the swarm.
func (s *service) begin(version string) {
	s.t.Helper()
	manager, socket := listenAsManager(s.t)
	s.env = append(slices.DeleteFunc(s.env, func(e string) bool { return strings.HasPrefix(e, "NOTIFY_SOCKET=") }), "NOTIFY_SOCKET="+socket)
	s.start()
	buf := make([]byte, 4096)
	n, err := manager.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "READY=1\n") {
		s.t.Fatalf("the service manager hears %q, %v", buf[:n], err)
	}
	s.ready()
	meet(s.t, s.node, s.native)
	if got := s.c.owner(s.process.Process.Pid); got != "mozzie" {
		s.t.Errorf("the service runs as %q", got)
	}
	if got := s.status(); got.Version != version || got.Data != "/var/lib/mozzie" {
		s.t.Errorf("version %s runs in %s, want %s in /var/lib/mozzie", got.Version, got.Data, version)
	}
}

// upgrade installs a later version while messages wait, and has it take over.
func (s *service) upgrade() {
	t := s.t
	t.Helper()
	s.begin(s.d.version)
	id := s.id
	crossing(t, s.native, s.node, "installed")

	// Who is away when it happens: here, and at the other node.
	const count = 20
	away := func(at *node, name string) {
		c := connect(t, at.mqtt, named(name), keeping)
		c.subscribe(1, "waiting/"+name)
		c.bye()
	}
	away(s.node, "early")
	away(s.node, "late")
	away(s.native, "elsewhere")
	pub := connect(t, s.mqtt)
	for _, name := range []string{"early", "late", "elsewhere"} {
		pub.series("waiting/"+name, 1, count)
	}
	pub.retain("kept/here", "retained", 1)
	pub.bye()
	back := func(at *node, name string, want int) {
		t.Helper()
		c := connect(t, at.mqtt, named(name), keeping)
		defer c.bye()
		if got := c.exactly(t, want, c.fence("waiting/"+name, 1)); len(got) == want {
			inOrder(t, got)
		}
	}

	next := s.d
	next.version, next.debian = s.d.version+"-next", s.d.debian+"+next"
	next = next.build(t.(*testing.T), "..", filepath.Join(t.TempDir(), "next"), nil, "amd64")
	s.c.put(next.deb("amd64"), "/next.deb", 0o644)
	edited := s.c.read("/etc/mozzie/mozzie.yaml")
	s.c.install("/next.deb")
	if s.c.read("/etc/mozzie/mozzie.yaml") != edited {
		t.Error("the upgrade has changed what an administrator has written")
	}
	if got := s.c.run("mozzie", "--version"); !strings.HasPrefix(got, "mozzie "+next.version+" ") {
		t.Errorf("upgraded to %s, it says that it is %s", next.version, got)
	}
	if got := s.status().Version; got != s.d.version {
		t.Errorf("the files of version %s are there, and version %s runs", next.version, got)
	}
	back(s.node, "early", count) // the node was not touched by it

	// What systemd does at the end of the upgrade.
	s.stop()
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`messages wait here until this node is started again" queued=%d sessions=1 `, count); !strings.Contains(string(log), want) {
		t.Errorf("the node has not said %s", want)
	}
	s.begin(next.version)
	if s.id != id {
		t.Errorf("the node was %s and is %s", id, s.id)
	}
	back(s.native, "elsewhere", count) // what its swarm has, is kept
	c := connect(t, s.mqtt)
	c.subscribe(1, "kept/#")
	if got := c.wait(t, 1)[0]; got != (message{"kept/here", "retained", 1, true}) {
		t.Errorf("retained is %+v", got)
	}
	c.bye()
	late := connect(t, s.mqtt, named("late"), keeping)
	late.subscribe(1, "waiting/late")
	late.exactly(t, count, late.fence("waiting/late", 1))
	late.bye()
	crossing(t, s.node, s.native, "upgraded")
}

// TestUnit has systemd judge the unit: whether it understands it, and how much of the system the service gets at.
func TestUnit(t *testing.T) {
	distribution(t)
	need(t, "systemd-analyze")
	text, err := os.ReadFile(filepath.Join("..", "deploy", "mozzie.service"))
	if err != nil {
		t.Fatal(err)
	}
	// It looks for the program, the user and the manual page, which are not here.
	here := regexp.MustCompile(`(?m)^Documentation=.*$`).ReplaceAll(text, nil)
	here = []byte(strings.NewReplacer("ExecStart=/usr/bin/mozzie ", "ExecStart=/bin/true ", "User=mozzie", "User=daemon", "Group=mozzie", "Group=daemon").Replace(string(here)))
	file := filepath.Join(t.TempDir(), "mozzie.service")
	if err := os.WriteFile(file, here, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || strings.Contains(string(out), "mozzie.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// Tenths of 10. What remains is the network, sockets, and that it is no container.
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=17", file).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, regexp.MustCompile(`(?m)^(✓.*\n| +NAME .*\n)`).ReplaceAllString(string(out), ""))
	}
}
