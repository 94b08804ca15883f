package mqttfront

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The fuzzers of packets hold our decoders against paho's codecs, which were written by others from the same
// specification: paho.golang for MQTT 5, paho.mqtt.golang for 3.1 and 3.1.1. What is compared is what a packet
// says, as facts. Both codecs are lenient, so that a packet is asked of them twice: as it came, and as they write
// it again, which is a packet that some client could send. What they write we have to take, and understand alike,
// unless a rule of the specification forbids it; those rules are in forbidden5 and forbidden3. What we take they have
// to take, but for what is in refusedByPaho.

// facts is what a packet says, without how it says it.
type facts map[string]any

// put notes a fact, unless it is the one that stands when nothing is said.
func (f facts) put(name string, v any) {
	if s := fmt.Sprint(v); s != "" && s != "0" && s != "false" && s != "[]" {
		f[name] = s
	}
}

// say notes a value that may be missing, where that is not the same as 0.
func say[T any](f facts, name string, v *T) {
	if v != nil {
		f[name] = fmt.Sprint(*v)
	}
}

func orZero[T any](v *T) (zero T) {
	if v == nil {
		return zero
	}
	return *v
}

// oursSays has the facts of a packet as our codec decodes it.
func oursSays(kind byte, pk *packets.Packet) facts {
	f := facts{}
	p := &pk.Properties
	switch kind {
	case typeConnect:
		c := &pk.Connect
		f.put("name", string(c.ProtocolName))
		f.put("version", pk.ProtocolVersion)
		f.put("clean", c.Clean)
		f.put("keep alive", c.Keepalive)
		f.put("client ID", c.ClientIdentifier)
		if c.UsernameFlag {
			f["user"] = string(c.Username)
		}
		if c.PasswordFlag {
			f["password"] = string(c.Password)
		}
		if c.WillFlag {
			f["will"] = fmt.Sprintf("%q %q %d %v", c.WillTopic, c.WillPayload, c.WillQos, c.WillRetain)
			oursProperties(f, "will ", &c.WillProperties)
		}
	case typeSubscribe:
		f.put("ID", pk.PacketID)
		for i, s := range pk.Filters {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q %d %v %v %d", s.Filter, s.Qos, s.NoLocal, s.RetainAsPublished, s.RetainHandling)
		}
	case typeUnsubscribe:
		f.put("ID", pk.PacketID)
		for i, s := range pk.Filters {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q", s.Filter)
		}
	}
	oursProperties(f, "", p)
	return f
}

func oursProperties(f facts, of string, p *packets.Properties) {
	f.put(of+"session expiry", p.SessionExpiryInterval)
	f.put(of+"receive maximum", p.ReceiveMaximum)
	f.put(of+"maximum packet", p.MaximumPacketSize)
	f.put(of+"alias maximum", p.TopicAliasMaximum)
	f.put(of+"response information", p.RequestResponseInfo)
	if p.RequestProblemInfoFlag {
		f[of+"problem information"] = fmt.Sprint(p.RequestProblemInfo)
	}
	f.put(of+"authentication method", p.AuthenticationMethod)
	f.put(of+"authentication data", string(p.AuthenticationData))
	f.put(of+"delay", p.WillDelayInterval)
	f.put(of+"expiry", p.MessageExpiryInterval)
	f.put(of+"payload format", p.PayloadFormat)
	f.put(of+"content type", p.ContentType)
	f.put(of+"response topic", p.ResponseTopic)
	f.put(of+"correlation data", string(p.CorrelationData))
	f.put(of+"reason string", p.ReasonString)
	f.put(of+"identifier", strings.Trim(fmt.Sprint(p.SubscriptionIdentifier), "[]"))
	for i, u := range p.User {
		f[fmt.Sprint(of, "user property ", i)] = fmt.Sprintf("%q %q", u.Key, u.Val)
	}
}

// paho5Says has the facts of a packet as paho.golang decodes it.
func paho5Says(cp *paho5.ControlPacket) facts {
	f := facts{}
	switch p := cp.Content.(type) {
	case *paho5.Connect:
		f.put("name", p.ProtocolName)
		f.put("version", p.ProtocolVersion)
		f.put("clean", p.CleanStart)
		f.put("keep alive", p.KeepAlive)
		f.put("client ID", p.ClientID)
		if p.UsernameFlag {
			f["user"] = p.Username
		}
		if p.PasswordFlag {
			f["password"] = string(p.Password)
		}
		if p.WillFlag {
			f["will"] = fmt.Sprintf("%q %q %d %v", p.WillTopic, p.WillMessage, p.WillQOS, p.WillRetain)
			paho5Properties(f, "will ", p.WillProperties)
			if e := p.WillProperties.MessageExpiry; e != nil && *e == 0 {
				f["will expiry"] = "1" // as willProperties has it
			}
		}
		paho5Properties(f, "", p.Properties)
	case *paho5.Subscribe:
		f.put("ID", p.PacketID)
		for i, s := range p.Subscriptions {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q %d %v %v %d", s.Topic, s.QoS, s.NoLocal, s.RetainAsPublished, s.RetainHandling)
		}
		paho5Properties(f, "", p.Properties)
	case *paho5.Unsubscribe:
		f.put("ID", p.PacketID)
		for i, s := range p.Topics {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q", s)
		}
		paho5Properties(f, "", p.Properties)
	case *paho5.Disconnect:
		paho5Properties(f, "", p.Properties)
	}
	return f
}

func paho5Properties(f facts, of string, p *paho5.Properties) {
	f.put(of+"session expiry", orZero(p.SessionExpiryInterval))
	f.put(of+"receive maximum", orZero(p.ReceiveMaximum))
	f.put(of+"maximum packet", orZero(p.MaximumPacketSize))
	f.put(of+"alias maximum", orZero(p.TopicAliasMaximum))
	f.put(of+"response information", orZero(p.RequestResponseInfo))
	say(f, of+"problem information", p.RequestProblemInfo)
	f.put(of+"authentication method", p.AuthMethod)
	f.put(of+"authentication data", string(p.AuthData))
	f.put(of+"delay", orZero(p.WillDelayInterval))
	f.put(of+"expiry", orZero(p.MessageExpiry))
	f.put(of+"payload format", orZero(p.PayloadFormat))
	f.put(of+"content type", p.ContentType)
	f.put(of+"response topic", p.ResponseTopic)
	f.put(of+"correlation data", string(p.CorrelationData))
	f.put(of+"reason string", p.ReasonString)
	f.put(of+"identifier", orZero(p.SubscriptionIdentifier))
	for i, u := range p.User {
		f[fmt.Sprint(of, "user property ", i)] = fmt.Sprintf("%q %q", u.Key, u.Value)
	}
}

// paho3Says has the facts of a packet as paho.mqtt.golang decodes it.
func paho3Says(cp paho3.ControlPacket) facts {
	f := facts{}
	switch p := cp.(type) {
	case *paho3.ConnectPacket:
		f.put("name", p.ProtocolName)
		f.put("version", p.ProtocolVersion)
		f.put("clean", p.CleanSession)
		f.put("keep alive", p.Keepalive)
		f.put("client ID", p.ClientIdentifier)
		if p.UsernameFlag {
			f["user"] = p.Username
		}
		if p.PasswordFlag {
			f["password"] = string(p.Password)
		}
		if p.WillFlag {
			f["will"] = fmt.Sprintf("%q %q %d %v", p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain)
		}
	case *paho3.SubscribePacket:
		f.put("ID", p.MessageID)
		for i, t := range p.Topics {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q %d false false 0", t, p.Qoss[i])
		}
	case *paho3.UnsubscribePacket:
		f.put("ID", p.MessageID)
		for i, t := range p.Topics {
			f[fmt.Sprint("filter ", i)] = fmt.Sprintf("%q", t)
		}
	}
	return f
}

// readPaho5 decodes a packet by paho.golang, which panics on some: that counts as a refusal.
func readPaho5(packet []byte) (cp *paho5.ControlPacket, err error) {
	defer recovered(&err)
	return paho5.ReadPacket(bytes.NewReader(packet))
}

func writePaho5(cp *paho5.ControlPacket) (packet []byte, err error) {
	defer recovered(&err)
	var b bytes.Buffer
	_, err = cp.WriteTo(&b)
	return b.Bytes(), err
}

func readPaho3(packet []byte) (cp paho3.ControlPacket, err error) {
	defer recovered(&err)
	return paho3.ReadPacket(bytes.NewReader(packet))
}

func writePaho3(cp paho3.ControlPacket) (packet []byte, err error) {
	defer recovered(&err)
	var b bytes.Buffer
	err = cp.Write(&b)
	return b.Bytes(), err
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the oracle panics: %v", r)
	}
}

// badText reports whether one of some strings is none in MQTT [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func badText(all ...string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return !validString([]byte(s)) })
}

func badProperties(p *paho5.Properties) string {
	texts := []string{p.ContentType, p.ResponseTopic, p.AuthMethod, p.ReasonString, p.ServerReference}
	for _, u := range p.User {
		texts = append(texts, u.Key, u.Value)
	}
	is := func(v *byte) bool { return v != nil && *v > 1 }
	switch {
	case badText(texts...):
		return "[MQTT-1.5.4-1] [MQTT-1.5.4-2]"
	case is(p.PayloadFormat), is(p.RequestProblemInfo), is(p.RequestResponseInfo):
		return "sections 3.3.2.3.2, 3.1.2.11.6, 3.1.2.11.7: 0 or 1"
	case p.ReceiveMaximum != nil && *p.ReceiveMaximum == 0:
		return "section 3.1.2.11.3: not 0"
	case p.MaximumPacketSize != nil && *p.MaximumPacketSize == 0:
		return "section 3.1.2.11.4: not 0"
	case p.SubscriptionIdentifier != nil && *p.SubscriptionIdentifier == 0:
		return "section 3.8.2.1.2: not 0"
	}
	return ""
}

// ofWill and ofConnect say that properties are there which belong to the other: paho takes them for one set.
func ofWill(p *paho5.Properties) bool {
	return p.PayloadFormat != nil || p.MessageExpiry != nil || p.ContentType != "" || p.ResponseTopic != "" ||
		p.CorrelationData != nil || p.WillDelayInterval != nil
}

func ofConnect(p *paho5.Properties) bool {
	return p.SessionExpiryInterval != nil || p.AuthMethod != "" || p.AuthData != nil || p.RequestProblemInfo != nil ||
		p.RequestResponseInfo != nil || p.ReceiveMaximum != nil || p.TopicAliasMaximum != nil || p.MaximumPacketSize != nil
}

// forbidden5 says which rule forbids a packet that paho.golang takes and writes; "" where it is fine.
func forbidden5(cp *paho5.ControlPacket) string {
	filters := func(id uint16, all []string) string {
		switch {
		case id == 0:
			return "[MQTT-2.2.1-3]"
		case len(all) == 0:
			return "[MQTT-3.8.3-2] [MQTT-3.10.3-2]"
		case badText(all...):
			return "[MQTT-3.8.3-1] [MQTT-3.10.3-1]"
		case len(all) > maxFilters:
			return "our limit"
		}
		return ""
	}
	rule := ""
	switch p := cp.Content.(type) {
	case *paho5.Connect:
		switch {
		case p.ProtocolName != "MQTT", p.ProtocolVersion != v5:
			return "[MQTT-3.1.2-1] [MQTT-3.1.2-2]"
		case p.WillFlag && p.WillQOS == 3:
			return "[MQTT-3.1.2-12]"
		case badText(p.ClientID, p.WillTopic, p.Username):
			return "[MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]"
		case ofWill(p.Properties), p.WillFlag && ofConnect(p.WillProperties):
			return "section 2.2.2.2: a property that has no place there"
		case p.WillFlag && badProperties(p.WillProperties) != "":
			return badProperties(p.WillProperties)
		}
		rule = badProperties(p.Properties)
	case *paho5.Subscribe:
		all := make([]string, 0, len(p.Subscriptions))
		for _, s := range p.Subscriptions {
			switch {
			case s.QoS == 3, s.RetainHandling == 3:
				return "[MQTT-3.8.3-5] and section 3.8.3.1"
			case s.NoLocal && strings.HasPrefix(s.Topic, "$share/"):
				return "[MQTT-3.8.3-4]"
			}
			all = append(all, s.Topic)
		}
		if rule = filters(p.PacketID, all); rule == "" {
			rule = badProperties(p.Properties)
		}
	case *paho5.Unsubscribe:
		if rule = filters(p.PacketID, p.Topics); rule == "" {
			rule = badProperties(p.Properties)
		}
	case *paho5.Disconnect:
		if p.Properties.ServerReference != "" {
			return "section 3.14.2.2.5: only from a server"
		}
		rule = badProperties(p.Properties)
	}
	return rule
}

// forbidden3 is forbidden5 for MQTT 3.1 and 3.1.1.
func forbidden3(cp paho3.ControlPacket) string {
	switch p := cp.(type) {
	case *paho3.ConnectPacket:
		switch {
		case !(p.ProtocolName == "MQTT" && p.ProtocolVersion == v311 || p.ProtocolName == "MQIsdp" && p.ProtocolVersion == v31):
			return "[MQTT-3.1.2-1] [MQTT-3.1.2-2]"
		case p.WillQos == 3, !p.WillFlag && (p.WillQos > 0 || p.WillRetain):
			return "[MQTT-3.1.2-11] [MQTT-3.1.2-14] [MQTT-3.1.2-15]"
		case p.PasswordFlag && !p.UsernameFlag:
			return "[MQTT-3.1.2-22]"
		case badText(p.ClientIdentifier, p.WillTopic, p.Username):
			return "[MQTT-1.5.3-1] [MQTT-1.5.3-2]"
		}
	case *paho3.SubscribePacket:
		switch {
		case p.MessageID == 0:
			return "[MQTT-2.3.1-1]"
		case len(p.Topics) == 0:
			return "[MQTT-3.8.3-3]"
		case badText(p.Topics...):
			return "[MQTT-3.8.3-1]"
		case slices.ContainsFunc(p.Qoss, func(q byte) bool { return q > 2 }):
			return "[MQTT-3-8.3-4]"
		case len(p.Topics) > maxFilters:
			return "our limit"
		}
	case *paho3.UnsubscribePacket:
		switch {
		case p.MessageID == 0:
			return "[MQTT-2.3.1-1]"
		case len(p.Topics) == 0:
			return "[MQTT-3.10.3-2]"
		case badText(p.Topics...):
			return "[MQTT-3.10.3-1]"
		case len(p.Topics) > maxFilters:
			return "our limit"
		}
	}
	return ""
}

// refusedByPaho says why paho refuses a packet that is right; "" where there is no reason.
func refusedByPaho(version, kind byte, body []byte) string {
	if version == v5 && kind == typeDisconnect && len(body) < 2 {
		return "section 3.14.2.1: the reason code and the property length may be left out; paho.golang reads them"
	}
	return ""
}
