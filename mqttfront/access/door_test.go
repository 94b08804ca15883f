package access

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func tableOf(t *testing.T, passwords map[string]string) *Table {
	t.Helper()
	var es []Entry
	for name, pw := range passwords {
		es = append(es, Entry{Account: Account{Name: name, Hash: NewHash([]byte(pw), cheap)}, Changed: 1})
	}
	return NewTable(es...)
}

const here = "192.0.2.1:1000"

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := NewDoor(10), context.Background()
		tab := tableOf(t, map[string]string{"alice": "a", "bob": "b"}).With(Entry{Account: Account{Name: "cert"}, Changed: 1})
		for range 3 {
			if a, err := d.Login(ctx, tab, here, "alice", []byte("a")); err != nil || a.Name != "alice" {
				t.Errorf("%v, %v", a, err)
			}
		}
		if n := d.Stats.Hashed.Load(); n != 1 {
			t.Errorf("%d hashes for one password", n)
		}
		for _, wrong := range [][2]string{{"alice", "b"}, {"alice", ""}, {"carol", "a"}, {"", ""}, {"cert", ""}, {"cert", "x"}} {
			if _, err := d.Login(ctx, tab, here, wrong[0], []byte(wrong[1])); err != ErrWrong {
				t.Errorf("%q: %v", wrong, err)
			}
		}
		if n, h := d.Stats.Failed.Load(), d.Stats.Hashed.Load(); n != 6 || h != 7 {
			t.Errorf("%d failed, %d hashes: an unknown name has to cost what a wrong password does", n, h)
		}
		// Another password, and the old one is worth nothing; nor that of who is gone and came back.
		changed := tab.With(Entry{Account: Account{Name: "alice", Hash: NewHash([]byte("new"), cheap)}, Changed: 2})
		if _, err := d.Login(ctx, changed, here, "alice", []byte("a")); err != ErrWrong {
			t.Errorf("the old password: %v", err)
		}
		d.Forget(tab.With(Entry{Account: Account{Name: "alice"}, Deleted: true, Changed: 3}))
		if len(d.known) != 0 {
			t.Error("remembers who is gone")
		}
	})
}

// TestSlowed: wrong passwords of one address cost ever more time, right ones and those of others none.
func TestSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := NewDoor(100), context.Background()
		tab := tableOf(t, map[string]string{"alice": "a"})
		login := func(from, pw string) time.Duration {
			began := time.Now()
			_, err := d.Login(ctx, tab, from, "alice", []byte(pw))
			if (err == nil) != (pw == "a") {
				t.Errorf("%q from %s: %v", pw, from, err)
			}
			return time.Since(began)
		}
		for _, want := range []time.Duration{500, 1000, 2000, 4000, 8000, 8000} {
			if took := login("[2001:db8::1]:5", "x"); took != want*time.Millisecond {
				t.Errorf("took %v, want %v ms", took, want)
			}
			if took := login("[2001:db8::ffff:7]:5", "a"); took != 0 {
				t.Errorf("the right password took %v", took)
			}
		}
		if took := login("[2001:db8:0:1::1]:5", "x"); took != firstDelay {
			t.Errorf("another network took %v", took)
		}
		time.Sleep(forgetAfter + 1)
		if took := login("[2001:db8::1]:5", "x"); took != firstDelay {
			t.Errorf("after a while it took %v", took)
		}
	})
}

// TestFlood has many connections of one address guess at once, and hang up: no more guesses are judged than places allow.
// Who knows the password waits with the others and gets in; who comes from elsewhere does not wait.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(1000)
		tab := tableOf(t, map[string]string{"alice": "a"})
		impatient := func() { // gives up after 200 ms, and comes again, for a minute
			for end := time.Now().Add(time.Minute); time.Now().Before(end); {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				_, _ = d.Login(ctx, tab, here, "alice", []byte("x"))
				cancel()
			}
		}
		for range 200 {
			go impatient()
		}
		time.Sleep(30 * time.Second)
		began := time.Now()
		if _, err := d.Login(t.Context(), tab, "192.0.2.2:1", "alice", []byte("a")); err != nil || time.Since(began) > time.Millisecond {
			t.Errorf("from elsewhere: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := d.Login(ctx, tab, here, "alice", []byte("a")); err != nil {
			t.Errorf("behind the flood: %v after %v", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// 4 places, each taken for 0.5, 1, 2, 4 and then 8 s by a guess, in a minute.
		if n := d.Stats.Failed.Load(); n < 20 || n > 50 {
			t.Errorf("%d guesses in a minute", n)
		}
		if len(d.slow.by) != 1 || d.slow.waiting != 0 || d.slow.by["192.0.2.1"].queue != nil {
			t.Errorf("left behind: %+v", d.slow.by)
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(5)
		tab := tableOf(t, map[string]string{"alice": "a"})
		answers := make(chan error, 100)
		for range 100 {
			go func() {
				_, err := d.Login(t.Context(), tab, here, "alice", []byte("x"))
				answers <- err
			}()
		}
		synctest.Wait()
		busy := len(answers)
		for range busy {
			if err := <-answers; err != ErrBusy {
				t.Error(err)
			}
		}
		if busy != 100-attempts-5 || d.Stats.Busy.Load() != uint64(busy) {
			t.Errorf("%d of 100 turned away at once, %d counted", busy, d.Stats.Busy.Load())
		}
		for range 100 - busy {
			if err := <-answers; err != ErrWrong {
				t.Error(err)
			}
		}
	})
}

func TestLoginGivesUp(t *testing.T) {
	d := NewDoor(5)
	for range cap(d.turns) {
		d.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := d.Login(ctx, NewTable(), here, "alice", nil); err != cause {
		t.Error(err)
	}
	if d.waiting.Load() != 0 || len(d.slow.by) != 0 {
		t.Error("something is left behind")
	}
}

func TestAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:99": "192.0.2.7", "[::ffff:192.0.2.7]:99": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::",
		"[fe80::1%eth0]:99": "fe80::", "192.0.2.7": "192.0.2.7", "/run/mqtt.sock": "", "@": "", "": "",
	} {
		if got := addressKey(remote); got != want {
			t.Errorf("%s is %q, want %q", remote, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var s slowdown
		for i := range 3 * maxAddresses {
			key := fmt.Sprint(i)
			if _, err := s.enter(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			s.leave(key, true)
		}
		if len(s.by) != maxAddresses {
			t.Errorf("%d addresses are remembered", len(s.by))
		}
	})
}

// TestDecoy: a name without an account costs as much as some account, always the same one.
func TestDecoy(t *testing.T) {
	other := Cost{Memory: 16, Passes: 1, Lanes: 1}
	tab := NewTable(Entry{Account: Account{Name: "a", Hash: NewHash(nil, cheap)}}, Entry{Account: Account{Name: "b", Hash: NewHash(nil, other)}})
	seen := map[Cost]int{}
	for i := range 1000 {
		name := fmt.Sprint(i)
		c := tab.decoy([]byte("key"), name)
		if c != tab.decoy([]byte("key"), name) {
			t.Fatal("not always the same")
		}
		seen[c]++
	}
	if seen[cheap] < 400 || seen[other] < 400 {
		t.Errorf("%v", seen)
	}
	if NewTable().decoy(nil, "x") != DefaultCost {
		t.Error("without accounts")
	}
}

func BenchmarkHash(b *testing.B) {
	h := NewHash([]byte("secret"), DefaultCost)
	for b.Loop() {
		h.Matches([]byte("secret"))
	}
}

func BenchmarkLoginKnown(b *testing.B) {
	d, tab := NewDoor(10), NewTable(Entry{Account: Account{Name: "a", Hash: NewHash([]byte("secret"), DefaultCost)}})
	for b.Loop() {
		if _, err := d.Login(b.Context(), tab, here, "a", []byte("secret")); err != nil {
			b.Fatal(err)
		}
	}
}
