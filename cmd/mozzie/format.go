package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// print writes one message as the flags say.
func (f *subFlags) print(w io.Writer, m client.Message) error {
	now := time.Now()
	text := string(m.Payload)
	switch {
	case f.json:
		text = messageJSON(m, now)
	case f.format != "":
		text, _ = expand(f.format, m, now)
	case f.verbose && len(m.Payload) == 0:
		text = m.Topic + " (null)"
	case f.verbose:
		text = m.Topic + " " + text
	}
	if !f.noNewline {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	if err != nil {
		return fmt.Errorf("print a message: %w", err)
	}
	return nil
}

// expand fills in a format of mosquitto_sub's kind.
func expand(format string, m client.Message, now time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' && c != '\\' || i+1 == len(format) {
			b.WriteByte(c)
			continue
		}
		i++
		value, ok := expandOne(format[i-1:i+1], m, now)
		if !ok {
			return "", usagef("-F: there is no %q", format[i-1:i+1])
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

func expandOne(code string, m client.Message, now time.Time) (string, bool) {
	switch code {
	case "%%":
		return "%", true
	case "%t":
		return m.Topic, true
	case "%p":
		return string(m.Payload), true
	case "%x":
		return hex.EncodeToString(m.Payload), true
	case "%X":
		return strings.ToUpper(hex.EncodeToString(m.Payload)), true
	case "%l":
		return strconv.Itoa(len(m.Payload)), true
	case "%q":
		return strconv.Itoa(int(m.QoS)), true
	case "%r":
		return strconv.Itoa(btoi(m.Retain)), true
	case "%d":
		return strconv.Itoa(btoi(m.Dup)), true
	case "%m":
		return strconv.Itoa(int(m.PacketID)), true
	case "%I":
		return now.Format("2006-01-02T15:04:05-0700"), true
	case "%U":
		return fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()), true
	case "%j":
		return messageJSON(m, now), true
	case `\n`:
		return "\n", true
	case `\t`:
		return "\t", true
	case `\\`:
		return `\`, true
	}
	return "", false
}

// jsonMessage is a message as --json prints it. A payload that is no UTF-8 is in base64.
type jsonMessage struct {
	Time          string          `json:"time"`
	Topic         string          `json:"topic"`
	QoS           byte            `json:"qos"`
	Retain        bool            `json:"retain"`
	Dup           bool            `json:"dup,omitempty"`
	PacketID      uint16          `json:"packet_id,omitempty"`
	Payload       *string         `json:"payload,omitempty"`
	PayloadBase64 string          `json:"payload_base64,omitempty"`
	Properties    *jsonProperties `json:"properties,omitempty"`
}

// jsonProperties are those of MQTT 5 that a received message may have, by their names in -D.
type jsonProperties struct {
	PayloadFormat   *byte       `json:"payload-format-indicator,omitempty"`
	MessageExpiry   uint32      `json:"message-expiry-interval,omitempty"`
	ContentType     string      `json:"content-type,omitempty"`
	ResponseTopic   string      `json:"response-topic,omitempty"`
	CorrelationData []byte      `json:"correlation-data,omitempty"` // in base64
	SubscriptionIDs []int       `json:"subscription-identifier,omitempty"`
	TopicAlias      uint16      `json:"topic-alias,omitempty"`
	User            [][2]string `json:"user-property,omitempty"`
}

func messageJSON(m client.Message, now time.Time) string {
	j := jsonMessage{
		Time: now.Format(time.RFC3339Nano), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Dup: m.Dup, PacketID: m.PacketID,
		Properties: propertiesJSON(m.Properties),
	}
	if utf8.Valid(m.Payload) {
		payload := string(m.Payload)
		j.Payload = &payload
	} else {
		j.PayloadBase64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err.Error() // cannot happen: there is nothing in it that JSON cannot say
	}
	return string(b)
}

func propertiesJSON(p client.Properties) *jsonProperties {
	j := jsonProperties{
		MessageExpiry: p.MessageExpiryInterval, ContentType: p.ContentType, ResponseTopic: p.ResponseTopic,
		CorrelationData: p.CorrelationData, SubscriptionIDs: p.SubscriptionIdentifier, TopicAlias: p.TopicAlias,
	}
	if p.PayloadFormatFlag {
		j.PayloadFormat = &p.PayloadFormat
	}
	for _, u := range p.User {
		j.User = append(j.User, [2]string{u.Key, u.Val})
	}
	if j.PayloadFormat == nil && j.MessageExpiry == 0 && j.ContentType == "" && j.ResponseTopic == "" &&
		j.CorrelationData == nil && j.SubscriptionIDs == nil && j.TopicAlias == 0 && j.User == nil {
		return nil
	}
	return &j
}
