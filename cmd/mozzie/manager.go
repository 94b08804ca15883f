package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/mozzie-mqtt/mozzie/node/admin"
)

// manager is the service manager that has started the program, where it wants to hear how the node is (systemd's
// Type=notify, sd_notify(3)). Where there is none, as in a terminal, nothing happens. Its methods are safe for
// concurrent use.
type manager struct {
	log  *slog.Logger
	send func(state string) error // replaced in tests

	failed sync.Once // what cannot be said is logged once
}

func newManager(log *slog.Logger) *manager {
	return &manager{log: log, send: func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}}
}

// ready says that clients are served: after the start, and again at the end of a reload.
func (m *manager) ready(s admin.Status) {
	m.tell(daemon.SdNotifyReady + "\nSTATUS=" + statusLine(s))
}

// reloading says that the configuration is being read again. ready says when that is done, also where it failed.
func (m *manager) reloading() {
	m.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + "STATUS=reloading")
}

// stopping says that the node takes its leave.
func (m *manager) stopping() {
	m.tell(daemon.SdNotifyStopping + "\nSTATUS=stopping: handing over to other nodes")
}

func (m *manager) tell(state string) {
	if err := m.send(state); err != nil {
		m.failed.Do(func() { m.log.Warn("cannot tell the service manager how the node is", "error", err) })
	}
}

// watched is what the watchdog needs of a node.
type watched interface {
	// Alive returns nil when the node has shown that it does its work, or at the end of ctx what hangs.
	Alive(ctx context.Context) error
	Status() admin.Status
}

// watch starts the watchdog, if the service manager wants one: at half of its time the node is asked whether it is
// alive, and only if it is, the service manager is told. Otherwise that restarts it. The function that is returned ends
// the watchdog and waits for it.
func (m *manager) watch(n watched) (end func()) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog is not served", "error", err)
	}
	if within <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.runWatchdog(ctx, n, within) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func (m *manager) runWatchdog(ctx context.Context, n watched, within time.Duration) {
	t := time.NewTicker(within / 2)
	defer t.Stop()
	for {
		m.check(ctx, n, within/3) // less than the other half, so that what is slow still counts
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *manager) check(ctx context.Context, n watched, patience time.Duration) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := n.Alive(limited)
	switch {
	case ctx.Err() != nil: // the node is being stopped
	case err != nil:
		m.log.Error("the node hangs: the service manager is not told that it lives, and may restart it", "error", err, "waited", patience)
	default:
		m.tell(daemon.SdNotifyWatchdog + "\nSTATUS=" + statusLine(n.Status()))
	}
}

// statusLine is a node in the one line that "systemctl status" has for it.
func statusLine(s admin.Status) string {
	return fmt.Sprintf("%s, connected to %s", count(s.Connections, "client"), count(s.Peers, "other node"))
}
