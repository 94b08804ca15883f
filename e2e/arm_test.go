package e2e

import (
	"strings"
	"testing"
)

// TestARM runs the programs for ARM on emulated processors of Raspberry Pis, as nodes of one swarm with a native one,
// and has messages cross in both directions.
func TestARM(t *testing.T) {
	d := distribution(t)
	for _, pi := range []struct{ target, emulator string }{
		{"armv6", "qemu-arm -cpu arm1176"}, // Pi 1, Zero
		{"armv7", "qemu-arm -cpu cortex-a7"},
		{"arm64", "qemu-aarch64 -cpu cortex-a53"}, // Pi 3
	} {
		t.Run(pi.target, func(t *testing.T) {
			emulator := strings.Fields(pi.emulator)
			need(t, emulator[0])
			native := newNode(t, "native")
			native.start()
			native.ready()
			n := newNode(t, pi.target, "--join", native.invite())
			n.prefix, n.program = emulator, d.program(pi.target)
			n.start()
			n.ready()
			meet(t, native, n)
			crossing(t, n, native, pi.target+"/there")
			crossing(t, native, n, pi.target+"/back")
			n.stop()
		})
	}
}
