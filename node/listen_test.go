package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/config"
)

// TestExplainListen: who asked for a listener that cannot be is told why, and what to do.
func TestExplainListen(t *testing.T) {
	bind := func(e syscall.Errno) error {
		return fmt.Errorf("MQTT listener: %w", &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", e)})
	}
	for want, err := range map[string]error{
		"the address is in use, perhaps by another node or broker: stop that, or choose": bind(syscall.EADDRINUSE),
		"no permission for user":           bind(syscall.EACCES),
		"this machine has no such address": bind(syscall.EADDRNOTAVAIL),
		`the name "pi" is not known`:       fmt.Errorf("listen: %w", &net.DNSError{Name: "pi", IsNotFound: true}),
		"something else":                   errors.New("something else"),
	} {
		text := explainListen("tcp://pi:1883", err).Error()
		if !strings.HasPrefix(text, "listen for MQTT clients") || !strings.Contains(text, want) || strings.Contains(text, "bind") {
			t.Errorf("%v is explained as %s, want %s", err, text, want)
		}
	}
}

// newDevice returns a certificate that vouches for itself, and the same as PEM.
func newDevice(t *testing.T, name string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestReloadOfCertificates: a client whose certificate is not accepted any more is told so (0x87) and disconnected, and the
// others stay, whatever else is read again.
func TestReloadOfCertificates(t *testing.T) {
	s := newSwarm(t)
	file := filepath.Join(s.dir, "devices.crt")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stays, first := newDevice(t, "stays")
	goes, second := newDevice(t, "goes")
	write(append(second, first...))
	s.also = func(c *config.Config) {
		secure := config.NewListener("tls://127.0.0.1:0")
		secure.ClientCA = file
		c.MQTT.Listeners = append(c.MQTT.Listeners, secure)
	}
	s.start()
	n := s.nodes[0]
	connect := func(id string, cert tls.Certificate) *mqttClient {
		return s.connect(0, id, func(o *client.Options) {
			o.Address = strings.TrimPrefix(n.listeners[1].url, "tls://")
			o.TLS = &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}} //nolint:gosec // it is about the client's
		})
	}
	plain, stay, leave := s.connect(0, "plain"), connect("stays", stays), connect("goes", goes)
	reload := func() {
		t.Helper()
		if _, err := n.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	reload() // nothing has changed
	write(first)
	reload()
	select {
	case <-leave.Done():
	case <-time.After(patience):
		t.Fatal("a client whose certificate was taken away is still there")
	}
	var refused *client.RefusedError
	if !errors.As(leave.Err(), &refused) || refused.Code != 0x87 {
		t.Errorf("it was told %v, want 0x87", leave.Err())
	}
	for _, c := range []*mqttClient{plain, stay} {
		c.publish(client.Message{Topic: "x", QoS: 1}) // it is there
	}
	if lost := n.broker.Load().Stats().LostRight.Load(); lost != 1 {
		t.Errorf("%d were disconnected, want 1", lost)
	}
}
