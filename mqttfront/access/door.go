package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// ErrWrong says that there is no account of that name, or that its password is another one. Nothing tells which.
var ErrWrong = errors.New("wrong user name or password")

// ErrBusy says that so many logins wait already that this one cannot.
var ErrBusy = errors.New("too many logins wait")

// Door lets in who knows a password. It computes few hashes at a time, holds up those who try, and remembers which
// passwords were right, so that devices that all come back at once do not wait for hashes.
//
// What it remembers of a password is an HMAC-SHA256 with a key that is made at the start and kept in memory alone.
type Door struct {
	slow  slowdown
	turns chan struct{} // for computing hashes: 19 MiB each, mostly
	most  int           // logins that may wait for that, and answers that may be held back
	key   [32]byte

	waiting  atomic.Int64 // for their turn
	delaying atomic.Int64 // answers

	mu    sync.Mutex
	known map[string][sha256.Size]byte // by account, what its right password makes

	// Stats counts; anybody may read.
	Stats DoorStats
}

// DoorStats counts logins with a password.
type DoorStats struct {
	Failed atomic.Uint64 // wrong name or password
	Slowed atomic.Uint64 // had to wait because others of their address had failed, or many were judged
	Busy   atomic.Uint64 // turned away because too many waited
	Hashed atomic.Uint64 // that took the computing of a hash
}

// NewDoor returns a door before which so many logins may wait.
func NewDoor(waiting int) *Door {
	d := &Door{turns: make(chan struct{}, max(1, min(2, runtime.GOMAXPROCS(0)/2))), most: waiting, known: make(map[string][sha256.Size]byte)}
	d.slow.most = waiting
	_, _ = rand.Read(d.key[:]) // never fails
	return d
}

// Login returns the account of a name if the password is right. It takes its time, until ctx ends at the latest: the
// error is ErrWrong, ErrBusy or why ctx ended.
func (d *Door) Login(ctx context.Context, t *Table, remote, name string, password []byte) (Account, error) {
	key := addressKey(remote)
	waited, err := d.slow.enter(ctx, key)
	if waited {
		d.Stats.Slowed.Add(1)
	}
	if err != nil {
		return Account{}, d.refused(err)
	}
	a, err := d.judge(ctx, t, name, password)
	delay := d.slow.leave(key, err == ErrWrong)
	if err == nil {
		return a, nil
	}
	if err == ErrWrong {
		d.Stats.Failed.Add(1)
		d.holdBack(ctx, delay)
	}
	return Account{}, d.refused(err)
}

func (d *Door) refused(err error) error {
	if err != ErrWrong {
		d.Stats.Busy.Add(1)
	}
	return err
}

// holdBack waits before a wrong login is answered, unless many answers wait.
func (d *Door) holdBack(ctx context.Context, delay time.Duration) {
	defer d.delaying.Add(-1)
	if d.delaying.Add(1) > int64(d.most) {
		return
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// judge checks a password.
func (d *Door) judge(ctx context.Context, t *Table, name string, password []byte) (Account, error) {
	a, ok := t.Get(name)
	ok = ok && !a.Hash.IsZero()
	mac := d.mac(a.Hash, password)
	if ok && d.isKnown(name, mac) {
		return a, nil
	}
	if err := d.turn(ctx); err != nil {
		return Account{}, err
	}
	defer func() { <-d.turns }()
	d.Stats.Hashed.Add(1)
	if !ok { // takes as long as a wrong password does
		c := t.decoy(d.key[:], name)
		argon2.IDKey(password, d.key[:newSalt], c.Passes, c.Memory, c.Lanes, newKey)
		return Account{}, ErrWrong
	}
	if !a.Hash.Matches(password) {
		return Account{}, ErrWrong
	}
	d.mu.Lock()
	d.known[name] = mac
	d.mu.Unlock()
	return a, nil
}

// turn waits until a hash may be computed.
func (d *Door) turn(ctx context.Context) error {
	defer d.waiting.Add(-1)
	if d.waiting.Add(1) > int64(d.most) {
		return ErrBusy
	}
	select {
	case d.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// mac is what is remembered of a password that was right: it holds for one hash only.
func (d *Door) mac(h Hash, password []byte) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, d.key[:])
	m.Write([]byte(h.String()))
	m.Write([]byte{0})
	m.Write(password)
	m.Sum(sum[:0])
	return sum
}

func (d *Door) isKnown(name string, mac [sha256.Size]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.known[name]
	return ok && hmac.Equal(known[:], mac[:])
}

// Forget drops what is remembered of accounts that are not in a table. (Of those that have another hash now, what is
// remembered fits no more.)
func (d *Door) Forget(t *Table) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.known {
		if _, ok := t.Get(name); !ok {
			delete(d.known, name)
		}
	}
}

// Hash computes the hash of a new password, in turn with those of logins.
func (d *Door) Hash(ctx context.Context, password []byte, cost Cost) (Hash, error) {
	if err := d.turn(ctx); err != nil {
		return Hash{}, err
	}
	defer func() { <-d.turns }()
	return NewHash(password, cost), nil
}

// decoy returns what it costs to turn away a name that has no account: as much as for one of the accounts, for each
// name always the same, so that time does not tell which names there are.
func (t *Table) decoy(key []byte, name string) Cost {
	if len(t.costs) == 0 {
		return DefaultCost
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(name))
	return t.costs[binary.BigEndian.Uint64(m.Sum(nil))%uint64(len(t.costs))]
}
