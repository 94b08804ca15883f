package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestSyncedBeforePuback looks at the system calls of a node: between the read of a QoS 1 PUBLISH that nobody has acknowledged
// and the write of its PUBACK, the message is written to the database's log, and a sync of that begins and succeeds.
func TestSyncedBeforePuback(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("strace is Linux's")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed; e2e/setup does that")
	}
	if out, err := exec.CommandContext(t.Context(), strace, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	n := newNode(t, "traced")
	trace := filepath.Join(t.TempDir(), "trace")
	n.prefix = []string{strace, "-DD", "-f", "-q", "-yy", "-xx", "-ttt", "-T", "-s", "65536", "-o", trace,
		"-e", "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync"}
	n.start()
	n.ready()
	sleeper := newRawClient(t, n.mqtt, "sleeper")
	sleeper.send(rawPacket(0x82, []byte{0, 1}, rawString("trace/#"), []byte{1}))
	sleeper.expect(0x90)
	sleeper.close()
	pub := newRawClient(t, n.mqtt, "publisher")
	const messages = 20
	for i := range byte(messages) {
		text := traced(i) + " " + traced(i) // one of them is in one block of the log
		pub.send(rawPacket(0x32, rawString("trace/1"), []byte{1, i}, []byte(text)))
		pub.expect(0x40)
	}
	port := strconv.Itoa(pub.conn.LocalAddr().(*net.TCPAddr).Port)
	pub.close()
	n.stop()
	eventually(t, patience, func() error { // strace ends after the node
		text, err := os.ReadFile(trace)
		if err == nil && !bytes.HasSuffix(bytes.TrimSpace(text), []byte("+++ exited with 0 +++")) {
			err = notYet("the trace has not ended")
		}
		return err
	})
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls, err := readTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(messages) {
		if err := syncedBetween(calls, port, []byte(traced(i)), []byte{0x40, 2, 1, i}); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

func traced(i byte) string { return fmt.Sprintf("traced message %04d", i) }

// tracedCall is one system call of a trace.
type tracedCall struct {
	name, file string // of the file or socket, what strace says of it
	data       []byte
	begin, end float64 // seconds
	result     int
}

// A line of a trace is a whole call, or its beginning, or the rest of one:
//
//	12 1700000000.000001 read(7<TCP:[127.0.0.1:1->127.0.0.1:2]>, "\x40", 512) = 1 <0.000012>
//	12 1700000000.000001 fdatasync(5<\x2f\x31\x2e\x6c\x6f\x67> <unfinished ...>
//	12 1700000000.000900 <... fdatasync resumed>) = 0 <0.000899>
var (
	traceLine  = regexp.MustCompile(`^(\d+) +(\d+\.\d+) (.*)$`)
	traceBegin = regexp.MustCompile(`^(\w+)\(\d+<(.*?)>[,) ]`)
	traceEnd   = regexp.MustCompile(`\) += (-?\d+).*<(\d+\.\d+)>$`)
	traceText  = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
	traceRest  = regexp.MustCompile(`^<\.\.\. \w+ resumed>`)
	unfinished = " <unfinished ...>"
)

// readTrace reads the calls of a trace that have ended, in the order of their ends. It takes no call for ended that may not
// have.
func readTrace(r io.Reader) (calls []tracedCall, err error) {
	type half struct {
		text string
		at   float64
	}
	open := map[string]half{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := traceLine.FindStringSubmatch(sc.Text())
		if line == nil {
			continue // a signal, or the end of a thread
		}
		thread, text := line[1], line[3]
		at, err := strconv.ParseFloat(line[2], 64)
		if err != nil {
			return nil, err
		}
		if begin, ok := strings.CutSuffix(text, unfinished); ok {
			open[thread] = half{begin, at}
			continue
		}
		if rest := traceRest.FindString(text); rest != "" {
			h, ok := open[thread]
			if !ok {
				return nil, fmt.Errorf("the rest of a call that has not begun: %s", sc.Text())
			}
			delete(open, thread)
			text, at = h.text+text[len(rest):], h.at
		}
		begin, end := traceBegin.FindStringSubmatch(text), traceEnd.FindStringSubmatch(text)
		if begin == nil || end == nil {
			continue
		}
		c := tracedCall{name: begin[1], file: begin[2], begin: at}
		if name, err := unhex(c.file); err == nil { // of a file; what a socket is, is in plain text
			c.file = string(name)
		}
		c.result, _ = strconv.Atoi(end[1])
		took, _ := strconv.ParseFloat(end[2], 64)
		c.end = at + took
		for _, s := range traceText.FindAllStringSubmatch(text, -1) {
			b, err := unhex(s[1])
			if err != nil {
				return nil, err
			}
			c.data = append(c.data, b...)
		}
		calls = append(calls, c)
	}
	slices.SortStableFunc(calls, func(a, b tracedCall) int { return int(1e6 * (a.end - b.end)) })
	return calls, sc.Err()
}

// unhex reads bytes as strace writes them with -xx.
func unhex(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, `\x`, "")) }

// syncedBetween finds, one after another, the read of a message from the client's port, the write of it to a log, a sync of that
// log which succeeds, and the write of its acknowledgement to the client. Each begins when the one before has ended.
func syncedBetween(calls []tracedCall, port string, message, ack []byte) error {
	client := func(c *tracedCall) bool { return strings.Contains(c.file, ":"+port+"]") }
	next := func(after float64, ok func(*tracedCall) bool) *tracedCall {
		for i := range calls {
			if c := &calls[i]; c.begin >= after && c.result >= 0 && ok(c) {
				return c
			}
		}
		return nil
	}
	read := next(0, func(c *tracedCall) bool {
		return client(c) && (strings.HasPrefix(c.name, "read") || strings.HasPrefix(c.name, "recv")) && bytes.Contains(c.data, message)
	})
	if read == nil {
		return fmt.Errorf("it is not read from the client")
	}
	acked := next(0, func(c *tracedCall) bool {
		return client(c) && (strings.HasPrefix(c.name, "write") || strings.HasPrefix(c.name, "send")) && bytes.Contains(c.data, ack)
	})
	if acked == nil {
		return fmt.Errorf("it is not acknowledged")
	}
	written := next(read.end, func(c *tracedCall) bool {
		return strings.HasSuffix(c.file, ".log") && strings.Contains(c.name, "write") && bytes.Contains(c.data, message)
	})
	if written == nil {
		return fmt.Errorf("it is not written to the log")
	}
	synced := next(written.end, func(c *tracedCall) bool {
		return c.file == written.file && (c.name == "fdatasync" || c.name == "fsync") && c.result == 0
	})
	if synced == nil {
		return fmt.Errorf("the log is not synced")
	}
	if acked.begin < synced.end {
		return fmt.Errorf("it is acknowledged %.6f s before the sync of the log has ended", synced.end-acked.begin)
	}
	return nil
}

// TestSyncedBetween has traces by hand: one as it should be, and some that are not.
func TestSyncedBetween(t *testing.T) {
	read := `7 100.000000 read(9<TCP:[127.0.0.1:1883->127.0.0.1:5555]>, "\x32\x6d\x73\x67", 4096) = 4 <0.000010>`
	write := `8 100.000100 write(4<\x2f\x32\x2e\x6c\x6f\x67>, "\x00\x6d\x73\x67", 4) = 4 <0.000010>`
	began := `8 100.000200 fdatasync(4<\x2f\x32\x2e\x6c\x6f\x67> <unfinished ...>`
	ended := `8 100.000900 <... fdatasync resumed>) = 0 <0.000700>`
	puback := `7 100.001000 write(9<TCP:[127.0.0.1:1883->127.0.0.1:5555]>, "\x40\x02\x00\x01", 4) = 4 <0.000010>`
	early := strings.Replace(puback, "100.001000", "100.000850", 1)
	for _, c := range []struct {
		what  string
		lines []string
		fails string
	}{
		{"as it should be", []string{read, write, began, ended, puback}, ""},
		{"acknowledged while it is synced", []string{read, write, began, early, ended}, "before the sync"},
		{"never synced", []string{read, write, puback}, "not synced"},
		{"a sync that does not end", []string{read, write, began, puback}, "not synced"},
		{"a sync that fails", []string{read, write, began, strings.Replace(ended, "= 0", "= -1 EIO (Input/output error)", 1), puback}, "not synced"},
		{"another file is synced", []string{read, write, strings.Replace(began, `\x32`, `\x31`, 1), ended, puback}, "not synced"},
		{"synced before it is written", []string{read, began, strings.NewReplacer("100.000900", "100.000290", "0.000700", "0.000090").Replace(ended), strings.Replace(write, "100.000100", "100.000300", 1), puback}, "not synced"},
		{"not written", []string{read, began, ended, puback}, "not written"},
		{"not acknowledged", []string{read, write, began, ended}, "not acknowledged"},
	} {
		calls, err := readTrace(strings.NewReader(strings.Join(c.lines, "\n")))
		if err == nil {
			err = syncedBetween(calls, "5555", []byte("msg"), []byte{0x40, 2, 0, 1})
		}
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
