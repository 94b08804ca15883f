package client

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A raw connection is handed over with all that came behind the answer.
func TestRaw(t *testing.T) {
	r, err := OpenRaw(context.Background(), options(broker(t, func(s *script) {
		s.want("CONNECT", connect5)
		s.say("20 06 00 00 03 21 0007") // Receive Maximum 7
		s.want("SUBSCRIBE", "82 0b 0001 00 0001 61 01 0001 62 00")
		s.say("90 05 0001 00 01 00" + "30 05 0001 61 00 31")
		s.want("PINGREQ", "c0 00")
	})))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Conn.Close()
	if r.ReceiveMaximum != 7 {
		t.Errorf("Receive Maximum %d", r.ReceiveMaximum)
	}
	if err := r.Subscribe(context.Background(), []Subscription{{Filter: "a", QoS: 1}, {Filter: "b"}}); err != nil {
		t.Fatal(err)
	}
	if got := r.Unread(); string(got) != "\x30\x05\x00\x01a\x001" {
		t.Errorf("unread: %x", got)
	}
	if _, err := r.Conn.Write([]byte{0xc0, 0}); err != nil {
		t.Error(err)
	}
}

func TestRawRefused(t *testing.T) {
	for _, tc := range []struct{ name, say, want string }{
		{"refused", "90 04 0001 00 87", `the broker refuses the subscription to "a": not authorized (code 135)`},
		{"less", "90 04 0001 00 00", `the broker grants QoS 0 for "a", where QoS 1 was asked for`},
		{"ended", "e0 02 8b 00", "the broker ended the connection: server shutting down (code 139)"},
		{"closed", "", "the broker closed the connection"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := OpenRaw(context.Background(), options(broker(t, func(s *script) {
				s.want("CONNECT", connect5)
				s.say(connack5)
				s.want("SUBSCRIBE", "82 07 0001 00 0001 61 01")
				s.say(tc.say)
			})))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Conn.Close()
			if r.ReceiveMaximum != 65535 {
				t.Errorf("Receive Maximum %d, where the broker says none", r.ReceiveMaximum)
			}
			err = r.Subscribe(context.Background(), []Subscription{{Filter: "a", QoS: 1}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	_, err := OpenRaw(context.Background(), options(broker(t, func(s *script) {
		s.want("CONNECT", connect5)
		s.say("20 03 00 87 00")
	})))
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != 0x87 {
		t.Errorf("%v", err)
	}
}
