//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a terminal with a program at it.
type console struct {
	t    *testing.T
	ours *os.File // the side of who types
	tty  *os.File
	was  unix.Termios
	cmd  *exec.Cmd
	said strings.Builder
}

// atTerminal starts a command line at a terminal of its own.
func atTerminal(t *testing.T, args ...string) *console {
	t.Helper()
	c := &console{t: t}
	var err error
	if c.ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { c.ours.Close() })
	number, err := unix.IoctlGetInt(int(c.ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(c.ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		c.tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.tty.Close() })
	c.was = c.state()
	c.cmd = exec.Command("mozzie", args...) // which testscript.Main has put into the PATH
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = c.tty, c.tty, c.tty
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	t.Cleanup(func() { stuck.Stop() })
	return c
}

func (c *console) state() unix.Termios {
	c.t.Helper()
	s, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return *s
}

// answer types an answer as soon as there is a question.
func (c *console) answer(question, text string) {
	c.t.Helper()
	for b := make([]byte, 256); !strings.HasSuffix(c.said.String(), question); {
		n, err := c.ours.Read(b)
		if err != nil {
			c.t.Fatalf("%v after %q", err, c.said.String())
		}
		c.said.Write(b[:n])
	}
	if _, err := c.ours.WriteString(text); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the program, which must leave the terminal as it was. It returns all that was to be seen.
func (c *console) ends(code int) string {
	c.t.Helper()
	_ = c.cmd.Wait() // its code says enough
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("exit code %d, want %d", got, code)
	}
	if now := c.state(); now != c.was {
		c.t.Errorf("the terminal is not as it was: %+v, was %+v", now, c.was)
	}
	const end = "that is all"
	if _, err := c.tty.WriteString(end); err != nil {
		c.t.Fatal(err)
	}
	c.answer(end, "")
	return strings.ReplaceAll(c.said.String(), "\r", "")
}

const (
	first, again = "New password for alice: ", "Again: "
	nothingDone  = "\nmozzie: interrupted: nothing was changed\nthat is all"
)

// TestPasswordPrompt types passwords at a terminal: nothing of them is to be seen, whatever ends it the terminal is as it
// was, and only one that was typed alike twice is taken.
func TestPasswordPrompt(t *testing.T) {
	data := filepath.Join(t.TempDir(), "a")
	start := func(t *testing.T) *console { return atTerminal(t, "passwd", "alice", "--data", data) }
	made := "\nalice: account made, in " + data + ", whose node does not run\nthat is all"
	refused := "\nmozzie: the two are not the same: nothing was changed\nthat is all"
	empty := "\nmozzie: the password is empty; --none says that there shall be none\nthat is all"
	for _, tc := range []struct {
		what, one, two string // what is typed at the two questions
		code           int
		end            string
	}{
		{"another", "geheim\r", "gehein\r", 1, first + "\n" + again + refused},
		{"nothing", "\r", "\r", 2, first + "\n" + again + empty},
		{"Ctrl-C", "gehe\x03", "", 130, first + nothingDone},
		{"Ctrl-C at the second", "geheim\r", "gehe\x03", 130, first + "\n" + again + nothingDone},
		{"Ctrl-D", "\x04", "", 130, first + nothingDone},
		{"the same", "gehx\x7feim\r", "oh no\x15geheim\r", 0, first + "\n" + again + made},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := start(t)
			c.answer(first, tc.one)
			if tc.two != "" {
				c.answer(again, tc.two)
			}
			if said := c.ends(tc.code); said != tc.end {
				t.Errorf("%q, want %q", said, tc.end)
			}
			_, err := os.Stat(filepath.Join(data, "accounts.yaml"))
			if changed := err == nil; changed != (tc.code == 0) {
				t.Errorf("an account was made: %v", changed)
			}
		})
	}
	t.Run("SIGTERM", func(t *testing.T) {
		c := start(t)
		c.answer(first, "")
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if said := c.ends(130); said != first+nothingDone {
			t.Errorf("%q", said)
		}
	})
	t.Run("a pipe", func(t *testing.T) {
		cmd := exec.Command("mozzie", "passwd", "alice", "--stdin", "--data", data)
		cmd.Stdin = strings.NewReader("geheim\r\nthe next line\n")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "alice: password changed") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
