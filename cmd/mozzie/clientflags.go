package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// clientFlags are mosquitto's flags that pub and sub have in common.
type clientFlags struct {
	host       string
	port       uint16
	version    string
	id, idPfx  string
	user       string
	password   string
	pwFile     string
	keepAlive  uint16
	keep       bool // -c
	expiry     string
	inflight   uint16
	quiet      bool
	willTopic  string
	willText   string
	willQoS    uint8
	willRetain bool
	properties []string
	socket     string
	tls        tlsFlags
	portGiven  func() bool
}

// clientHelp ends the help of pub and sub.
const clientHelp = `
The flags are those of mosquitto's clients (the letters behind a single dash mean the same), but MQTT 5 is
spoken unless -V says otherwise.

Exit code: 0; the broker's code when it refuses the connection, a subscription or a message, or ends the
connection (MQTT 5: 128 and above); 1 for other failures; 2 for a command line that makes no sense; `

func (f *clientFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Bool("help", false, "show this help") // without a letter: -h is the host
	fs.StringVarP(&f.host, "host", "h", "127.0.0.1", "broker's `HOST`")
	fs.Uint16VarP(&f.port, "port", "p", 1883, "broker's `PORT`")
	f.portGiven = func() bool { return fs.Changed("port") }
	fs.StringVar(&f.socket, "unix", "", "connect to the Unix socket at `PATH` instead")
	f.addLogin(cmd, "5")
	fs.StringVarP(&f.id, "id", "i", "", "client `ID` (default one of the broker's choice; MQTT 3: mozzie-PID)")
	fs.StringVarP(&f.idPfx, "id-prefix", "I", "", "client ID made of `PREFIX` and the process ID")
	fs.StringVar(&f.pwFile, "pw-file", "", "`FILE` with the password in its first line, which keeps it out of that list")
	fs.Uint16VarP(&f.keepAlive, "keepalive", "k", 60, "keep alive in `SECONDS`; 0 for none")
	fs.BoolVarP(&f.keep, "disable-clean-session", "c", false, "keep the session of before, and leave one behind; needs -i")
	fs.StringVarP(&f.expiry, "session-expiry-interval", "x", "", "keep the session for `SECONDS` after the end, -1 for ever (default 0; with -c, -1)")
	fs.Uint16VarP(&f.inflight, "max-inflight", "M", 20, "at most `N` unacknowledged messages at a time, QoS 1 and 2")
	fs.BoolVar(&f.quiet, "quiet", false, "print no errors")
	fs.StringVar(&f.willTopic, "will-topic", "", "leave a will on `TOPIC`")
	fs.StringVar(&f.willText, "will-payload", "", "the will's `TEXT`")
	fs.Uint8Var(&f.willQoS, "will-qos", 0, "the will's `QOS`")
	fs.BoolVar(&f.willRetain, "will-retain", false, "retain the will")
	fs.VarP((*propertyFlag)(&f.properties), "property", "D", "MQTT 5 property: `PACKET NAME VALUE`, such as publish content-type text/plain, or PACKET user-property KEY VALUE; repeatable")
	f.tls.add(cmd)
}

// addLogin adds the flags that say how to log in; version is the default one of the protocol.
func (f *clientFlags) addLogin(cmd *cobra.Command, version string) {
	fs := cmd.Flags()
	fs.StringVarP(&f.version, "protocol-version", "V", version, "MQTT `VERSION`: 5, 311 or 31 (mqttv5, mqttv311, mqttv31)")
	fs.StringVarP(&f.user, "username", "u", "", "user `NAME`")
	fs.StringVarP(&f.password, "pw", "P", "", "`PASSWORD`; others can see it in the list of processes")
	complete(cmd, "protocol-version", "5", "311", "31")
}

// options turns the flags into what the client wants.
func (f *clientFlags) options() (client.Options, packetProperties, error) {
	o := client.Options{
		Address:     net.JoinHostPort(f.host, strconv.Itoa(int(f.port))),
		ClientID:    f.id,
		Username:    f.user,
		Clean:       !f.keep,
		KeepAlive:   f.keepAlive,
		MaxInflight: int(f.inflight),
	}
	if err := f.where(&o); err != nil {
		return o, nil, err
	}
	switch strings.TrimPrefix(f.version, "mqttv") {
	case "5":
		o.Version = client.Version5
	case "311":
		o.Version = client.Version311
	case "31":
		o.Version = client.Version31
	default:
		return o, nil, usagef("-V %s: want 5, 311 or 31", f.version)
	}
	properties, err := parseProperties(f.properties)
	if err != nil {
		return o, nil, err
	}
	if len(properties) > 0 && o.Version != client.Version5 {
		return o, nil, usagef("-D: properties are for MQTT 5, not for -V %s", f.version)
	}
	o.Properties = properties.of("connect")
	if f.pwFile != "" {
		if f.password != "" {
			return o, nil, usagef("-P and --pw-file each give the password: give one of them")
		}
		if f.password, err = passwordIn(f.pwFile); err != nil {
			return o, nil, err
		}
	}
	if f.password != "" {
		o.Password = []byte(f.password)
		if f.user == "" && o.Version != client.Version5 {
			return o, nil, usagef("-P: MQTT 3 wants a user name with a password; give one with -u")
		}
	}
	if err := errors.Join(f.identify(&o), f.expire(&o)); err != nil {
		return o, nil, err
	}
	if f.willTopic != "" {
		o.Will = &client.Message{
			Topic: f.willTopic, Payload: []byte(f.willText), QoS: f.willQoS, Retain: f.willRetain, Properties: properties.of("will"),
		}
		if err := checkName("--will-topic", f.willTopic); err != nil {
			return o, nil, err
		}
	} else if f.willText != "" || f.willQoS > 0 || f.willRetain {
		return o, nil, usagef("a will needs a topic; give one with --will-topic")
	}
	return o, properties, checkQoS("--will-qos", f.willQoS)
}

// passwordIn returns the first line of a file.
func passwordIn(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("--pw-file: %w", err)
	}
	defer file.Close()
	return firstLine(file)
}

// where chooses what is connected to, and whether by TLS.
func (f *clientFlags) where(o *client.Options) (err error) {
	if f.socket != "" {
		if o.Address, err = filepath.Abs(f.socket); err != nil {
			return usagef("--unix %s: %v", f.socket, err)
		}
		return nil
	}
	if o.TLS, err = f.tls.config(f.host); o.TLS != nil && f.portGiven != nil && !f.portGiven() {
		o.Address = net.JoinHostPort(f.host, strconv.Itoa(tlsPort))
	}
	return err
}

// identify chooses the client ID.
func (f *clientFlags) identify(o *client.Options) error {
	if f.idPfx != "" {
		if f.id != "" {
			return usagef("-i and -I cannot both choose the client ID")
		}
		o.ClientID = f.idPfx + strconv.Itoa(os.Getpid())
	}
	if f.keep && o.ClientID == "" {
		return usagef("-c: a session that is kept needs a client ID to find it again; give one with -i")
	}
	if o.ClientID == "" && o.Version != client.Version5 {
		o.ClientID = "mozzie-" + strconv.Itoa(os.Getpid())
	}
	return nil
}

// expire chooses the session expiry interval.
func (f *clientFlags) expire(o *client.Options) error {
	switch {
	case f.expiry == "" && f.keep, f.expiry == "-1":
		o.SessionExpiry = client.NeverExpires
	case f.expiry != "":
		n, err := strconv.ParseUint(f.expiry, 10, 32)
		if err != nil {
			return usagef("-x %s: want seconds, 0 to %d, or -1 for ever", f.expiry, uint32(math.MaxUint32))
		}
		o.SessionExpiry = uint32(n)
	}
	return nil
}

func checkQoS(flag string, qos uint8) error {
	if qos > 2 {
		return usagef("%s %d: want 0, 1 or 2", flag, qos)
	}
	return nil
}

// checkName refuses what cannot be the topic of a message, with a better word than a broker has.
func checkName(flag, topic string) error {
	switch {
	case topic == "":
		return usagef("%s: a topic cannot be empty", flag)
	case strings.ContainsAny(topic, "+#"):
		return usagef("%s %q: wildcards (+ and #) are for subscribing", flag, topic)
	}
	return nil
}

// clientError gives an error of the client its exit code, and quiets it where that was asked for.
func (f *clientFlags) clientError(err error) error {
	if err == nil {
		return nil
	}
	code := exitFailure
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.Code != 0 {
		code = int(refused.Code)
	}
	var coded codedError
	if errors.As(err, &coded) {
		code = coded.code
	}
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C
	}
	if refused != nil && refused.Code == 0x80 && refused.Text == "" && strings.TrimPrefix(f.version, "mqttv") != "5" {
		err = fmt.Errorf("%w; MQTT 3 cannot say why, -V 5 can", err)
	}
	if f.quiet {
		err = errors.New("")
	}
	return codedError{err, code}
}
