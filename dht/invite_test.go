package dht

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	idA = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
	idB = "12D3KooWHQei2mTEFpiPPxQsvU6ifbLc5VbvGaDYHtB68f5mSgDh"
)

func testKey() *SwarmKey {
	k := swarmKeyOf(nil)
	for i := range k.secret {
		k.secret[i] = byte(i)
	}
	return k
}

func testInvites() []Invite {
	return []Invite{
		{},
		{Key: testKey()},
		{Addrs: []string{"/ip4/192.168.1.10/tcp/7883/p2p/" + idA}},
		{Key: testKey(), Addrs: []string{
			"/ip4/192.168.1.10/tcp/7883/p2p/" + idA,
			"/ip6/2001:db8::1/udp/7883/quic-v1/p2p/" + idA,
			"/dns4/example.org/tcp/7883/p2p/" + idB,
			"/ip4/198.51.100.1/tcp/7883/p2p/" + idA + "/p2p-circuit/p2p/" + idB,
		}},
	}
}

func sameInvite(a, b Invite) bool {
	if (a.Key == nil) != (b.Key == nil) || a.Key != nil && !a.Key.Equal(b.Key) {
		return false
	}
	return slices.Equal(a.Addrs, b.Addrs)
}

func TestInviteRoundTrip(t *testing.T) {
	for _, want := range testInvites() {
		s := want.String()
		got, err := ParseInvite(s)
		if err != nil || !sameInvite(got, want) {
			t.Errorf("%s:\ngot  %v, %v\nwant %v", s, got, err, want)
		}
		wrapped := "  " + strings.ToUpper(s[:20]) + "\r\n\t" + s[20:] + "\n"
		if got, err := ParseInvite(wrapped); err != nil || !sameInvite(got, want) {
			t.Errorf("%q: %v, %v", wrapped, got, err)
		}
	}
}

// TestInviteBytes fixes the format.
func TestInviteBytes(t *testing.T) {
	for _, c := range []struct {
		in   Invite
		want string
	}{
		{Invite{}, "mozzie1-aaa3iabyuioik"},
		{
			Invite{Key: testKey(), Addrs: []string{"/ip4/192.0.2.1/tcp/7883/p2p/" + idA, "/ip4/192.0.2.2/tcp/7883/p2p/" + idA}},
			"mozzie1-abnyyaiaaebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4eajqaaaiaqmhwleyacicabciqf5nzetpivw2e6sbybtjulzt" +
				"itlfp3c5r3aewii42o77omxjtvhqqiataaaaqcaypmwactpa7mu",
		},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("%v:\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
}

// TestInviteTellsWhatIsWrong cuts an invite at every place, and mistypes every character.
func TestInviteTellsWhatIsWrong(t *testing.T) {
	for _, inv := range testInvites() {
		s := inv.String()
		for i := 1; i < len(s); i++ {
			if _, err := ParseInvite(s[:i]); !errors.Is(err, ErrInviteCut) {
				t.Errorf("cut after %d of %d: %v", i, len(s), err)
			}
		}
		for i := len(invitePrefix); i < len(s); i++ {
			for _, c := range "2a1!é" {
				if c == rune(s[i]) {
					continue
				}
				typed := s[:i] + string(c) + s[i+1:]
				if _, err := ParseInvite(typed); !errors.Is(err, ErrInviteMistyped) {
					t.Errorf("%q for character %d of %s: %v", c, i+1, s, err)
				}
			}
		}
		if _, err := ParseInvite(s + "aa"); !errors.Is(err, ErrInviteMistyped) {
			t.Errorf("too long: %v", err)
		}
	}
	for _, s := range []string{"", "hello", "mozzie", "mozzie-abc", "mozzie0-abc", "mozzied1-abc", "https://example.org", "/ip4/1.2.3.4/tcp/1"} {
		want := ErrInviteNone
		if s == "mozzie" {
			want = ErrInviteCut
		}
		if _, err := ParseInvite(s); !errors.Is(err, want) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"mozzie2-abc", "mozzie17-", "MOZZIE2-ABC"} {
		if _, err := ParseInvite(s); !errors.Is(err, ErrInviteNewer) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestInviteLeavesOutWhatIsNoAddress(t *testing.T) {
	inv := Invite{Addrs: []string{"nonsense", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1/p2p/" + idA}}
	for i := range 2 * maxInviteAddrs {
		inv.Addrs = append(inv.Addrs, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d/p2p/%s", i+2, idA))
	}
	got, err := ParseInvite(inv.String())
	if err != nil || len(got.Addrs) != maxInviteAddrs || got.Addrs[0] != inv.Addrs[2] {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHostInvites(t *testing.T) {
	cfg := testConfig(t)
	cfg.SwarmKey = NewSwarmKey()
	a := open(t, cfg)
	inv, err := ParseInvite(a.Invite().String())
	if err != nil {
		t.Fatal(err)
	}
	cfg = testConfig(t)
	cfg.SwarmKey, cfg.Bootstrap = inv.Key, inv.Addrs
	b := open(t, cfg)
	eventually(t, "connected", func() bool { return linked(a, b) })
}

func FuzzParseInvite(f *testing.F) {
	for _, inv := range testInvites() {
		f.Add(inv.String())
	}
	f.Add("mozzie2-abc")
	f.Add("mozzie1-")
	f.Fuzz(func(t *testing.T, s string) {
		inv, err := ParseInvite(s)
		if err != nil {
			return
		}
		again, err := ParseInvite(inv.String())
		if err != nil || !sameInvite(inv, again) || again.String() != inv.String() {
			t.Errorf("%q: %v, then %v, %v", s, inv, again, err)
		}
	})
}

// FuzzInviteBody goes behind the checksum, which random changes do not.
func FuzzInviteBody(f *testing.F) {
	for _, inv := range testInvites() {
		b, _, err := decode32(inv.String()[len(invitePrefix):])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[inviteHead : len(b)-inviteCheck])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		inv, err := parseInviteBody(body)
		if err != nil || len(body) > maxInviteBody {
			return
		}
		again, err := ParseInvite(inv.String())
		if err != nil || !sameInvite(inv, again) || again.String() != inv.String() {
			t.Errorf("%x: %v, then %v, %v", body, inv, again, err)
		}
	})
}

func TestSwarmKeyFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadSwarmKey(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	k := testKey()
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, SwarmKeyFile))
	const want = "/key/swarm/psk/1.0.0/\n/base16/\n000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
	if err != nil || string(b) != want {
		t.Errorf("file %q, %v", b, err)
	}
	if got, err := LoadSwarmKey(dir); err != nil || !got.Equal(k) || got.Equal(NewSwarmKey()) {
		t.Errorf("loaded %v, %v", got, err)
	}
	for _, bad := range []string{"", "nonsense", want[:60], strings.Replace(want, "00", "zz", 1)} {
		if err := os.WriteFile(filepath.Join(dir, SwarmKeyFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSwarmKey(dir); err == nil || !strings.Contains(err.Error(), SwarmKeyFile) || !strings.Contains(err.Error(), "invite") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestSwarmKeyIsNotPrinted tries all the ways in which keys end up in logs.
func TestSwarmKeyIsNotPrinted(t *testing.T) {
	k := testKey()
	text, err := json.Marshal(Config{SwarmKey: k}.SwarmKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %x %d %q", k, k, k, k, k, k, k), fmt.Sprintf("%v %x", *k, *k), string(text),
		fmt.Sprintf("%+v", struct{ K *SwarmKey }{k}), fmt.Sprintf("%+v", struct{ K SwarmKey }{*k}),
		fmt.Sprintf("%v %s", Config{SwarmKey: k}, SwarmKey{}) + k.Fingerprint(),
		fmt.Sprintf("%v %+v %#v", struct{ k *SwarmKey }{k}, struct{ k SwarmKey }{*k}, struct{ k SwarmKey }{*k}) + k.Fingerprint(),
	} {
		if !strings.Contains(s, k.Fingerprint()) || strings.Contains(s, "0405") || strings.Contains(s, "4 5 6") || strings.Contains(s, "0x4") {
			t.Errorf("prints %s", s)
		}
	}
	if len(k.Fingerprint()) != 8 || k.Fingerprint() == NewSwarmKey().Fingerprint() {
		t.Errorf("fingerprint %q", k.Fingerprint())
	}
}
