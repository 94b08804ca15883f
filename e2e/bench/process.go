package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long processes may take.
const (
	startTime = 30 * time.Second
	stopTime  = 12 * time.Second
	poll      = 50 * time.Millisecond // they tell only by being asked
)

// broker is one or more processes that are one broker to their clients.
type broker struct {
	name               string
	publish, subscribe string // host:port
	processes          []*process
	topics             []string // of a swarm: for each node, a first level that has it as its rendezvous
}

func (b *broker) pids() string {
	var all []string
	for _, p := range b.processes {
		all = append(all, strconv.Itoa(p.cmd.Process.Pid))
	}
	return strings.Join(all, ",")
}

// stop stops the processes, all at once.
func (b *broker) stop() {
	for _, p := range b.processes {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	for _, p := range b.processes {
		kill := time.AfterFunc(stopTime, func() { _ = p.cmd.Process.Kill() })
		<-p.ended
		kill.Stop()
	}
}

// process is a program that runs until it is stopped.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start starts a program of the broker, with a log in dir.
func (b *broker) start(dir, program string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := &process{log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who stop it in order
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // whoever needs to know reads the log
		close(p.ended)
	}()
	b.processes = append(b.processes, p)
	return p, nil
}

// until waits until something is so that a process does not tell by itself.
func (p *process) until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for !ok() {
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended: %w", filepath.Base(p.cmd.Path), p.last())
		case <-ctx.Done():
			return fmt.Errorf("%s did not %s: %w", filepath.Base(p.cmd.Path), what, p.last())
		case <-time.After(poll):
		}
	}
	return nil
}

// last returns the last line of the log, as an error.
func (p *process) last() error {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	text = bytes.TrimSpace(text)
	return errors.New(string(text[bytes.LastIndexByte(text, '\n')+1:]))
}

// accepts reports whether somebody listens.
func accepts(address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}

// ports returns n free ports of loopback.
func ports(n int) (all []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that they differ
		all = append(all, l.Addr().(*net.TCPAddr).Port)
	}
	return all, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
