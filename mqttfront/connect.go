package mqttfront

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/topic"
)

// maxConnect is the largest CONNECT that there can reasonably be: five strings of 64 KiB.
const maxConnect = 5<<16 + 1024

var errNoConnect = errors.New("the first packet is no CONNECT") // [MQTT-3.1.0-1]

// connect reads CONNECT, which has to be there before some time, and answers it.
func (c *conn) connect(before time.Time) error {
	c.nc.SetReadDeadline(before)
	body, rest, overlong, err := c.readConnect()
	switch {
	case err == errNoConnect:
		c.b.stats.NoConnect.Add(1)
		return err
	case err != nil && !errors.As(err, new(*Refusal)) && !time.Now().Before(before): // WebSocket has errors of its own for that
		c.b.stats.ConnectTimeout.Add(1)
		return err
	case err != nil:
		return err
	}
	name, version, tail, ok := protocolOf(body)
	if c.bridge = version == v31|bridgeBit || version == v311|bridgeBit; c.bridge {
		version &^= bridgeBit
		body[2+len(name)] = version // for the codec
	}
	switch {
	case !ok, name != "MQTT" && name != "MQIsdp": // [MQTT-3.1.2-1]
		return errMalformed
	case name == "MQIsdp" && version != v31, name == "MQTT" && version != v311 && version != v5: // [MQTT-3.1.2-2]
		understood, _ := spoken(name, version)
		return c.refuseConnect(understood, refuse(reasonUnsupportedVersion, "level %d; MQTT 3.1, 3.1.1 and 5 are spoken here", version))
	}
	if version == v5 {
		c.maxPacket = announcedMaximum(tail)
	}
	err = checkConnect(version, tail) // [MQTT-3.1.4-1]
	if err == nil && overlong && version == v5 {
		err = errOverlong
	}
	if err != nil {
		if version == v5 {
			return c.refuseConnect(version, asRefusal(err, reasonMalformed))
		}
		return err
	}
	pk, err := c.b.decode(version, typeConnect<<4, body)
	if err != nil {
		return err
	}
	if err := c.in.keepUnread(rest); err != nil { // who waits before the door needs no buffer
		return err
	}
	if err := c.accept(pk); err != nil {
		r := asRefusal(err, ReasonUnspecified)
		if version < v5 && r.Code == reasonTopicInvalid { // [MQTT3-3.2.2-6]
			return r // MQTT 3 has no code for that, and "unavailable" would have the client try again for ever
		}
		return c.refuseConnect(version, r)
	}
	return c.uncork()
}

// readConnect returns the body of the first packet, and what came behind it. overlong says that its length was written
// with more bytes than it needs.
func (c *conn) readConnect() (body, rest []byte, overlong bool, err error) {
	for {
		data, err := c.in.fill(c)
		if len(data) == 0 {
			return nil, nil, false, err
		}
		if data[0] != typeConnect<<4 {
			return nil, nil, false, errNoConnect
		}
		head, size, err := header(data)
		if err != nil && err != errShort {
			return nil, nil, false, err
		}
		if most := min(maxConnect, c.b.cfg.MaxPacketSize); size > most {
			return nil, nil, false, refuse(reasonPacketTooLarge, "CONNECT of %d bytes, at most %d are taken here", size, most)
		}
		if err == nil && len(data) >= head+size {
			return data[head : head+size], data[head+size:], head > 1+varintLen(size), nil
		}
		if err == nil {
			c.in.need = head + size
		}
		if err := c.in.keep(data); err != nil {
			return nil, nil, false, err
		}
	}
}

// refuseConnect answers CONNECT with a refusal, and returns it, which ends the connection whatever else the client
// has sent [MQTT-3.1.4-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1].
func (c *conn) refuseConnect(version byte, r *Refusal) error {
	packet := encodeRefusal(version, r, c.maxPacket)
	if len(packet) == 0 {
		return r
	}
	c.mu.Lock()
	c.reserveLocked(len(packet))
	c.out.b = append(c.out.b, packet...)
	c.closing = true
	c.touchLocked(nil)
	c.mu.Unlock()
	return r
}

// accept checks a well-formed CONNECT, and puts the session to work.
func (c *conn) accept(pk *packets.Packet) error {
	p := &pk.Properties
	cfg := &c.b.cfg
	if p.AuthenticationMethod != "" { // [MQTT-4.12.0-1] [MQTT-4.12.0-5]
		return refuse(reasonBadAuthMethod, "%.60q is not known here, and no other is", p.AuthenticationMethod)
	}
	if len(p.AuthenticationData) > 0 {
		return refuse(reasonProtocolError, "authentication data without a method")
	}
	assigned := ""
	if pk.Connect.ClientIdentifier == "" {
		if !pk.Connect.Clean { // [MQTT-3.1.3-8] [MQTT3-3.1.3-8]
			return refuse(reasonBadClientID, "an empty one needs a clean start")
		}
		assigned = assignedPrefix + rand.Text() // [MQTT-3.1.3-6] [MQTT-3.1.3-7]
		pk.Connect.ClientIdentifier = assigned
	}
	checks := c.b.checks.Load()
	login := Login{
		ClientID: pk.Connect.ClientIdentifier, User: string(pk.Connect.Username), Password: pk.Connect.Password,
		HasUser: pk.Connect.UsernameFlag, Remote: c.remote,
		Listener: c.listener.URL, Anonymous: c.listener.Anonymous, CertUser: c.certUser,
	}
	if c.noCertUser {
		return refuse(ReasonNotAuthorized, "the client's certificate has no name where this listener looks for one")
	}
	ctx, cancel := context.WithTimeout(c.b.logins, cfg.ConnectTimeout)
	who, err := c.b.auth.Connect(ctx, login) // with any client ID [MQTT-3.1.3-5]
	cancel()
	if err != nil { // [MQTT-3.1.4-2] [MQTT-4.12.0-4]
		return asRefusal(err, ReasonNotAuthorized)
	}
	login.Password = nil
	c.who, c.login = who, login
	will, err := c.willOf(pk)
	if err != nil {
		return err
	}
	c.version = pk.ProtocolVersion
	c.problemInfo = !p.RequestProblemInfoFlag || p.RequestProblemInfo == 1
	c.window = min(cfg.MaxInflight, maxPacketIDs)
	if p.ReceiveMaximum > 0 {
		c.window = min(c.window, int(p.ReceiveMaximum))
	}
	c.aliasMax = min(int(p.TopicAliasMaximum), cfg.MaxOutboundAliases)
	asked := time.Duration(pk.Connect.Keepalive) * time.Second
	c.keepAlive = asked // [MQTT-3.2.2-22]
	if asked == 0 || asked > cfg.MaxKeepAlive {
		c.keepAlive = cfg.MaxKeepAlive
	}
	nc := newConnection{conn: c, id: pk.Connect.ClientIdentifier, clean: pk.Connect.Clean, assigned: assigned != "", will: will}
	switch {
	case c.version == v5:
		nc.asked = p.SessionExpiryInterval
	case !pk.Connect.Clean:
		nc.asked = 0xffffffff
	}
	if will != nil && kindOf(will.Msg.Topic) == kindSwarm && c.b.keeping() != nil {
		will.Epoch = c.b.keeping().Identity()
	}
	if will != nil && will.Msg.Retain {
		c.own.status = will.Msg.Topic
	}
	nc.expiry = min(time.Duration(nc.asked)*time.Second, cfg.MaxSessionExpiry)
	nc.connack = func(present bool) []byte { return c.connack(&nc, asked, assigned, present) }
	if n := len(nc.connack(false)); n > c.maxPacket { // [MQTT-3.1.2-24]
		return refuse(reasonPacketTooLarge, "CONNACK has %d bytes", n)
	}
	if err := c.b.attach(&nc); err != nil {
		return err
	}
	c.b.recheckNew(c, checks)
	return nil
}

// connack encodes the CONNACK of an accepted client [MQTT-3.1.4-5] [MQTT-3.2.2-1], which announces every limit that we
// have. Nothing is said of what there is anyway, such as QoS 2 and retained messages [MQTT-3.2.2-9] [MQTT-3.2.2-10]
// [MQTT-3.2.2-12] [MQTT-3.2.2-13], and there is no response information [MQTT-3.1.2-28] and no authentication method
// [MQTT-4.12.0-6].
func (c *conn) connack(nc *newConnection, askedKeepAlive time.Duration, assigned string, present bool) []byte {
	cfg := &c.b.cfg
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: c.version}
	pk.SessionPresent = present // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
	p := &pk.Properties
	p.ReceiveMaximum = uint16(cfg.ReceiveMaximum)
	p.MaximumPacketSize = uint32(cfg.MaxPacketSize)
	p.TopicAliasMaximum = uint16(cfg.TopicAliasMaximum)
	p.AssignedClientID = assigned      // [MQTT-3.2.2-16]
	if c.keepAlive != askedKeepAlive { // [MQTT-3.2.2-21]
		p.ServerKeepAlive, p.ServerKeepAliveFlag = uint16(c.keepAlive/time.Second), true
	}
	if granted := uint32(nc.expiry / time.Second); granted != nc.asked {
		p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = granted, true
	}
	var buf bytes.Buffer
	if err := pk.ConnackEncode(&buf); err != nil {
		return []byte{typeConnack << 4, 2, 0, byte(ReasonUnspecified)}
	}
	return buf.Bytes()
}

var errWillDenied = &Refusal{ReasonNotAuthorized, "the access rules do not let this client publish its will"}

// willOf returns the will of a CONNECT, or why it can't be [MQTT-3.1.2-9].
func (c *conn) willOf(pk *packets.Packet) (*WillRecord, error) {
	if !pk.Connect.WillFlag {
		return nil, nil
	}
	w := &WillRecord{Msg: proto.Message{
		Topic: c.mount.on(pk.Connect.WillTopic), Payload: pk.Connect.WillPayload, QoS: pk.Connect.WillQos, Retain: pk.Connect.WillRetain,
	}}
	if err := topic.ValidName(w.Msg.Topic, c.b.cfg.Topics); err != nil {
		return nil, refuse(reasonTopicInvalid, "will: %v", err)
	}
	if kindOf(w.Msg.Topic) == kindUsers {
		return nil, errUsers
	}
	if r := c.b.auth.Rights(c.who.User, c.who.ClientID); r != nil && !r.CanPublish(w.Msg.Topic) {
		c.b.stats.PubsDenied.Add(1)
		return nil, errWillDenied
	}
	p := &pk.Connect.WillProperties
	w.Delay = time.Duration(p.WillDelayInterval) * time.Second
	w.Expiry = time.Duration(p.MessageExpiryInterval) * time.Second
	w.Msg.Properties = travelling(p)
	if err := proto.ValidProperties(w.Msg.Properties); err != nil {
		return nil, refuse(reasonProtocolError, "will: %v", err)
	}
	return w, nil
}

// travelling encodes the properties of a will that go with its message, user properties in their order [MQTT-3.1.3-10].
func travelling(p *packets.Properties) (b []byte) {
	str := func(id byte, s string) {
		b = append(binary.BigEndian.AppendUint16(append(b, id), uint16(len(s))), s...)
	}
	if p.PayloadFormatFlag {
		b = append(b, 0x01, p.PayloadFormat)
	}
	if p.ContentType != "" {
		str(0x03, p.ContentType)
	}
	if p.ResponseTopic != "" {
		str(0x08, p.ResponseTopic)
	}
	if p.CorrelationData != nil {
		str(0x09, string(p.CorrelationData))
	}
	for _, u := range p.User {
		b = append(binary.BigEndian.AppendUint16(append(b, 0x26), uint16(len(u.Key))), u.Key...)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(u.Val))), u.Val...)
	}
	return b
}

// keepAliveOver reports whether the client has been silent for too long [MQTT-3.1.2-22].
func (c *conn) keepAliveOver(now time.Time) bool {
	return now.Sub(c.b.start)-time.Duration(c.lastSeen.Load()) > c.keepAlive+c.keepAlive/2
}
