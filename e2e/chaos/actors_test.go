package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	places  = 8 // first levels of topics, each a location of its own
	window  = 10
	sharing = "$share/g/" + "share/#"
)

// actors are the clients, and what has them do things.
type actors struct {
	o       Options
	history *History
	swarm   *swarm
	seeds   *rand.Rand
	quit    chan struct{}
	acting  sync.WaitGroup

	publishers, subscribers, others []*client
	retained                        []string // topics
}

// startActors starts the clients, and has subscribers subscribe. Publishers begin when those stand.
func startActors(o Options, h *History, s *swarm) *actors {
	a := &actors{o: o, history: h, swarm: s, seeds: rand.New(rand.NewPCG(o.Seed, 2)), quit: make(chan struct{})} //nolint:gosec // it is to be repeatable
	a.subscribe()
	return a
}

func (a *actors) client(m manner) *client {
	m.seed = a.seeds.Uint64()
	return newClient(a.history, a.swarm, m)
}

// home gives every node its share of clients.
func (a *actors) home(i int) int { return 1 + i%a.o.Nodes }

// subscriber makes a client that subscribes.
func (a *actors) subscriber(m manner, qos byte, filters ...string) *client {
	if m.lasting && a.o.Elsewhere {
		m.moves, m.resumes = true, true
	}
	c := a.client(m)
	c.subscribe(qos, filters...)
	a.subscribers = append(a.subscribers, c)
	return c
}

// slowly acknowledges at once mostly, and now and then after seconds.
func slowly(rng *rand.Rand) time.Duration {
	if rng.IntN(10) > 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(2 * time.Second)))
}

// everything is the topics of ordinary messages.
const everything = "+/chaos/#"

func (a *actors) subscribe() {
	one := func(first, n int) (filters []string) {
		for i := range n {
			filters = append(filters, fmt.Sprintf("c%d/chaos/#", (first+i)%places))
		}
		return filters
	}
	// Lasting sessions, at every node: by filters that stand at the locations themselves, and at the root.
	for i := range a.o.Nodes {
		a.subscriber(manner{id: fmt.Sprint("last", i+1), lasting: true, home: a.home(i)}, 2, one(3*i, 5)...)
	}
	a.subscriber(manner{id: "root", lasting: true, home: a.home(1)}, 2, everything)
	a.subscriber(manner{id: "root1", lasting: true, home: a.home(3)}, 1, everything)
	a.subscriber(manner{id: "slow", lasting: true, home: a.home(2), ackDelay: slowly, maximum: 20}, 2, one(0, 2)...)
	// Clean sessions, which go where there is a node.
	for i := range 2 {
		a.subscriber(manner{id: fmt.Sprint("clean", i+1), moves: true, home: a.home(i + 2)}, 2, one(4*i, 3)...)
	}
	for i := range 3 {
		a.subscriber(manner{id: fmt.Sprint("member", i+1), lasting: true, home: a.home(i + 1)}, 2, sharing)
	}
	// Whoever is interested in retained topics and wills.
	for i := range 2 {
		a.subscriber(manner{id: fmt.Sprint("watch", i+1), lasting: true, home: a.home(4 * i)}, 2, "retained/#", "will/#")
	}
	for i := range 2 { // they are not so faithful
		c := a.subscriber(manner{id: fmt.Sprint("fickle", i+1), lasting: true, home: a.home(i + 3)}, 2)
		a.acting.Go(func() { a.churn(c, rand.New(rand.NewPCG(a.o.Seed, uint64(100+i))), one(5*i, 4)) }) //nolint:gosec // it is to be repeatable
	}
	twins := a.subscribers[:min(len(a.subscribers), a.o.Nodes+3)]               // with lasting sessions
	a.acting.Go(func() { a.renew(twins, rand.New(rand.NewPCG(a.o.Seed, 99))) }) //nolint:gosec // the same
}

// settled waits until every subscription stands, and then has publishers begin.
func (a *actors) settled(limit time.Duration) error {
	for _, c := range a.subscribers {
		if err := a.swarm.until("subscriptions stand", limit, c.idle); err != nil {
			return err
		}
	}
	a.publish()
	return nil
}

// pause waits for a time between half and one and a half of what is given, and reports whether there is a reason to go on.
func (a *actors) pause(rng *rand.Rand, about time.Duration) bool {
	select {
	case <-a.quit:
		return false
	case <-time.After(about/2 + time.Duration(rng.Int64N(int64(about)))): // a pace is nothing to be observed
		return true
	}
}

// churn has a client subscribe and unsubscribe.
func (a *actors) churn(c *client, rng *rand.Rand, filters []string) {
	has := map[string]bool{}
	for a.pause(rng, 1500*time.Millisecond) {
		f := filters[rng.IntN(len(filters))]
		if c.idle() != nil {
			continue
		}
		if has[f] {
			c.unsubscribe(f)
		} else {
			c.subscribe(byte(1+rng.IntN(2)), f)
		}
		has[f] = !has[f]
	}
}

// renew has clients connect again while they are connected.
func (a *actors) renew(clients []*client, rng *rand.Rand) {
	for a.pause(rng, 4*time.Second) {
		select {
		case clients[rng.IntN(len(clients))].renew <- struct{}{}:
		default:
		}
	}
}

// publish starts the publishers: some wait for their node, others go to another.
func (a *actors) publish() {
	const publishers, writers = 8, 4
	for i := range publishers {
		c := a.client(manner{id: fmt.Sprint("pub", i+1), lasting: true, home: a.home(i), moves: i%2 == 1})
		a.publishers = append(a.publishers, c)
		every := time.Second * publishers / time.Duration(max(a.o.Rate, 1))
		rng := rand.New(rand.NewPCG(a.o.Seed, uint64(200+i))) //nolint:gosec // it is to be repeatable
		a.acting.Go(func() {
			a.act(c, rng, every, func(msg string) *flight {
				f := &flight{msg: msg, qos: byte(rng.IntN(3)), payload: []byte(msg + " " + strings.Repeat("x", rng.IntN(200)))}
				f.topic = fmt.Sprintf("c%d/chaos/%s", rng.IntN(places), c.id)
				if rng.IntN(8) == 0 {
					f.topic = "share/" + c.id
				}
				return f
			})
		})
	}
	for i := range 4 {
		a.retained = append(a.retained, fmt.Sprintf("retained/all/%d", i), fmt.Sprintf("retained/x%d", i))
	}
	for i := range writers {
		c := a.client(manner{id: fmt.Sprint("keep", i+1), lasting: true, home: a.home(i), moves: i%2 == 0})
		a.publishers = append(a.publishers, c)
		rng := rand.New(rand.NewPCG(a.o.Seed, uint64(300+i))) //nolint:gosec // it is to be repeatable
		a.acting.Go(func() {
			a.act(c, rng, 500*time.Millisecond, func(msg string) *flight {
				f := &flight{msg: msg, qos: byte(1 + rng.IntN(2)), retain: true, payload: []byte(msg), topic: a.retained[rng.IntN(len(a.retained))]}
				if rng.IntN(8) == 0 {
					f.payload = nil
				}
				return f
			})
		})
	}
	for i := range 5 {
		id := fmt.Sprint("mortal", i+1)
		c := a.client(manner{id: id, home: a.home(i), moves: true, says: 0.3,
			will: func(conn int) *will { return &will{"will/" + id, fmt.Sprintf("%s/%d", id, conn), byte(1 + conn%2)} },
			lives: func(rng *rand.Rand) time.Duration {
				return time.Second + time.Duration(rng.Int64N(int64(8*time.Second)))
			}})
		a.others = append(a.others, c)
	}
}

// act has a client publish, again and again.
func (a *actors) act(c *client, rng *rand.Rand, every time.Duration, next func(msg string) *flight) {
	for n := 1; a.pause(rng, every); n++ {
		f := next(fmt.Sprintf("%s/%d", c.id, n))
		for c.publish(f, window) != nil { // a client that is not connected, or has enough on its way
			c.mu.Lock()
			changed := c.changed
			c.mu.Unlock()
			if c.publish(f, window) == nil {
				break
			}
			select {
			case <-changed:
			case <-a.quit:
				return
			}
		}
	}
}

func (a *actors) retainedTopics() []string { return a.retained }

// stop has clients do nothing more, and those with a will leave.
func (a *actors) stop() {
	close(a.quit)
	a.acting.Wait()
	for _, c := range a.others {
		c.close()
	}
	a.others = nil
}

// idle waits until everything that was published is acknowledged, and every subscription stands.
func (a *actors) idle(limit time.Duration) error {
	for _, c := range append(a.publishers[:len(a.publishers):len(a.publishers)], a.subscribers...) {
		if err := a.swarm.until("clients have their answers", limit, c.idle); err != nil {
			return err
		}
	}
	return nil
}

// close ends all clients.
func (a *actors) close() {
	select {
	case <-a.quit:
	default:
		a.stop()
	}
	for _, c := range append(a.publishers, a.subscribers...) {
		c.close()
	}
}
