package config

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Secret is a setting that must not end up in logs: every way to print it shows that it is set and no more.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "********"
}

// GoString masks the secret for %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText masks the secret in JSON, YAML and structured logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Bytes is a size or a number of bytes.
type Bytes int64

var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
	{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"k", 1 << 10},
	{"B", 1},
}

// parseBytes reads a size such as 1048576, 1MiB or "1 MiB".
func parseBytes(s string) (Bytes, error) {
	number, factor := strings.TrimSpace(s), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(number, "_", ""), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("want a size such as 1048576, 512KiB or 1MiB, not %q", s)
	}
	return Bytes(n * factor), nil
}

// String writes the size in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:3] {
		if b != 0 && int64(b)%u.bytes == 0 {
			return strconv.FormatInt(int64(b)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// parseDuration reads a Go duration, or a whole number of days such as 7d.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= math.MaxInt64/int64(24*time.Hour) {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	switch {
	case err == nil && d >= 0:
		return d, nil
	case err == nil:
		return 0, fmt.Errorf("want a time that is not negative, not %q", s)
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("want a time with its unit, such as %ss or %sm, not %q", s, s, s)
	}
	return 0, fmt.Errorf("want a time such as 10s, 5m, 1h30m or 7d, not %q", s)
}

// formatDuration is the inverse of parseDuration.
func formatDuration(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = strings.TrimSuffix(s, zero[1:])
		}
	}
	return s
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("want true or false, not %q", s)
}

// checkPort says what is wrong with a port in decimal.
func checkPort(port string) error {
	if port == "" {
		return fmt.Errorf("the port is missing")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("there is no port %q, ports are 0 (any free one) to 65535", port)
	}
	return nil
}

// isLoopback reports whether a host, without its port, can be reached from this machine only. Names other
// than localhost may lead anywhere.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// AdminAddress splits an administration address into the network and address that package net wants: "tcp"
// and a loopback host:port, or "unix" and the absolute path of a socket (given as it is, or behind "unix:").
// There is no other kind: the API has no passwords.
func AdminAddress(s string) (network, address string, err error) {
	path, isUnix := strings.CutPrefix(s, "unix:")
	if isUnix || strings.Contains(path, "/") {
		path = strings.TrimPrefix(path, "//")
		if !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("%q: the path of a Unix socket must be absolute, such as /run/mozzie/admin.sock", s)
		}
		return "unix", path, nil
	}
	host, port, ok := cutPort(s)
	if !ok {
		return "", "", fmt.Errorf("%q is no address; want a loopback host:port such as 127.0.0.1:7880, or the path of a Unix socket", s)
	}
	if err := checkPort(port); err != nil {
		return "", "", fmt.Errorf("%q: %v; want a loopback host:port such as 127.0.0.1:7880", s, err)
	}
	if !isLoopback(host) {
		return "", "", fmt.Errorf("%q can be reached from beyond this machine, and the API has no passwords: "+
			"want 127.0.0.1:%s or the path of a Unix socket (from elsewhere, use ssh -L)", s, port)
	}
	return "tcp", s, nil
}

// cutPort splits host:port, [v6]:port and :port.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	inner, v6 := strings.CutPrefix(host, "[")
	if v6 {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return "", "", false
		}
	} else if strings.Contains(host, ":") {
		return "", "", false
	}
	return host, port, !strings.ContainsAny(host, "[]")
}
