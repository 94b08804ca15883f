package node

import (
	"strings"
	"testing"
)

// TestPrintable: what another node calls itself does nothing to a terminal that it is printed at.
func TestPrintable(t *testing.T) {
	for said, want := range map[string]string{
		"mozzie/1.0 ü":            "mozzie/1.0 ü",
		"\x1b]0;x\a\r\n\u0085":    "?]0;x????",
		"\xff":                    "?",
		strings.Repeat("v", 5000): strings.Repeat("v", 64) + "...",
	} {
		if got := printable(said); strings.ReplaceAll(got, "\uFFFD", "?") != want {
			t.Errorf("%q is shown as %q", said, got)
		}
	}
}
