package e2e

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mozzie-mqtt/mozzie"

// imports says which packages of the project a package may import, and why no others. The rule in one line:
// cmd -> node -> {mqttfront, dht/rendezvous} -> dht -> proto, and mqttfront imports only proto.
var imports = map[string]struct {
	may, why string
	tests    string // what its tests may import besides
}{
	"cmd/mozzie": {
		may: "cmd/mozzie/bench cmd/mozzie/client mqttfront/access node node/accounts node/admin node/backup node/config node/datadir",
		why: "the program has no logic of its own: it starts a node, or asks one",
	},
	"cmd/mozzie/client": {
		why: "an MQTT client talks to any broker, and so needs nothing of this one",
	},
	"cmd/mozzie/bench": {
		may: "cmd/mozzie/client",
		why: "a load generator measures any broker, by the same protocol as everybody",
	},
	"node": {
		may:   "dht dht/rendezvous dht/rendezvous/core mqttfront mqttfront/access node/accounts node/admin node/backup node/certs node/config node/datadir node/memory node/roam node/store node/unixsock node/watch proto proto/topic",
		why:   "node joins the packages below it by the interfaces that they define; how frames look is none of its business",
		tests: "proto/pb cmd/mozzie/client",
	},
	"node/admin": {
		may: "node/config node/unixsock",
		why: "the API shows what it is given in types of its own, so that its JSON does not change when a package does",
	},
	"node/backup": {
		may: "node/datadir node/store",
		why: "a backup is a directory in a file; what is in the directory it knows as far as that must not be there twice",
	},
	"node/roam": {
		may:   "dht/rendezvous/core mqttfront proto proto/pb",
		why:   "a session goes from one node's broker to another's, by the swarm that both are in",
		tests: "mqttfront/storetest proto/topic",
	},
	"node/watch": {
		may: "dht dht/rendezvous/core mqttfront proto proto/pb",
		why: "a node's wills are sent by the swarm that it was in, for the broker that it had",
	},
	"node/config": {may: "node/strict", why: "a configuration is plain values: node maps them to the options of the packages"},
	"node/strict": {why: "how a file is read does not depend on what is in it"},
	"node/certs": {
		why:   "certificates are the same whatever is said behind them; where its files are it is told",
		tests: "node/datadir",
	},
	"node/memory":   {why: "how much memory there is does not depend on what it is for"},
	"node/unixsock": {why: "a Unix socket is the same whatever is said over it"},
	"node/datadir":  {why: "a directory and its lock are the same whatever is kept in it"},
	"node/accounts": {
		may: "mqttfront/access node/admin node/strict proto/topic",
		why: "the files of accounts and rules are read into what decides, whoever asks it",
	},
	"node/store": {
		may:   "dht dht/rendezvous/core dht/rendezvous/core/keep mqttfront proto proto/pb proto/topic",
		why:   "the store carries out the interfaces of the packages that keep something, and knows nothing of what they are for; its records are messages of protobuf",
		tests: "mqttfront/storetest dht/rendezvous/core/storetest",
	},
	"mqttfront": {
		may:   "proto proto/topic",
		why:   "the MQTT side knows nothing of the swarm but the interface mqttfront.Swarm: a broker without a swarm is a good broker",
		tests: "mqttfront/storetest",
	},
	"mqttfront/access": {
		may: "proto/topic",
		why: "who may do what is decided without files, sockets and packets, so that every node of a swarm decides alike",
	},
	"mqttfront/storetest": {
		may: "mqttfront proto",
		why: "a conformance suite knows the interface alone, not who carries it out",
	},
	"dht/rendezvous/core/keep": {
		may: "dht dht/rendezvous/core proto/topic",
		why: "it keeps for the core, in memory: a disk, and whether there is one, is its user's",
	},
	"dht/rendezvous/core/storetest": {
		may: "dht dht/rendezvous/core dht/rendezvous/core/keep proto proto/pb proto/topic",
		why: "a conformance suite knows the interface alone, not who carries it out",
	},
	"dht": {
		why: "the DHT knows nothing of MQTT, nor of what is done at a location",
	},
	"dht/rendezvous": {
		may:   "dht dht/rendezvous/core proto proto/pb",
		why:   "the driver hands messages to whoever owns it through functions: it knows no broker and no node",
		tests: "dht/rendezvous/core/storetest",
	},
	"dht/rendezvous/core": {
		may:   "dht proto proto/pb proto/topic",
		why:   "the core decides and does nothing else; of dht it uses the points of the keyspace",
		tests: "dht/rendezvous/core/storetest",
	},
	"proto":       {may: "proto/pb proto/topic", why: "the wire is below everything"},
	"proto/pb":    {why: "it is generated"},
	"proto/topic": {why: "topics and filters are MQTT's, and the same everywhere"},
	"docs":        {why: "it reads files, and imports nothing of ours"},
	"e2e/bench":   {why: "it starts programs, Mozzie's as everybody's, and reads what they print"},
	"e2e/ether":   {why: "a network between namespaces is the same whatever runs in them"},
	"e2e/chaos": {
		why:   "this test sees what users see, while everything goes wrong",
		tests: "e2e/ether node/admin",
	},
	"e2e": {
		why:   "these tests see what users see",
		tests: "cmd/mozzie/client e2e/ether node/admin node/datadir",
	},
}

// outside says who may import what is not the project's own, where that is not everybody.
var outside = []struct {
	paths string // prefixes of import paths
	who   string
	why   string
}{
	{"github.com/libp2p github.com/ipfs", "dht dht/rendezvous node node/roam node/watch", "libp2p's types end at the border of the packages that deal with it"},
	{"github.com/multiformats", "dht dht/rendezvous node node/config", "multiaddresses are text elsewhere; the configuration checks that text"},
	{"github.com/mochi-mqtt", "mqttfront cmd/mozzie cmd/mozzie/client", "mochi is the codec of MQTT packets, and there are packets at the MQTT side only"},
	{"github.com/prometheus", "dht node node/admin", "packages count, and node shows the counters"},
	{"google.golang.org/protobuf", "proto proto/pb dht/rendezvous/core dht/rendezvous/core/storetest node/roam node/store node/watch", "frames are encoded in one place, and records where they are kept"},
	{"github.com/cockroachdb", "node/store", "there is one database, and one package that knows which"},
	{"github.com/spf13", "cmd/mozzie", "command lines are the program's"},
	{"os os/exec os/signal net net/http io/fs syscall", "cmd/mozzie cmd/mozzie/bench cmd/mozzie/client dht mqttfront node node/accounts node/admin node/backup node/certs node/config node/datadir node/memory node/store node/unixsock e2e e2e/bench e2e/ether",
		"what decides and what describes the wire does no I/O"},
	{"unsafe", "proto proto/pb", "a decoder may share memory with its input; nobody else has a reason"},
	{"testing", "mqttfront/storetest dht/rendezvous/core/storetest", "it is for tests"},
}

// listed is what "go list" tells of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// TestImports holds the imports of every package against the rule.
func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		rule, ok := imports[name]
		if !ok {
			t.Errorf("package %s is not in the table: add it to imports in imports_test.go, with what it may import and why no more", name)
			continue
		}
		may := append(strings.Fields(rule.may), name)
		inTests := append(append(may, strings.Fields(rule.tests)...), may...)
		for _, path := range p.Imports {
			if own, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s: %s", name, own, rule.why)
			}
			for _, o := range outside {
				if under(path, o.paths) && !slices.Contains(strings.Fields(o.who), name) {
					t.Errorf("%s imports %s: %s", name, path, o.why)
				}
			}
		}
		for _, path := range append(p.TestImports, p.XTestImports...) {
			if own, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains(inTests, own) {
				t.Errorf("the tests of %s import %s: %s; where a test has a reason, the table says so", name, own, rule.why)
			}
		}
	}
}

// under reports whether an import path is one of some, or below one that is not of the standard library.
func under(path, prefixes string) bool {
	return slices.ContainsFunc(strings.Fields(prefixes), func(prefix string) bool {
		return path == prefix || strings.Contains(prefix, ".") && strings.HasPrefix(path, prefix+"/")
	})
}

// packages lists the project's packages.
func packages(t *testing.T) (all []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestCoreIsPure checks that the rendezvous core has no clock and no goroutine: the simulation could not replay
// what depends on either.
func TestCoreIsPure(t *testing.T) {
	dir := filepath.Join("..", "dht", "rendezvous", "core")
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in %s (%v)", dir, err)
	}
	files := token.NewFileSet()
	clocks := strings.Fields("Now Since Until Sleep After AfterFunc Tick NewTicker NewTimer")
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine", files.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
					t.Errorf("%s: time.%s: the time comes with the events", files.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}
