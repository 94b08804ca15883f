package mqttfront

import (
	"errors"
	"fmt"
	"strings"
)

// Reason is an MQTT 5 reason code.
type Reason byte

// The reason codes that we send or act on.
const (
	reasonSuccess             Reason = 0x00
	reasonWithWill            Reason = 0x04
	reasonNoSubscription      Reason = 0x11
	ReasonUnspecified         Reason = 0x80
	reasonMalformed           Reason = 0x81
	reasonProtocolError       Reason = 0x82
	ReasonImplementation      Reason = 0x83
	reasonUnsupportedVersion  Reason = 0x84
	reasonBadClientID         Reason = 0x85
	ReasonBadUserOrPassword   Reason = 0x86
	ReasonNotAuthorized       Reason = 0x87
	ReasonServerUnavailable   Reason = 0x88
	ReasonServerBusy          Reason = 0x89
	ReasonBanned              Reason = 0x8A
	reasonShuttingDown        Reason = 0x8B
	reasonBadAuthMethod       Reason = 0x8C
	reasonKeepAlive           Reason = 0x8D
	reasonTakenOver           Reason = 0x8E
	reasonFilterInvalid       Reason = 0x8F
	reasonTopicInvalid        Reason = 0x90
	reasonPacketIDUnknown     Reason = 0x92
	reasonReceiveMaximum      Reason = 0x93
	reasonTopicAlias          Reason = 0x94
	reasonPacketTooLarge      Reason = 0x95
	ReasonQuotaExceeded       Reason = 0x97
	reasonAdministrative      Reason = 0x98
	reasonConnectionRate      Reason = 0x9F
	reasonV3BadVersion        byte   = 1 // MQTT 3 CONNACK codes
	reasonV3BadClientID       byte   = 2
	reasonV3Unavailable       byte   = 3
	reasonV3BadUserOrPassword byte   = 4
	reasonV3NotAuthorized     byte   = 5
)

// reasonNames are the names that MQTT 5 gives the refusals that we send.
var reasonNames = map[Reason]string{
	ReasonUnspecified: "unspecified error", reasonMalformed: "malformed packet", reasonProtocolError: "protocol error",
	ReasonImplementation: "implementation specific error", reasonUnsupportedVersion: "unsupported protocol version",
	reasonBadClientID: "client identifier not valid", ReasonBadUserOrPassword: "bad user name or password",
	ReasonNotAuthorized: "not authorized", ReasonServerUnavailable: "server unavailable", ReasonServerBusy: "server busy",
	ReasonBanned: "banned", reasonShuttingDown: "server shutting down", reasonBadAuthMethod: "bad authentication method",
	reasonKeepAlive: "keep alive timeout", reasonTakenOver: "session taken over", reasonFilterInvalid: "topic filter invalid",
	reasonTopicInvalid: "topic name invalid", reasonPacketIDUnknown: "packet identifier not found",
	reasonReceiveMaximum: "receive maximum exceeded", reasonTopicAlias: "topic alias invalid",
	reasonPacketTooLarge: "packet too large", ReasonQuotaExceeded: "quota exceeded",
	reasonAdministrative: "administrative action", reasonConnectionRate: "connection rate exceeded",
}

// String returns the name of the reason and its code.
func (r Reason) String() string {
	name := reasonNames[r]
	if name == "" {
		name = "reason"
	}
	return fmt.Sprintf("%s (0x%02x)", name, byte(r))
}

// lawfulReasons are the codes that each packet may have, beside those of success [MQTT-3.2.2-8] [MQTT-3.4.2-1]
// [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1].
var lawfulReasons = [16]string{
	typeConnack:    "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
	typePuback:     "\x80\x83\x87\x90\x91\x97\x99",
	typePubrec:     "\x80\x83\x87\x90\x91\x97\x99",
	typePubrel:     "\x92",
	typePubcomp:    "\x92",
	typeSuback:     "\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
	typeUnsuback:   "\x11\x80\x83\x87\x8f\x91",
	typeDisconnect: "\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2",
}

// lawful returns the code that a packet of MQTT 5 may have for a reason.
func lawful(kind byte, r Reason) Reason {
	if r == reasonSuccess || strings.IndexByte(lawfulReasons[kind], byte(r)) >= 0 {
		return r
	}
	return ReasonUnspecified
}

// Refusal is an error that a client is told as it is. Clients show what the code means by themselves: Text says
// what is beyond that, such as what to do, and not the same again.
type Refusal struct {
	Code Reason
	Text string // the reason string; "" where the code says it all
}

func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Code.String() + ": " + r.Text
}

func refuse(code Reason, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// asRefusal returns what to tell a client about err.
func asRefusal(err error, otherwise Reason) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: otherwise, Text: err.Error()}
}

// NotStored refuses a message that can't be kept.
var NotStored = &Refusal{ReasonQuotaExceeded, "the message cannot be stored; the log of the node says why"}

// v3Connack is the CONNACK return code of MQTT 3 for a reason.
func v3Connack(r Reason) byte {
	switch r {
	case reasonUnsupportedVersion:
		return reasonV3BadVersion
	case reasonBadClientID:
		return reasonV3BadClientID
	case ReasonBadUserOrPassword:
		return reasonV3BadUserOrPassword
	case ReasonNotAuthorized, ReasonBanned:
		return reasonV3NotAuthorized
	}
	return reasonV3Unavailable
}

// errUsers is the answer to topics and filters that name users.
var errUsers = &Refusal{ReasonNotAuthorized, "users are not enabled on this node: no level of a topic may begin with @"}

// errNoRoom is the answer to topics and filters at locations that there is no room for.
var errNoRoom = &Refusal{ReasonQuotaExceeded, "the node deals with as many first levels of topics as it may: try again later"}
