package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

type slowSigner struct {
	*ecdsa.PrivateKey
	now, most *atomic.Int64
}

func (s slowSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
	}
	time.Sleep(time.Millisecond) // for others to come in, were they let
	return s.PrivateKey.Sign(rand, digest, crypto.SHA256)
}

// TestClock: a clock that is before the program is not believed, and the latest time known stands in until it is right.
func TestClock(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "data"))
	machine := clockAt(time.Unix(0, 0))
	c := newClock(d, written, machine.now)
	if !c.Wrong() || !c.Now().Equal(written) {
		t.Errorf("in 1970 on the first start, it is %v", c.Now())
	}
	machine.add(time.Hour)
	if want := written.Add(time.Hour); !c.Now().Equal(want) {
		t.Errorf("an hour later, it is %v, want %v", c.Now(), want)
	}
	if _, err := os.Stat(d.Path(clockFile)); err == nil {
		t.Error("a time that is not believed is kept")
	}
	machine.set(today)
	if c.Wrong() || !c.Now().Equal(today) {
		t.Errorf("with the time from the network, it is %v", c.Now())
	}
	machine.add(time.Minute)
	c.Now() // too early to be kept again
	machine.set(time.Unix(100, 0))
	again := newClock(d, written, machine.now)
	if !again.Wrong() || !again.Now().Equal(today) {
		t.Errorf("in 1970 after a restart, it is %v, want %v", again.Now(), today)
	}
	machine.add(-50 * time.Second)
	if !again.Now().Equal(today) {
		t.Errorf("when the clock goes back, it is %v", again.Now())
	}
	// A time far ahead that was believed once does no harm once the clock is right.
	machine.set(today.AddDate(70, 0, 0))
	again.Now()
	machine.set(today)
	if late := newClock(d, written, machine.now); !late.Now().Equal(today) {
		t.Errorf("after a time far ahead, it is %v, want %v", late.Now(), today)
	}
	if built := builtAt(); built.Before(written) {
		t.Errorf("the program is from %v", built)
	}
}

// TestBootIn1970: clients with certificates are served by a node that does not know the time, and that gets to know it.
func TestBootIn1970(t *testing.T) {
	ca := newAuthority(t, "ca")
	certFile, keyFile, _ := ca.issue("server", nil)
	_, _, good := ca.issue("good", nil)
	machine := clockAt(time.Unix(20, 0))
	l, err := newKeeper(t, machine.now).Listener(Files{Certificate: certFile, Key: keyFile, ClientCA: ca.file()})
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: pool(ca.cert), ServerName: "localhost", Certificates: []tls.Certificate{good}, Time: clockAt(today).now,
		ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	for _, when := range []time.Time{time.Unix(20, 0), time.Unix(3000, 0), today, today.Add(time.Hour)} {
		machine.set(when)
		if _, server, err := shake(l, client); server != nil || err != nil {
			t.Errorf("at %v: %v, %v", when, server, err)
		}
	}
	machine.set(written.AddDate(30, 0, 0))
	if _, server, _ := shake(l, client); server == nil {
		t.Error("an expired certificate is taken once the time is known")
	}
}

// TestBuiltAt: a program that is installed elsewhere knows when it is from by what it was linked with.
func TestBuiltAt(t *testing.T) {
	before := linked
	defer func() { linked = before }()
	for _, c := range []struct {
		linked string
		want   time.Time
	}{
		{"4000000000", time.Unix(4000000000, 0)},
		{"0", time.Time{}}, // cannot be
		{"soon", time.Time{}},
		{"", time.Time{}},
	} {
		linked = c.linked
		got := builtAt()
		if c.want.IsZero() && (got.Before(written) || got.After(time.Now())) || !c.want.IsZero() && !got.Equal(c.want) {
			t.Errorf("linked with %q: built at %v", c.linked, got)
		}
	}
}
