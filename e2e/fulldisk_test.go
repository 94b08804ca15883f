package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// smallDisk mounts a file system of so many bytes at a directory, for as long as the test takes.
func smallDisk(t *testing.T, dir string, size int) {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("mode=0700,size=", size)); errors.Is(err, syscall.EPERM) {
		t.Skip("this root may not mount file systems")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill takes what is left of a disk. The function that is returned gives it back.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; { // to the last byte
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if f.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// readyz asks whether the node is ready, and what it says to that.
func (n *node) readyz() (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin+"/readyz", nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// refusedWith publishes, and returns the reason code of the answer; 0: it was accepted.
func refusedWith(t *testing.T, c *mqtt.Client, m mqtt.Message) byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := c.Publish(ctx, m)
	var refused *mqtt.RefusedError
	if errors.As(err, &refused) {
		return refused.Code
	} else if err != nil {
		t.Fatal(err)
	}
	return 0
}

// TestFullDisk fills the disk of a node and makes room again. Meanwhile QoS 1 and 2 messages are refused or not acknowledged,
// as are subscriptions that would have to be kept; all else goes on, and everybody who asks is told why. What was acknowledged
// is there after a crash.
func TestFullDisk(t *testing.T) {
	long(t)
	n := newNode(t, "node")
	smallDisk(t, n.data, 96<<20)
	n.expected = regexp.MustCompile(`(?m)^.*level=ERROR.*no space left on device.*$`)
	n.start()
	n.ready()
	v5 := func(id string, change func(*mqtt.Options)) *mqtt.Client {
		t.Helper()
		o := mqtt.Options{Address: n.mqtt, Version: mqtt.Version5, ClientID: id, Clean: true, KeepAlive: 60, MaxInflight: 20}
		if change != nil {
			change(&o)
		}
		c, err := mqtt.Connect(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		t.Cleanup(func() { _ = c.Disconnect() })
		return c
	}
	lasting := func(o *mqtt.Options) { o.Clean, o.SessionExpiry = false, 600 }
	away := newRawClient(t, n.mqtt, "away")
	away.send(rawPacket(0x82, []byte{0, 1}, rawString("kept/#"), []byte{1}))
	away.expect(0x90)
	away.close()
	old := newRawClient(t, n.mqtt, "old")
	first, pub := v5("first", func(o *mqtt.Options) { o.MaxInflight = 1000 }), v5("pub", nil)
	zero := connect(t, n.mqtt)
	zero.subscribe(0, "zero")

	empty := fill(t, n.data)
	sent := 0
	answers := make(chan error, 10_000)
	eventually(t, patience, func() error { // what was set aside for the log is used up first
		m := mqtt.Message{Topic: "kept/x", Payload: bytes.Repeat([]byte{'x'}, 200_000), QoS: 1}
		if err := first.PublishAsync(t.Context(), m, func(err error) { answers <- err }); err != nil {
			t.Fatal(err)
		}
		sent++
		status, text, err := n.readyz()
		if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(text, "no space left on device") {
			return fmt.Errorf("readyz: %d %s %w", status, text, err)
		}
		return nil
	})
	for qos := byte(1); qos <= 2; qos++ {
		if code := refusedWith(t, pub, mqtt.Message{Topic: "kept/x", Payload: []byte("x"), QoS: qos}); code != 0x97 {
			t.Errorf("QoS %d is answered 0x%02x", qos, code)
		}
	}
	old.send(rawPublish(4, 1<<1, 7, "kept/x", "in the end"))
	old.send([]byte{0xc0, 0})
	old.expect(0xd0) // the answer to what comes behind, and not to it

	// All else goes on.
	connect(t, n.mqtt).publish("zero", "goes on", 0)
	zero.wait(t, 1)
	clean := v5("clean", func(o *mqtt.Options) {
		o.Will = &mqtt.Message{Topic: "will", Payload: []byte("gone")}
	})
	if err := clean.Subscribe(t.Context(), []mqtt.Subscription{{Filter: "clean", QoS: 1}}, mqtt.Properties{}); err != nil {
		t.Errorf("a subscription that need not be kept: %v", err)
	}
	if err := v5("new", lasting).Subscribe(t.Context(), []mqtt.Subscription{{Filter: "new", QoS: 1}}, mqtt.Properties{}); err != nil {
		t.Errorf("a subscription of a session that is not kept for now: %v", err)
	}
	old.send(rawPacket(0x82, []byte{0, 9}, rawString("more"), []byte{1}))
	if body := old.expect(0x90); !bytes.Equal(body, []byte{0, 9, 0x80}) {
		t.Errorf("SUBACK %x", body)
	}
	again := newRawClient(t, n.mqtt, "away") // its session is there
	id := again.expect(0x32)
	again.conn.Close()
	if topic := binary.BigEndian.Uint16(id); topic != uint16(len("kept/x")) {
		t.Errorf("%x", id[:20])
	}

	// It recovers by itself. What was on its way when the disk was full is acknowledged.
	empty()
	acknowledged := 0
	for range sent {
		select {
		case err := <-answers:
			var refused *mqtt.RefusedError
			if errors.As(err, &refused) && refused.Code == 0x97 {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			acknowledged++
		case <-time.After(patience):
			t.Fatalf("%d of %d messages are acknowledged, and the rest not answered", acknowledged, sent)
		}
	}
	if body := old.expect(0x40); !bytes.Equal(body, []byte{0, 7}) {
		t.Errorf("PUBACK %x", body)
	}
	eventually(t, patience, func() error {
		if status, text, err := n.readyz(); status != http.StatusOK {
			return fmt.Errorf("readyz: %d %s %w", status, text, err)
		}
		return nil
	})
	if code := refusedWith(t, pub, mqtt.Message{Topic: "kept/x", Payload: []byte("after"), QoS: 1}); code != 0 {
		t.Errorf("with room again it is answered 0x%02x", code)
	}
	old.send(rawPacket(0x82, []byte{0, 9}, rawString("more"), []byte{1}))
	if body := old.expect(0x90); !bytes.Equal(body, []byte{0, 9, 1}) {
		t.Errorf("SUBACK %x", body)
	}
	log, err := os.ReadFile(n.log)
	for _, line := range []string{`level=ERROR msg="the database can't be written: QoS 1 and 2 messages are refused until it can"`, `error="`,
		`no space left on device"`, `level=INFO msg="the database can be written again"`} {
		if err != nil || !strings.Contains(string(log), line) {
			t.Errorf("the log has no %s (%v)", line, err)
		}
	}
	n.kill()
	n.start()
	n.ready()
	away = newRawClient(t, n.mqtt, "away")
	got, last := 0, ""
	for last != "after" {
		body := away.expect3(t)
		topic := 2 + int(binary.BigEndian.Uint16(body))
		away.send(rawPacket(0x40, body[topic:topic+2]))
		last = string(body[topic+2:])
		got++
	}
	t.Logf("%d messages of %d were acknowledged while the disk filled up", acknowledged, sent)
	if want := acknowledged + 2; got < want {
		t.Errorf("%d messages came, %d were acknowledged", got, want)
	}
}

// expect3 reads a PUBLISH of QoS 1, sent again or not.
func (c *rawClient) expect3(t *testing.T) []byte {
	t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	first, body, err := readRaw(c.in)
	if err != nil || first&^8 != 0x32 {
		t.Fatalf("0x%02x came: %v", first, err)
	}
	return body
}
