package proto

import (
	"strings"
	"testing"
)

func TestValidProperties(t *testing.T) {
	for _, c := range []struct {
		name, b string
		ok      bool
	}{
		{"none", "", true},
		{"payload format", "\x01\x01", true},
		{"payload format 2", "\x01\x02", false},
		{"payload format cut", "\x01", false},
		{"payload format twice", "\x01\x01\x01\x01", false},
		{"content type", "\x03\x00\x02ab", true},
		{"content type cut", "\x03\x00\x03ab", false},
		{"content type not UTF-8", "\x03\x00\x01\xff", false},
		{"response topic", "\x08\x00\x03a/b", true},
		{"response topic with wildcard", "\x08\x00\x03a/+", false}, // [MQTT-3.3.2-14]
		{"response topic empty", "\x08\x00\x00", false},
		{"correlation data", "\x09\x00\x02\x00\xff", true},
		{"correlation data cut", "\x09\x00", false},
		{"user", "\x26\x00\x01a\x00\x01b", true},
		{"user twice", "\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01b", true},
		{"user with NUL", "\x26\x00\x01\x00\x00\x01b", false},
		{"user without value", "\x26\x00\x01a", false},
		{"message expiry", "\x02\x00\x00\x00\x01", false},
		{"topic alias", "\x23\x00\x01", false},
		{"subscription identifier", "\x0b\x01", false},
		{"unknown", "\x7f", false},
		{"high", "\xff", false},
		{"all", "\x01\x00\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x26\x00\x01k\x00\x01v", true},
	} {
		if err := ValidProperties([]byte(c.b)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzValidProperties(f *testing.F) {
	f.Add("\x01\x00\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x26\x00\x01k\x00\x01v")
	f.Add("\x26\xff\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if ValidProperties([]byte(s)) == nil && len(s) > 0 && !strings.ContainsRune("\x01\x03\x08\x09\x26", rune(s[0])) {
			t.Errorf("%q passes", s)
		}
	})
}
