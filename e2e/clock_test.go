package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNoClock boots a machine, a virtual one, whose clock says 1970 and is set later, as that of a Raspberry Pi, with
// nodes and clients on it, by TLS with certificates too: see testdata/clock-init. The machine's processor is emulated, so that it boots anywhere, slowly.
func TestNoClock(t *testing.T) {
	long(t)
	need(t, "qemu-system-x86_64", "busybox", "go")
	const kernel = "vmlinuz"
	if _, err := os.Stat(kernel); err != nil {
		missing(t, "there is no kernel for a virtual machine: run e2e/setup")
	}
	dir := t.TempDir()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	house := newAuthority(t, "house")
	house.client("device", "")
	if err := initramfs(image, map[string]string{
		"init": "testdata/clock-init", "bin/busybox": busybox, "bin/mozzie": static(t),
		"house.crt": house.file("house.crt"), "device.crt": house.file("device.crt"), "device.key": house.file("device.key"),
	}); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	vm := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "768", "-nographic",
		"-no-reboot", "-nic", "none", "-rtc", "base=1970-01-01T00:00:30", "-kernel", kernel, "-initrd", image,
		// What the kernel does not know becomes the environment of the first process.
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check NOW=%d", time.Now().Unix()))
	var screen bytes.Buffer
	vm.Stdout, vm.Stderr = &screen, &screen
	err = vm.Run()
	ok := 0
	for line := range strings.Lines(screen.String()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "ok "):
			ok++
		case strings.HasPrefix(line, "FAIL "):
			t.Error(line)
		}
	}
	if err != nil || !strings.Contains(screen.String(), "that is all") || ok == 0 {
		t.Errorf("the machine did not come to the end: %v, %v", err, ctx.Err())
	}
	if t.Failed() {
		t.Logf("its screen:\n%s", screen.String())
	}
	t.Logf("%d checks", ok)
}

// initramfs writes an archive (cpio, "newc") of files for a kernel to unpack, each executable, and the directories that
// they and the kernel need.
func initramfs(to string, files map[string]string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	node := 0
	add := func(name string, mode int, size int64, content io.Reader) error {
		node++
		pad := func(n int64) string { return strings.Repeat("\x00", int(-n&3)) }
		head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", node, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
		if _, err := io.WriteString(f, head+pad(int64(len(head)))); err != nil {
			return err
		}
		if _, err := io.CopyN(f, content, size); err != nil {
			return err
		}
		_, err := io.WriteString(f, pad(size))
		return err
	}
	for _, d := range []string{"bin", "dev", "proc", "tmp"} {
		if err := add(d, 0o40755, 0, strings.NewReader("")); err != nil {
			return err
		}
	}
	for name, from := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := add(name, 0o100755, int64(len(content)), bytes.NewReader(content)); err != nil {
			return err
		}
	}
	if err := add("TRAILER!!!", 0, 0, strings.NewReader("")); err != nil {
		return err
	}
	return f.Close()
}
