package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// patient is a node that is as alive as the test says.
type patient struct {
	mu   sync.Mutex
	err  error
	dumb bool // it does not even answer
}

func (p *patient) Status() admin.Status {
	s := admin.Status{Peers: 1}
	s.Connections = 2
	return s
}

func (p *patient) Alive(ctx context.Context) error {
	p.mu.Lock()
	err, dumb := p.err, p.dumb
	p.mu.Unlock()
	if dumb {
		<-ctx.Done()
		return errors.New("nobody answers")
	}
	return err
}

func (p *patient) be(err error, dumb bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.dumb = err, dumb
}

// TestWatchdog: the service manager hears of a node within its time while the node lives, and nothing while it hangs.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		said := make(chan string, 100)
		m := &manager{log: slog.New(slog.NewTextHandler(&log, nil)), send: func(state string) error {
			said <- state
			return nil
		}}
		t.Setenv("WATCHDOG_USEC", "6000000")
		p := &patient{}
		end := m.watch(p)
		for range 5 {
			select {
			case state := <-said:
				if want := "WATCHDOG=1\nSTATUS=2 clients, connected to 1 other node"; state != want {
					t.Fatalf("said %q, want %q", state, want)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("nothing said for 5 of 6 s")
			}
		}
		for _, dumb := range []bool{false, true} {
			p.be(errors.New("it hangs"), dumb)
			time.Sleep(30 * time.Second)
			if len(said) > 0 {
				t.Errorf("said of a node that hangs: %q", <-said)
			}
			p.be(nil, false)
			select {
			case <-said:
			case <-time.After(6 * time.Second):
				t.Error("nothing said of a node that lives again")
			}
		}
		p.be(nil, true)
		time.Sleep(3 * time.Second)
		end()
		if len(said) > 1 {
			t.Errorf("%d things said while it ended", len(said))
		}
		for _, want := range []string{`error="it hangs" waited=2s`, `error="nobody answers"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, &log)
			}
		}
	})
}

// TestNoWatchdog: without a service manager that asks for it, or with one that asks in vain, nobody watches.
func TestNoWatchdog(t *testing.T) {
	for _, usec := range []string{"", "soon"} {
		var log bytes.Buffer
		m := &manager{log: slog.New(slog.NewTextHandler(&log, nil)), send: func(state string) error {
			t.Errorf("%q: said %q", usec, state)
			return nil
		}}
		t.Setenv("WATCHDOG_USEC", usec)
		m.watch(&patient{})()
		if warned := strings.Contains(log.String(), "watchdog is not served"); warned != (usec != "") {
			t.Errorf("%q: the log is %q", usec, &log)
		}
	}
}

// TestTell: what is said arrives at a socket of the file system and at an abstract one; a socket that is not there is
// logged once and stops nobody.
func TestTell(t *testing.T) {
	status := (&patient{}).Status()
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@mozzie-test-" + filepath.Base(t.TempDir())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		m := newManager(slog.New(slog.DiscardHandler))
		for _, c := range []struct {
			say  func()
			want []string
		}{
			{func() { m.ready(status) }, []string{"READY=1", "STATUS=2 clients, connected to 1 other node"}},
			{m.reloading, []string{"RELOADING=1", "MONOTONIC_USEC=*", "STATUS=reloading"}},
			{m.stopping, []string{"STOPPING=1", "STATUS=stopping: handing over to other nodes"}},
		} {
			c.say()
			buf := make([]byte, 1000)
			if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := l.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(string(buf[:n]), "\n")
			if len(got) != len(c.want) {
				t.Errorf("%s: heard %q, want %q", name, got, c.want)
				continue
			}
			for i, want := range c.want {
				if before, ok := strings.CutSuffix(want, "*"); got[i] != want && (!ok || !strings.HasPrefix(got[i], before) || got[i] == before) {
					t.Errorf("%s: heard %q, want %q", name, got, c.want)
				}
			}
		}
	}
	var log bytes.Buffer
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	m := newManager(slog.New(slog.NewTextHandler(&log, nil)))
	m.ready(status)
	m.stopping()
	if n := strings.Count(log.String(), "cannot tell the service manager"); n != 1 {
		t.Errorf("logged %d times: %s", n, &log)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	log.Reset()
	m = newManager(slog.New(slog.NewTextHandler(&log, nil)))
	m.ready(status)
	if log.Len() > 0 {
		t.Errorf("without a service manager: %s", &log)
	}
}
