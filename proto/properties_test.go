package proto

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
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

// FuzzValidProperties holds what is valid against mochi's codec: it reads all of it, and whatever it reads that comes in
// one form only is valid.
func FuzzValidProperties(f *testing.F) {
	f.Add("\x01\x00\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x26\x00\x01k\x00\x01v")
	f.Add("\x26\xff\xff")
	f.Add("\x26\x00\x01k\x00\x01v\x26\x00\x00\x00\x00\x01\x01")
	f.Add("\x03\x00\x00\x09\x00\x00")
	f.Add("\x08\x00\x03a/+\x01\x02")
	f.Add("\x01\x01\x01\x01")
	f.Add("\x03\x00\x02\xed\xa0\x23\x00\x01")
	f.Fuzz(func(t *testing.T, s string) {
		valid := ValidProperties([]byte(s)) == nil
		var p packets.Properties
		whole := append(binary.AppendUvarint(nil, uint64(len(s))), s...)
		n, err := p.Decode(packets.Publish, bytes.NewBuffer(whole))
		if valid && (err != nil || n != len(whole)) {
			t.Fatalf("%q passes, mochi: %d, %v", s, n, err)
		}
		if err != nil || valid {
			return
		}
		ours := packets.Properties{PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag, ContentType: p.ContentType,
			ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User}
		var again bytes.Buffer
		ours.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &again, 0)
		_, head := binary.Uvarint(again.Bytes())
		rules := p.PayloadFormat > 1 || strings.ContainsAny(p.ResponseTopic, "+#") || !validStrings(&p)
		if again.Len()-head == len(s) && !rules {
			t.Errorf("%q does not pass", s)
		}
	})
}

// validStrings reports whether all strings of some properties are such as MQTT allows.
func validStrings(p *packets.Properties) bool {
	ok := validString([]byte(p.ContentType)) && validString([]byte(p.ResponseTopic))
	for _, u := range p.User {
		ok = ok && validString([]byte(u.Key)) && validString([]byte(u.Val))
	}
	return ok
}
