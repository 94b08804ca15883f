package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// image is what the last stage of deploy/Dockerfile makes, as far as a node can tell: a file system, a user, an
// environment, and commands.
type image struct {
	uid, gid           int
	env                []string
	command, health    []string
	volume, stopSignal string
}

// readDockerfile reads the last stage. What it does not know there, it refuses.
func readDockerfile(t *testing.T) (i image) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	last := string(text[bytes.LastIndex(text, []byte("\nFROM ")):])
	if !strings.HasPrefix(last, "\nFROM scratch\n") {
		t.Fatalf("the last stage is not from scratch: %.40q", last)
	}
	words := func(value string) (all []string) {
		if err := json.Unmarshal([]byte(value), &all); err != nil {
			t.Fatalf("Dockerfile: %s: %v", value, err)
		}
		return all
	}
	for line := range strings.Lines(last) {
		instruction, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "", "#", "FROM", "EXPOSE":
		case "COPY": // see start
			if value != "--from=program /mozzie /mozzie" && value != "--chown=65532:65532 deploy/image/ /" {
				t.Errorf("Dockerfile: the test does not know COPY %s", value)
			}
		case "USER":
			if _, err := fmt.Sscanf(value, "%d:%d", &i.uid, &i.gid); err != nil {
				t.Fatalf("Dockerfile: USER %s: %v", value, err)
			}
		case "ENV":
			i.env = append(i.env, value)
		case "VOLUME":
			i.volume = value
		case "STOPSIGNAL":
			i.stopSignal = value
		case "HEALTHCHECK":
			_, cmd, _ := strings.Cut(value, "CMD ")
			i.health = words(cmd)
		case "ENTRYPOINT", "CMD":
			i.command = append(i.command, words(value)...)
		default:
			t.Errorf("Dockerfile: the test does not know %s", instruction)
		}
	}
	if i.uid == 0 || i.gid == 0 || i.stopSignal != "SIGTERM" || len(i.health) == 0 {
		t.Errorf("Dockerfile: %+v", i)
	}
	return i
}

// composeFile is deploy/compose.yaml, in as much of Compose's language as it uses.
type composeFile struct {
	Name     string
	Node     composeService `yaml:"x-node"`
	Services map[string]composeService
	Networks map[string]any
	Volumes  map[string]any
	Secrets  map[string]struct{ File string }
}

type composeService struct {
	Image string
	Build struct{ Context, Dockerfile string }

	Environment map[string]string
	Secrets     []struct{ Source, Target string }
	Networks    []string
	Ports       []string
	Volumes     []string

	Restart         string
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	ReadOnly        bool          `yaml:"read_only"`
	CapDrop         []string      `yaml:"cap_drop"`
	SecurityOpt     []string      `yaml:"security_opt"`
}

func readCompose(t *testing.T) (c composeFile) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatalf("deploy/compose.yaml: %v", err)
	}
	return c
}

// TestCompose checks that what deploy/compose.yaml refers to is there, that three nodes have one key and a volume each,
// and that nothing is published beyond this machine.
func TestCompose(t *testing.T) {
	c, i := readCompose(t), readDockerfile(t)
	if len(c.Services) != 3 {
		t.Errorf("%d services", len(c.Services))
	}
	taken := map[string]string{}
	for name, s := range c.Services {
		if s.Build.Context != "" {
			if _, err := os.Stat(filepath.Join("..", "deploy", s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s is built from: %v", name, err)
			}
		}
		for _, network := range s.Networks {
			if _, ok := c.Networks[network]; !ok {
				t.Errorf("%s is in the network %s, which is not there", name, network)
			}
		}
		if len(s.Secrets) != 1 || c.Secrets[s.Secrets[0].Source].File == "" || s.Secrets[0].Target != i.volume+"/swarm.key" {
			t.Errorf("%s has the secrets %v", name, s.Secrets)
		}
		if len(s.Ports) != 1 || len(s.Volumes) != 1 {
			t.Fatalf("%s has the ports %q and the volumes %q", name, s.Ports, s.Volumes)
		}
		if !regexp.MustCompile(`^127\.0\.0\.1:\d+:1883$`).MatchString(s.Ports[0]) {
			t.Errorf("%s publishes %s", name, s.Ports[0])
		}
		volume, at, _ := strings.Cut(s.Volumes[0], ":")
		if _, ok := c.Volumes[volume]; !ok || at != i.volume {
			t.Errorf("%s has the volume %s", name, s.Volumes[0])
		}
		for _, what := range []string{s.Ports[0], volume} {
			if other, ok := taken[what]; ok {
				t.Errorf("%s and %s both have %s", name, other, what)
			}
			taken[what] = name
		}
		if s.StopGracePeriod < stopLimit || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || s.Image != c.Node.Image {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// container is a node in a file system that has nothing but the image's, on a host of its own.
type container struct {
	t      *testing.T
	name   string
	host   *host
	root   string
	image  image
	env    []string
	log    bytes.Buffer
	run    *exec.Cmd
	exited chan error
}

// TestImage runs the nodes of deploy/compose.yaml in what deploy/Dockerfile makes, each with nothing around it but the
// program and its data directory: no /proc, no /etc, no home. They find each other and pass messages.
func TestImage(t *testing.T) {
	d := distribution(t)
	rootOnly(t)
	compose, image := readCompose(t), readDockerfile(t)
	w := newNetwork(t, len(compose.Services), wire{prefix: "10.78.0."})
	key := []byte("/key/swarm/psk/1.0.0/\n/base16/\n" + strings.Repeat("0123456789abcdef", 4) + "\n")
	var all []*container
	for name, s := range compose.Services {
		c := &container{t: t, name: name, host: w.hosts[len(all)], root: t.TempDir(), image: image, env: append(slices.Clone(image.env), "HOME=/")}
		for variable, value := range s.Environment {
			c.env = append(c.env, variable+"="+value)
		}
		c.fill(d.program("amd64"), s.Secrets[0].Target, key)
		c.start()
		all = append(all, c)
	}
	for _, c := range all {
		eventually(t, patience, func() error {
			select {
			case err := <-c.exited:
				c.exited <- err
				t.Fatalf("%s has ended: %v\n%s", c.name, err, &c.log)
			default:
			}
			s, err := c.status()
			if err == nil && s.Peers != len(all)-1 {
				err = fmt.Errorf("%s has %d peers", c.name, s.Peers)
			}
			return err
		})
	}
	from, to := all[0], all[2]
	sub, pub := connect5Over(t, to.dial()), connect5Over(t, from.dial())
	sub.subscribe(1, "image/#")
	pub.publish("image/x", "from "+from.name, 1)
	if got := sub.wait(t, 1)[0]; got != (message{"image/x", "from " + from.name, 1, false}) {
		t.Errorf("%+v came", got)
	}
	for _, c := range all {
		c.stop()
	}
	if _, err := all[0].status(); err == nil {
		t.Error("stopped, it is well by its health check")
	}
}

// fill makes the file system: the instructions COPY and VOLUME, and the secret.
func (c *container) fill(program, target string, key []byte) {
	c.t.Helper()
	for _, args := range [][]string{
		{"install", "-m", "755", program, c.root + "/mozzie"},
		{"cp", "-r", "../deploy/image/.", c.root},
		{"chown", "-R", fmt.Sprint(c.image.uid, ":", c.image.gid), filepath.Join(c.root, "var")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			c.t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	at := filepath.Join(c.root, target)
	if err := os.WriteFile(at, key, 0o400); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chown(at, c.image.uid, c.image.gid); err != nil {
		c.t.Fatal(err)
	}
}

// command is a command inside.
func (c *container) command(words ...string) *exec.Cmd {
	user := strconv.Itoa(c.image.uid) + ":" + strconv.Itoa(c.image.gid)
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + c.host.Name, "/usr/sbin/chroot", "--userspec=" + user, c.root}, words...)...)
	cmd.Env = append(slices.Clone(c.env), "PATH=/usr/sbin:/usr/bin:/sbin:/bin") // for nsenter
	return cmd
}

func (c *container) start() {
	c.t.Helper()
	c.run = c.command(c.image.command...)
	c.run.Stdout, c.run.Stderr = &c.log, &c.log
	c.run.WaitDelay = time.Second
	if err := startProcess(c.run); err != nil {
		c.t.Fatal(err)
	}
	c.exited = make(chan error, 1)
	go func() { c.exited <- c.run.Wait() }()
	c.t.Cleanup(func() { _ = c.run.Process.Kill() })
}

// status asks the node by what the image has for its health, in JSON.
func (c *container) status() (s admin.Status, err error) {
	out, err := c.command(append(slices.Clone(c.image.health), "--json")...).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	return s, err
}

// dial connects to the port that the image is published by.
func (c *container) dial() (conn net.Conn) {
	c.t.Helper()
	if err := c.host.Inside(func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(c.host.Address, "1883"), patience)
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func (c *container) stop() {
	c.t.Helper()
	if err := c.run.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	select {
	case err := <-c.exited:
		if err != nil {
			c.t.Errorf("%s: %v\n%s", c.name, err, &c.log)
		}
		c.exited <- err
	case <-time.After(stopLimit):
		c.t.Errorf("%s did not stop", c.name)
	}
}
