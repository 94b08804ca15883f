package access

import (
	"strings"
	"testing"
	"time"
)

// cheap is a cost for tests.
var cheap = Cost{Memory: 8, Passes: 1, Lanes: 1}

func TestHash(t *testing.T) {
	for _, cost := range []Cost{cheap, RandomCost, {Memory: 64, Passes: 3, Lanes: 4}} {
		h := NewHash([]byte("secret"), cost)
		again, err := ParseHash(h.String())
		if err != nil || again != h || !again.Matches([]byte("secret")) || again.Matches([]byte("Secret")) || again.Matches(nil) {
			t.Errorf("%s: %v, %v", h, again, err)
		}
	}
	if a, b := NewHash([]byte("x"), cheap), NewHash([]byte("x"), cheap); a == b {
		t.Error("two hashes have one salt")
	}
	if (Hash{}).Matches(nil) || (Hash{}).Matches([]byte("")) {
		t.Error("no password is matched by none")
	}
	if err := DefaultCost.check(); err != nil {
		t.Error(err)
	}
	if a, b := RandomPassword(), RandomPassword(); a == b || len(a) != 26 {
		t.Errorf("random passwords %q and %q", a, b)
	}
}

// TestHashElsewhere has hashes of the reference implementation (its test.c).
func TestHashElsewhere(t *testing.T) {
	const text = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	h, err := ParseHash(text)
	if err != nil || !h.Matches([]byte("password")) {
		t.Errorf("%v, %v", h, err)
	}
}

func TestParseHashRefuses(t *testing.T) {
	good := NewHash([]byte("x"), cheap).String()
	for _, text := range []string{
		"", "x", "secret", strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=8", "m=4194304", 1), strings.Replace(good, "m=8", "m=7", 1), strings.Replace(good, "m=8", "m=08", 1),
		strings.Replace(good, "m=8", "m=+8", 1), strings.Replace(good, "t=1", "t=0", 1), strings.Replace(good, "t=1", "t=4294967295", 1),
		strings.Replace(good, "p=1", "p=0", 1), strings.Replace(good, "p=1", "p=255", 1), strings.Replace(good, "m=8", "m=-8", 1),
		strings.Replace(good, "m=8,t=1", "t=1,m=8", 1), good + "=", good + "$", good[:len(good)-30], good + strings.Repeat("A", 100),
		strings.Replace(good, "m=8,t=1", "m=65536,t=5", 1),
	} {
		if h, err := ParseHash(text); err == nil {
			t.Errorf("%q is %v", text, h)
		}
	}
}

// FuzzParseHash: what is accepted has one form, and is bounded.
func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHash(text)
		if err != nil {
			return
		}
		if h.String() != text {
			t.Errorf("%q is written %q", text, h)
		}
		if h.cost.check() != nil || uint64(h.cost.Memory)*uint64(h.cost.Passes) > maxWork {
			t.Errorf("%q costs too much", text)
		}
	})
}

func TestStamp(t *testing.T) {
	for _, s := range []Stamp{0, 1, 65535, 1 << 16, stampAt(1792000000123) + 7, stampAt(maxMillis) + 65535} {
		if again, err := ParseStamp(s.String()); err != nil || again != s {
			t.Errorf("%d is %s is %d, %v", s, s, again, err)
		}
	}
	for _, text := range []string{"", "now", "2026-11-22", "2026-11-22T21:30:08Z", "2026-11-22T21:30:08.123Z+0", "2026-11-22T21:30:08.123Z+65536",
		"2026-11-22T21:30:08.123Z+01", "1969-11-22T21:30:08.123Z", "2026-11-22T21:30:08.123+01:00"} {
		if s, err := ParseStamp(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
}

func TestClock(t *testing.T) {
	var c Clock
	now := time.UnixMilli(1000)
	a, b := c.Next(now), c.Next(now)
	if b <= a || c.Next(now.Add(-time.Second)) <= b {
		t.Error("time stands still")
	}
	c.Saw(stampAt(5000) + 65535)
	if s := c.Next(now); s != stampAt(5001) {
		t.Errorf("behind what was seen: %s", s)
	}
	if s := c.Next(time.UnixMilli(9000)); s != stampAt(9000) {
		t.Errorf("%s", s)
	}
}
