package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/node/store"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// What the publisher is called.
const (
	spiedUser   = "the-user-who-publishes"
	spiedClient = "the-client-that-publishes"
	spiedText   = "what-is-published"
)

// TestAnonymity publishes open messages in every way that there is, looks into every frame before it is encrypted
// and into what the nodes keep, and must not find: the publisher's user name and client ID anywhere; beyond the
// members of the location's set, together with the message, the publisher's node: its peer ID and addresses. In another
// swarm it publishes messages that hold all of these, and must find them.
func TestAnonymity(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x := newSpy(startSwarm(t, n), anyTopic)
			x.publishEverything()
			x.nothingFound()
		})
		t.Run(fmt.Sprintf("%d, planted", n), func(t *testing.T) { newSpy(startSwarm(t, n), anyTopic).plant() })
	}
}

// TestAnonymityUnsettled has messages served by a rendezvous that cannot know all registrations, since a majority of the
// root's set is gone: their copies name, in except, the publisher's node to members of the location's set, and to nobody
// else.
func TestAnonymityUnsettled(t *testing.T) {
	const gone = 2 // of the root's set, and none of the location's
	x := newSpy(startSwarm(t, 7), func(order, root []int) int {
		set := order[:core.SetSize]
		if len(without(root, set)) < gone {
			return -1
		}
		beyond := without(without(order, set), root)
		return beyond[len(beyond)-1]
	})
	own := x.connect(x.publisher, "own") // or nobody is excepted
	own.subscribe(1, x.topic)
	x.pub.publish(client.Message{Topic: x.topic, Payload: []byte("before"), QoS: 1}) // the location is there
	own.wait(1)
	for _, i := range without(x.root, x.near[:core.SetSize])[:gone] {
		if err := x.nodes[i].close(); err != nil {
			t.Error(err)
		}
		x.gone[i] = true
	}
	for i := range x.nodes { // members and others
		if !x.gone[i] && i != x.publisher {
			x.connect(i, fmt.Sprintf("sub%d", i)).subscribe(1, x.topic)
		}
	}
	rendezvous := x.nodes[x.near[0]].service.Load()
	eventually(t, func() error {
		x.pub.publish(client.Message{Topic: x.topic, Payload: []byte(spiedText), QoS: 1})
		if rendezvous.Gauges().Unsettled == 0 {
			return errors.New("the rendezvous takes everything for settled")
		}
		return nil
	})
	x.eventually("a member has been told whom to except", func() bool { return x.excepts })
	x.lookAtMemory()
	x.nothingFound()
}

// spy looks into a swarm.
type spy struct {
	*testSwarm
	topic     string
	publisher int          // the publisher's node, beyond the set where the swarm is large enough
	set       map[int]bool // the members of the topic's set
	root      []int        // and of the root's
	gone      map[int]bool // nodes that have left, or were closed
	near      []int        // the members, and who becomes one when one leaves
	pub       *mqttClient

	secret  map[string][]byte // names the user and the client
	node    map[string][]byte // names the publisher's node
	marks   map[string][]byte // tells that something is about the message
	index   map[peer.ID]int
	kinds   map[string]int // frames about the message, by type
	caught  map[string]bool
	excepts bool // a member was told to except the publisher's node
}

// anyTopic is for newSpy: the publisher's node is as far from the topic's location as there is, and in neither its set
// nor the root's where the swarm is large enough.
func anyTopic(order, root []int) int {
	last := order[len(order)-1]
	if len(order) > core.SetSize && slices.Contains(root, last) {
		return -1
	}
	return last
}

// without returns those of a that are not in b.
func without(a, b []int) []int {
	return slices.DeleteFunc(slices.Clone(a), func(i int) bool { return slices.Contains(b, i) })
}

func (x *spy) nothingFound() {
	x.t.Helper()
	if found := x.found(); len(found) > 0 {
		x.t.Errorf("found what names the publisher:\n%s", strings.Join(found, "\n"))
	}
}

// newSpy picks a topic. From the order of the nodes at its location and the root's set, publisher picks who publishes, -1
// for another topic. The spy looks at every frame from now on.
func newSpy(s *testSwarm, publisher func(order, root []int) int) *spy {
	x := &spy{testSwarm: s, gone: map[int]bool{}, set: map[int]bool{}, index: map[peer.ID]int{}, kinds: map[string]int{},
		caught: map[string]bool{}}
	for i, n := range s.nodes {
		x.index[n.host.ID()] = i
	}
	x.root = s.closest(dht.Root)[:core.SetSize]
	x.publisher = -1
	for i := 0; x.publisher < 0; i++ {
		if i == 10_000 {
			s.t.Fatal("no topic is where it is wanted")
		}
		prefix := fmt.Sprintf("spied%d", i)
		order := s.closest(dht.Locate(prefix, 1))
		x.topic, x.publisher = prefix+"/x", publisher(order, x.root)
		x.near = order[:min(core.SetSize+1, len(order))]
	}
	for _, m := range x.near[:core.SetSize] {
		x.set[m] = true
	}
	x.pub = s.connect(x.publisher, spiedClient, func(o *client.Options) { o.Username = spiedUser })
	x.needles()
	s.watch(x.look)
	return x
}

// closest returns the nodes in the order of their distance to a location.
func (s *testSwarm) closest(at dht.Location) []int {
	order := make([]int, len(s.nodes))
	for i := range order {
		order[i] = i
	}
	point := func(i int) dht.Location { return dht.PeerPoint(string(s.nodes[i].host.ID())) }
	slices.SortFunc(order, func(a, b int) int {
		if at.Closer(point(a), point(b)) {
			return -1
		}
		return 1
	})
	return order
}

// needles makes up what is looked for.
func (x *spy) needles() {
	h := x.nodes[x.publisher].host
	x.secret = map[string][]byte{}
	for what, name := range map[string]string{"user name": spiedUser, "client ID": spiedClient} {
		x.secret[what] = []byte(name)
		x.secret[what+" in hex"] = []byte(hex.EncodeToString([]byte(name)))
		x.secret[what+" in base64"] = []byte(base64.StdEncoding.EncodeToString([]byte(name))[:len(name)])
	}
	id := []byte(h.ID())
	key := id[len(id)-32:] // an Ed25519 peer ID holds the key itself
	x.node = map[string][]byte{
		"key of the node": key, "key of the node in hex": []byte(hex.EncodeToString(key)),
		"peer ID in base58": []byte(h.ID().String()),
	}
	for i, a := range h.Libp2p().Addrs() {
		x.node[fmt.Sprintf("address %d in bytes", i)] = a.Bytes()
		x.node[fmt.Sprintf("address %d in hex", i)] = []byte(hex.EncodeToString(a.Bytes()))
		x.node[fmt.Sprintf("address %d as text", i)] = []byte(a.String())
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(x.nodes[x.publisher].listeners[0].url, "tcp://"))
	x.node["MQTT address"] = []byte("127.0.0.1:" + port)
	x.marks = map[string][]byte{"text": []byte(spiedText)} // not the topic, which registrations name too
}

// look looks into a frame.
func (x *spy) look(f sent) {
	raw := proto.AppendFrame(nil, f.frame, time.Now())
	from, to := x.index[f.from], x.index[f.to]
	if p, ok := f.frame.(*proto.Publish); ok && p.Message.Topic == x.topic && p.Epoch != 0 {
		x.marks[fmt.Sprintf("epoch %x", p.Epoch)] = binary.LittleEndian.AppendUint64(nil, p.Epoch)
	}
	about := first(raw, x.marks)
	where := fmt.Sprintf("in a %T from node %d to node %d", f.frame, from, to)
	if what := first(raw, x.secret); what != "" {
		x.caught[what+" "+where] = true
	}
	if about == "" {
		return
	}
	x.kinds[fmt.Sprintf("%T", f.frame)]++
	switch what := first(raw, x.node); {
	case x.set[to]:
		x.excepts = x.excepts || excepts(f.frame, x.nodes[x.publisher].host.ID())
	case from == x.publisher:
		x.caught["the message itself "+where+", which is no member"] = true
	case what != "":
		x.caught[what+" with the "+about+" "+where] = true
	}
}

// excepts reports whether a second copy says that a node's plain subscribers had the message from their own node.
func excepts(frame any, id peer.ID) bool {
	c, ok := frame.(*pb.Copy)
	return ok && slices.ContainsFunc(c.GetCustody(), func(c *pb.Custody) bool { return strings.HasSuffix(string(c.GetExcept()), string(id)) })
}

// first returns the first of some needles, by name, that is found, or "".
func first(in []byte, needles map[string][]byte) string {
	for _, what := range slices.Sorted(maps.Keys(needles)) {
		if bytes.Contains(in, needles[what]) {
			return what
		}
	}
	return ""
}

// publishEverything publishes at every QoS, retained and not, to subscribers at every node, to shared ones and to
// one who is away, and has the rendezvous hand over to another.
func (x *spy) publishEverything() {
	x.t.Helper()
	subs := map[int]*mqttClient{}
	for i := range x.nodes {
		if i == x.publisher {
			continue
		}
		subs[i] = x.connect(i, fmt.Sprintf("sub%d", i))
		subs[i].subscribe(2, x.topic, "#")
		x.connect(i, fmt.Sprintf("member%d", i)).subscribe(1, "$share/group/"+x.topic)
	}
	away := x.connect(x.near[1], "away", func(o *client.Options) { o.Clean, o.SessionExpiry = false, 600 })
	away.subscribe(1, x.topic)
	_ = away.Disconnect()
	n := 0
	for qos := range byte(3) {
		for _, retain := range []bool{false, true} {
			x.pub.publish(client.Message{Topic: x.topic, Payload: []byte(spiedText), QoS: qos, Retain: retain})
			n++
		}
	}
	for _, sub := range subs {
		sub.wait(n)
	}
	x.eventually("a second copy has been made", func() bool { return x.kinds["*pb.Copy"] > 0 })
	for i := range x.nodes {
		later := x.connect(i, fmt.Sprintf("later%d", i))
		later.subscribe(1, x.topic)
		later.wait(1)
	}
	x.lookAtMemory()
	x.handOver()
	x.pub.publish(client.Message{Topic: x.topic, Payload: []byte(spiedText), QoS: 1})
	for i, sub := range subs {
		if !x.gone[i] {
			sub.wait(n + 1)
		}
	}
	x.lookAtMemory()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t.Logf("looked into frames about the message: %v", x.kinds)
}

// handOver has the rendezvous leave the swarm.
func (x *spy) handOver() {
	x.t.Helper()
	r := x.near[0]
	x.mu.Lock()
	x.set[x.near[len(x.near)-1]] = true
	x.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := x.nodes[r].Stop(ctx); err != nil {
		x.t.Errorf("stop the rendezvous: %v", err)
	}
	x.eventually("it has handed over", func() bool { return x.kinds["*pb.Transfer"] > 0 })
	x.gone[r] = true
}

func (x *spy) eventually(what string, ok func() bool) {
	x.t.Helper()
	eventually(x.t, func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !ok() {
			return fmt.Errorf("not so that %s; frames about the message: %v", what, x.kinds)
		}
		return nil
	})
}

// found returns what was found so far.
func (x *spy) found() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Sorted(maps.Keys(x.caught))
}

// lookAtMemory looks into all that the other nodes' cores remember for the user and the client, and into the
// messages that they keep for the publisher's node.
func (x *spy) lookAtMemory() {
	x.t.Helper()
	kept := false
	for i, n := range x.nodes {
		if i == x.publisher || x.gone[i] {
			continue
		}
		n.db.Together(func() {
			n.service.Load().View(func(c *core.Node) { // nothing is written meanwhile
				all := reflect.ValueOf(c)
				x.mu.Lock()
				defer x.mu.Unlock()
				x.lookInto(all, fmt.Sprintf("in the memory of node %d", i), x.secret)
				for _, name := range []string{"Custody", "Retained"} {
					messages := all.Elem().FieldByName("cfg").FieldByName(name)
					x.lookInto(messages, fmt.Sprintf("in the store %s of node %d", name, i), x.node)
					if len(remembers(messages, x.marks)) > 0 {
						kept = true
					}
				}
			})
		})
		x.lookAtDisk(i, n.db)
	}
	if !kept {
		x.t.Error("no node keeps the message, so that this test looks in the wrong place")
	}
}

// lookAtDisk looks into what a node has in its database: for the user and the client into all, for the publisher's node into
// what is there of messages. Who is to be excepted may stand in the records of members.
func (x *spy) lookAtDisk(i int, db *store.DB) {
	x.t.Helper()
	where := fmt.Sprintf("in the database of node %d", i)
	err := db.Records(func(key, value []byte, of store.Subject) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.lookInto(reflect.ValueOf(append(bytes.Clone(key), value...)), where, x.secret)
		if of == store.OfMessages {
			x.lookInto(reflect.ValueOf(value), where, x.node)
		}
	})
	if err != nil {
		x.t.Error(err)
	}
}

func (x *spy) lookInto(v reflect.Value, where string, needles map[string][]byte) {
	for _, what := range remembers(v, needles) {
		x.caught[what+" "+where] = true
	}
}

// remembers walks through all that a value leads to and returns which needles are in its strings and bytes.
func remembers(v reflect.Value, needles map[string][]byte) []string {
	w := &walker{needles: needles, seen: map[[2]uintptr]bool{}, found: map[string]bool{}}
	w.walk(v)
	return slices.Sorted(maps.Keys(w.found))
}

type walker struct {
	needles map[string][]byte
	seen    map[[2]uintptr]bool // pointers, with their types
	found   map[string]bool
}

func (w *walker) walk(v reflect.Value) {
	if !v.IsValid() || strings.HasPrefix(v.Type().PkgPath(), "log/slog") || v.Type() == reflect.TypeFor[store.DB]() {
		return // what is in a database is looked into by itself
	}
	switch v.Kind() {
	case reflect.String:
		w.text([]byte(v.String()))
	case reflect.Pointer, reflect.Map:
		at := [2]uintptr{v.Pointer(), reflect.ValueOf(v.Type()).Pointer()}
		if v.IsNil() || w.seen[at] {
			return
		}
		w.seen[at] = true
		if v.Kind() == reflect.Pointer {
			w.walk(v.Elem())
			return
		}
		for entries := v.MapRange(); entries.Next(); {
			w.walk(entries.Key())
			w.walk(entries.Value())
		}
	case reflect.Interface:
		w.walk(v.Elem())
	case reflect.Struct:
		w.walk(atomicPointer(v))
		for i := range v.NumField() {
			w.walk(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		w.list(v)
	default: // numbers say nothing, functions and channels cannot be looked into
	}
}

// atomicPointer returns what an atomic.Pointer points to, of which reflection shows only where it is; the zero Value for
// anything else.
func atomicPointer(v reflect.Value) reflect.Value {
	t := v.Type()
	if t.PkgPath() != "sync/atomic" || !strings.HasPrefix(t.Name(), "Pointer[") || t.Field(0).Type.Kind() != reflect.Array {
		return reflect.Value{}
	}
	return reflect.NewAt(t.Field(0).Type.Elem().Elem(), v.FieldByName("v").UnsafePointer()) // its type is that of an array of none
}

func (w *walker) list(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b := make([]byte, v.Len())
		for i := range b {
			b[i] = byte(v.Index(i).Uint())
		}
		w.text(b)
		return
	}
	for i := range v.Len() {
		w.walk(v.Index(i))
	}
}

func (w *walker) text(b []byte) {
	for what, needle := range w.needles {
		if bytes.Contains(b, needle) {
			w.found[what] = true
		}
	}
}

// plant publishes what must be found: each needle, in the payload of a retained message that goes to a node outside of
// the set, where there is one beside the publisher's.
func (x *spy) plant() {
	x.t.Helper()
	outside := x.near[len(x.near)-1]
	sub := x.connect(outside, "outside")
	sub.subscribe(1, x.topic)
	n := 0
	for _, needles := range []map[string][]byte{x.secret, x.node} {
		for what, needle := range needles {
			x.mu.Lock()
			clear(x.caught)
			x.mu.Unlock()
			x.pub.publish(client.Message{Topic: x.topic, Payload: slices.Concat(needle, []byte(spiedText)), QoS: 1, Retain: true})
			n++
			sub.wait(n)
			x.lookAtMemory()
			onWire, inMemory := false, false
			to := fmt.Sprintf("to node %d", outside)
			for _, f := range x.found() {
				onWire = onWire || (strings.HasPrefix(f, what+" in a *") || strings.HasPrefix(f, what+" with the ")) && strings.HasSuffix(f, to)
				inMemory = inMemory || strings.HasPrefix(f, what+" in the ")
			}
			if !onWire && (!x.set[outside] || x.secret[what] != nil) || !inMemory {
				x.t.Errorf("the %s was planted; found on the wire %s: %v, in memory: %v: %q", what, to, onWire, inMemory, x.found())
			}
		}
	}
}
