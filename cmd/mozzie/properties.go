package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
)

// -D takes three or four words, which flag libraries do not know: joinProperties makes one of them.
const wordSeparator = "\x1f"

// joinProperties rewrites -D PACKET NAME VALUE and -D PACKET user-property KEY VALUE of pub and sub into one
// flag with one value.
func joinProperties(args []string) []string {
	if len(args) == 0 || args[0] != "pub" && args[0] != "sub" {
		return args
	}
	var out []string
	for i := 0; i < len(args); i++ {
		out = append(out, args[i])
		if args[i] == "--" {
			return append(out, args[i+1:]...)
		}
		if args[i] != "-D" && args[i] != "--property" {
			continue
		}
		words := 3
		if i+2 < len(args) && args[i+2] == "user-property" {
			words = 4
		}
		value := args[i+1 : min(i+1+words, len(args))]
		if len(value) > 0 {
			out = append(out, strings.Join(value, wordSeparator))
		}
		i += len(value)
	}
	return out
}

// propertyFlag collects -D.
type propertyFlag []string

func (f *propertyFlag) String() string { return "" }
func (f *propertyFlag) Type() string   { return "PROPERTY" }

func (f *propertyFlag) Set(s string) error {
	*f = append(*f, s)
	return nil
}

// packetProperties are properties by the packet that they are for, in small letters.
type packetProperties map[string]*client.Properties

// of returns the properties for a packet.
func (p packetProperties) of(packet string) client.Properties {
	if p[packet] == nil {
		return client.Properties{}
	}
	return *p[packet]
}

// property is one of MQTT 5's that may be set from the command line.
type property struct {
	packets []string
	set     func(p *client.Properties, value string) error
}

var properties = map[string]property{
	"payload-format-indicator": {[]string{"publish", "will"}, func(p *client.Properties, v string) error {
		n, err := strconv.ParseUint(v, 10, 1)
		p.PayloadFormat, p.PayloadFormatFlag = byte(n), true
		return err
	}},
	"message-expiry-interval": {[]string{"publish", "will"}, number(32, func(p *client.Properties, n uint64) { p.MessageExpiryInterval = uint32(n) })},
	"content-type":            {[]string{"publish", "will"}, text(func(p *client.Properties) *string { return &p.ContentType })},
	"response-topic":          {[]string{"publish", "will"}, text(func(p *client.Properties) *string { return &p.ResponseTopic })},
	"correlation-data": {[]string{"publish", "will"}, func(p *client.Properties, v string) error {
		p.CorrelationData = []byte(v)
		return nil
	}},
	"topic-alias": {[]string{"publish"}, number(16, func(p *client.Properties, n uint64) { p.TopicAlias, p.TopicAliasFlag = uint16(n), true })},
	"subscription-identifier": {[]string{"subscribe"}, number(28, func(p *client.Properties, n uint64) {
		p.SubscriptionIdentifier = []int{int(n)}
	})},
	"will-delay-interval": {[]string{"will"}, number(32, func(p *client.Properties, n uint64) { p.WillDelayInterval = uint32(n) })},
	"receive-maximum":     {[]string{"connect"}, number(16, func(p *client.Properties, n uint64) { p.ReceiveMaximum = uint16(n) })},
	"maximum-packet-size": {[]string{"connect"}, number(32, func(p *client.Properties, n uint64) { p.MaximumPacketSize = uint32(n) })},
	"topic-alias-maximum": {[]string{"connect"}, number(16, func(p *client.Properties, n uint64) { p.TopicAliasMaximum = uint16(n) })},
	"session-expiry-interval": {[]string{"connect"}, number(32, func(p *client.Properties, n uint64) {
		p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = uint32(n), true
	})},
	"request-problem-information": {[]string{"connect"}, number(1, func(p *client.Properties, n uint64) {
		p.RequestProblemInfo, p.RequestProblemInfoFlag = byte(n), true
	})},
	"user-property": {[]string{"connect", "publish", "subscribe", "unsubscribe", "will"}, func(p *client.Properties, v string) error {
		key, value, _ := strings.Cut(v, wordSeparator)
		p.User = append(p.User, packets.UserProperty{Key: key, Val: value})
		return nil
	}},
}

func number(bits int, set func(*client.Properties, uint64)) func(*client.Properties, string) error {
	return func(p *client.Properties, v string) error {
		n, err := strconv.ParseUint(v, 10, bits)
		set(p, n)
		return err
	}
}

func text(field func(*client.Properties) *string) func(*client.Properties, string) error {
	return func(p *client.Properties, v string) error {
		*field(p) = v
		return nil
	}
}

func parseProperties(list []string) (packetProperties, error) {
	all := packetProperties{}
	for _, joined := range list {
		words := strings.SplitN(joined, wordSeparator, 3)
		shown := strings.ReplaceAll(joined, wordSeparator, " ")
		if len(words) < 3 || words[1] == "user-property" && !strings.Contains(words[2], wordSeparator) {
			return nil, usagef("-D %s: want PACKET NAME VALUE, or PACKET user-property KEY VALUE", shown)
		}
		packet, name := strings.ToLower(words[0]), words[1]
		known, ok := properties[name]
		if !ok {
			return nil, usagef("-D %s: there is no property %q", shown, name)
		}
		if !slices.Contains(known.packets, packet) {
			return nil, usagef("-D %s: %s is for %s, not for %s", shown, name, strings.Join(known.packets, ", "), packet)
		}
		if all[packet] == nil {
			all[packet] = &client.Properties{}
		}
		if err := known.set(all[packet], words[2]); err != nil {
			return nil, usagef("-D %s: %q is no value for %s", shown, words[2], name)
		}
	}
	return all, nil
}
