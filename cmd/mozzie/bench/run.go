package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// Times of a run that nobody has had to choose yet.
const (
	keepAlive  = 60 * time.Second
	pingEvery  = 20 * time.Second
	watchEvery = time.Second
	drainPoll  = 5 * time.Millisecond // arrivals tell the publishers only
	cutOff     = 5 * time.Second      // for publishers whose broker does not read, at the end
)

// run is one measurement.
type run struct {
	Load
	id          uint32
	began       time.Time
	publishers  []*publisher
	subscribers []*subscriber
	streams     []*stream

	measuring atomic.Bool // latencies count
	stopped   atomic.Bool // publishers end
	closing   atomic.Bool // connections end because we close them

	sending, reading, pinging sync.WaitGroup
	broken                    chan struct{} // closed with the first problem
	over                      chan struct{} // closed by close

	mu       sync.Mutex
	problems []error
}

// Progress is how a run goes.
type Progress struct {
	Elapsed, Total time.Duration // of warming up and measuring
	Rate           float64       // messages/s delivered since the last
	Delivered      uint64
}

// Measure runs a load that was completed. It calls watch, if there is one, about once a second. At the end of ctx it
// returns what was measured until then. An error says that nothing was; what goes wrong with a client is in the result.
func Measure(ctx context.Context, l Load, watch func(Progress)) (*Result, error) {
	r := &run{Load: l, id: rand.Uint32(), began: time.Now(), broken: make(chan struct{}), over: make(chan struct{})}
	r.plan()
	defer r.close()
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, l.Settle); err != nil {
		return nil, err
	}
	r.start()
	begin := r.now()
	r.await(ctx, begin, l.Warmup, watch)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.measuring.Store(true)
	before, err := r.sample()
	if err != nil {
		return nil, err
	}
	r.await(ctx, begin, l.Warmup+l.Duration, watch)
	after, err := r.sample()
	if err != nil {
		return nil, err
	}
	r.stop()
	r.drain()
	r.close()
	return r.result(before, after), nil
}

// now is the time since the run began: what messages are stamped with. It is time.Now, as clients call it that stamp what
// they publish, and not time.Since, which saves one of its two clocks: a generator should be no cheaper than a client.
func (r *run) now() time.Duration { return time.Now().Sub(r.began) } //nolint:staticcheck // S1012: see above

// plan lays out who publishes and subscribes to what.
func (r *run) plan() {
	for range r.Subscribers {
		r.subscribers = append(r.subscribers, &subscriber{run: r})
	}
	for i := range r.Publishers {
		p := &publisher{run: r, index: i, wake: make(chan struct{}, 1)}
		r.publishers = append(r.publishers, p)
		for t := range r.Topics {
			if shares(r.Topics, t, r.Publishers, i) {
				r.addStream(p, t)
			}
		}
	}
	for _, s := range r.subscribers {
		s.flows = make([]*flow, len(r.streams))
	}
	for _, st := range r.streams {
		for i, s := range r.subscribers {
			if r.Wildcard || shares(r.Topics, st.topicNumber, r.Subscribers, i) {
				s.flows[st.number] = &flow{stream: st}
				st.fan++
			}
		}
		st.publisher.fan = max(st.publisher.fan, st.fan)
	}
}

func (r *run) addStream(p *publisher, t int) {
	s := &stream{number: uint32(len(r.streams)), topicNumber: t, topic: r.topic(r.id, t), publisher: p}
	s.encode(r.id, &r.Load)
	p.streams = append(p.streams, s)
	r.streams = append(r.streams, s)
}

// connect connects and subscribes everybody, the subscribers first.
func (r *run) connect(ctx context.Context) error {
	buffer := min(maxReadBuffer, max(minReadBuffer, readBuffers/r.Subscribers))
	for i, s := range r.subscribers {
		var filters []client.Subscription
		for _, f := range r.filters(r.id, i) {
			filters = append(filters, client.Subscription{Filter: f, QoS: r.QoS})
		}
		c, err := r.dial(ctx, "s", i, r.SubscribeAt, filters, buffer)
		if err != nil {
			return err
		}
		s.conn = c
	}
	for i, p := range r.publishers {
		c, err := r.dial(ctx, "p", i, r.PublishTo, nil, minReadBuffer)
		if err != nil {
			return err
		}
		p.conn = c
		for id := min(r.Window, c.window); id > 0; id-- {
			p.ids = append(p.ids, uint16(id))
		}
		if r.QoS > 0 && r.Rate > 0 {
			p.sentAt = make([]atomic.Int64, len(p.ids)+1)
		}
	}
	return nil
}

// subscribeBatch is how many filters go into one SUBSCRIBE; brokers have limits.
const subscribeBatch = 32

// dial connects the i-th client of a kind to the broker whose turn it is.
func (r *run) dial(ctx context.Context, kind string, i int, brokers []string, filters []client.Subscription, buffer int) (*conn, error) {
	o := r.options(kind, i, brokers)
	if r.Persistent && len(filters) > 0 {
		o.Clean = false
		if o.Version == client.Version5 {
			o.SessionExpiry = client.NeverExpires
		}
	}
	raw, err := client.OpenRaw(ctx, o)
	if err != nil {
		return nil, err
	}
	for len(filters) > 0 {
		n := min(subscribeBatch, len(filters))
		if err := raw.Subscribe(ctx, filters[:n]); err != nil {
			raw.Conn.Close()
			return nil, fmt.Errorf("%s: %w", o.Address, err)
		}
		filters = filters[n:]
	}
	return newConn(raw, o.Version, buffer), nil
}

func (r *run) options(kind string, i int, brokers []string) client.Options {
	o := r.Client
	o.Address = brokers[i%len(brokers)]
	o.ClientID = fmt.Sprintf("bench%08x%s%d", r.id, kind, i)
	o.Clean = true
	o.KeepAlive = uint16(keepAlive / time.Second)
	return o
}

// forgotten is how long the broker has to end a session.
const forgotten = 10 * time.Second

// endSessions has the broker forget the subscribers' sessions.
func (r *run) endSessions() {
	ctx, cancel := context.WithTimeout(context.Background(), forgotten)
	defer cancel()
	for i, s := range r.subscribers {
		if s.conn == nil {
			continue
		}
		if raw, err := client.OpenRaw(ctx, r.options("s", i, r.SubscribeAt)); err == nil { // else it is the broker's to forget
			goodbye(raw)
		}
	}
}

// start lets everybody run.
func (r *run) start() {
	for i, s := range r.subscribers {
		r.reading.Go(func() { r.check("subscriber", i, s.receive()) })
	}
	for i, p := range r.publishers {
		r.reading.Go(func() { r.check("publisher", i, p.answers()) })
	}
	for i, p := range r.publishers {
		r.sending.Go(func() { r.check("publisher", i, p.publish()) })
	}
	r.pinging.Go(r.runPing)
}

// check notes what went wrong with a client, unless we are closing the connections. One problem ends the run.
func (r *run) check(kind string, i int, err error) {
	if err == nil || r.closing.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) == 0 {
		close(r.broken)
	}
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, fmt.Errorf("%s %d: %w", kind, i+1, err))
	}
}

// maxProblems bounds what a result says went wrong; it is mostly the same.
const maxProblems = 5

// runPing keeps the connections alive: those that only listen say nothing else.
func (r *run) runPing() {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-r.broken:
			return
		case <-r.over:
			return
		case <-t.C:
		}
		for i, s := range r.subscribers {
			r.check("subscriber", i, s.conn.ping())
		}
		for i, p := range r.publishers {
			r.check("publisher", i, p.conn.ping())
		}
	}
}

// await waits until so long after begin, or until the run has to end.
func (r *run) await(ctx context.Context, begin, length time.Duration, watch func(Progress)) {
	end := time.NewTimer(begin + length - r.now())
	defer end.Stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last, lastAt := r.delivered(), r.now()
	for {
		select {
		case <-end.C:
			return
		case <-ctx.Done():
			return
		case <-r.broken:
			return
		case <-tick.C:
			if watch == nil {
				continue
			}
			n, now := r.delivered(), r.now()
			watch(Progress{
				Elapsed: now - begin, Total: r.Warmup + r.Duration, Delivered: n,
				Rate: float64(n-last) / (now - lastAt).Seconds(),
			})
			last, lastAt = n, now
		}
	}
}

// delivered is how many messages have arrived, each counted for each of its subscribers.
func (r *run) delivered() (n uint64) {
	for _, p := range r.publishers {
		n += p.delivered.Load()
	}
	return n
}

// stop ends the publishers and waits for them.
func (r *run) stop() {
	r.wake()
	for _, p := range r.publishers {
		p.conn.SetWriteDeadline(time.Now().Add(cutOff))
	}
	r.sending.Wait()
}

// wake tells the publishers that it is over.
func (r *run) wake() {
	r.stopped.Store(true)
	for _, p := range r.publishers {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// drain waits until all that was sent has arrived, or nothing has for long enough.
func (r *run) drain() {
	due := uint64(0)
	for _, s := range r.streams {
		due += s.sent * s.fan
	}
	n, since := r.delivered(), time.Now()
	for n < due && time.Since(since) < r.Drain && !r.failed() {
		time.Sleep(drainPoll)
		if now := r.delivered(); now != n {
			n, since = now, time.Now()
		}
	}
}

func (r *run) failed() bool {
	select {
	case <-r.broken:
		return true
	default:
		return false
	}
}

// close closes all connections and waits until nothing of the run goes on. It may be called twice.
func (r *run) close() {
	if r.closing.Swap(true) {
		return
	}
	r.wake()
	close(r.over)
	var hanging sync.WaitGroup // side by side, since each may wait for a broker that does not read
	for _, s := range r.subscribers {
		if s.conn != nil {
			hanging.Go(s.conn.hangUp)
		}
	}
	for _, p := range r.publishers {
		if p.conn != nil {
			hanging.Go(p.conn.hangUp)
		}
	}
	hanging.Wait()
	r.pinging.Wait()
	r.sending.Wait()
	r.reading.Wait()
	if r.Persistent {
		r.endSessions()
	}
}

// sleep sleeps, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
