// Package topic knows MQTT topics and filters: their grammar, whether one matches the other, and two indexes
// over many of them. Tree answers which filters match a topic (who is to get this message?), Names answers
// which topics match a filter (which retained messages does this subscription meet?).
//
// The broker, the rendezvous, access lists and routes use it, so that there is one notion of matching in
// Mozzie. Nothing here starts a goroutine, and no cost grows faster than the number of levels.
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the longest topic or filter that fits an MQTT string, in bytes [MQTT-4.7.3-3].
const MaxLength = 65535

// Limits bounds topics and filters beyond the grammar. The zero value is what MQTT itself allows.
type Limits struct {
	Length int // in bytes; 0: MaxLength
	Levels int // 0: any number
}

// What a topic or filter can have wrong. The errors of this package wrap one of these and show the text.
var (
	ErrEmpty    = errors.New("is empty")
	ErrTooLong  = errors.New("is too long")
	ErrTooDeep  = errors.New("has too many levels")
	ErrEncoding = errors.New("is not UTF-8 without U+0000")
	ErrWildcard = errors.New("has a wildcard where none may be")
	ErrShare    = errors.New("is not of the form $share/NAME/FILTER")
)

// bad describes what is wrong with a topic or filter, showing no more of it than a log line can take.
func bad(what, s string, err error) error {
	const show = 80
	if len(s) > show {
		return fmt.Errorf("%s %q... %w", what, strings.ToValidUTF8(s[:show], "?"), err)
	}
	return fmt.Errorf("%s %q %w", what, s, err)
}

// ValidName reports why name is no topic name that a message can be published to; nil when it is one.
func ValidName(name string, lim Limits) error {
	if err := common(name, lim); err != nil {
		return bad("topic", name, err)
	}
	if strings.ContainsAny(name, "+#") { // [MQTT-3.3.2-2] [MQTT-4.7.0-1]
		return bad("topic", name, ErrWildcard)
	}
	return nil
}

// ValidFilter reports why filter is no topic filter; nil when it is one, with wildcards or without [MQTT3-3.8.3-2]. A shared
// subscription is split with ParseShare first.
func ValidFilter(filter string, lim Limits) error {
	if err := common(filter, lim); err != nil {
		return bad("filter", filter, err)
	}
	for i := 0; i < len(filter); i++ {
		c := filter[i]
		if c != '+' && c != '#' {
			continue
		}
		alone := (i == 0 || filter[i-1] == '/') && (i == len(filter)-1 || filter[i+1] == '/')
		if !alone || c == '#' && i != len(filter)-1 { // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
			return bad("filter", filter, ErrWildcard)
		}
	}
	return nil
}

// common checks what names and filters have in common.
func common(s string, lim Limits) error {
	length := lim.Length
	if length <= 0 || length > MaxLength {
		length = MaxLength
	}
	switch {
	case s == "": // [MQTT-4.7.3-1]
		return ErrEmpty
	case len(s) > length: // [MQTT-4.7.3-3]
		return ErrTooLong
	case lim.Levels > 0 && strings.Count(s, "/") >= lim.Levels:
		return ErrTooDeep
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s): // [MQTT-4.7.3-2] [MQTT-1.5.4-1] [MQTT-1.5.4-2]
		return ErrEncoding
	}
	return nil
}

// sharePrefix begins the filter of a shared subscription.
const sharePrefix = "$share/"

// ParseShare splits $share/NAME/FILTER into NAME and FILTER. A filter that is not shared comes back as it is,
// with an empty name. It does not check that FILTER is valid.
func ParseShare(filter string) (name, inner string, err error) {
	if filter == "$share" {
		return "", "", bad("filter", filter, ErrShare)
	}
	rest, shared := strings.CutPrefix(filter, sharePrefix)
	if !shared {
		return "", filter, nil
	}
	name, inner, ok := strings.Cut(rest, "/")
	// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	if !ok || name == "" || inner == "" || strings.ContainsAny(name, "+#") {
		return "", "", bad("filter", filter, ErrShare)
	}
	return name, inner, nil
}

// Share joins what ParseShare splits.
func Share(name, inner string) string {
	if name == "" {
		return inner
	}
	return sharePrefix + name + "/" + inner
}

// cut splits the first level off s, which is not used up yet. more is false when it was the last.
func cut(s string) (level, rest string, more bool) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// First returns the first level of a topic or filter.
func First(s string) string {
	level, _, _ := cut(s)
	return level
}

// Levels returns the number of levels of a topic or filter.
func Levels(s string) int { return strings.Count(s, "/") + 1 }

// HasWildcard reports whether a filter stands for more than one topic.
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// Match reports whether a valid filter matches a valid topic name, each as it is [MQTT-4.7.3-4].
func Match(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]
	}
	for {
		f, frest, fmore := cut(filter)
		if f == "#" {
			return true
		}
		t, trest, tmore := cut(topic)
		if f != "+" && f != t {
			return false
		}
		switch {
		case !tmore:
			return !fmore || frest == "#" // a/# matches a
		case !fmore:
			return false
		}
		filter, topic = frest, trest
	}
}

// FirstLevel returns the first level of a filter and 1 where it is literal, and "" and 0 where it is a
// wildcard: the prefix that all topics share that the filter matches.
func FirstLevel(filter string) (prefix string, levels int) {
	first, _, _ := strings.Cut(filter, "/")
	if first == "+" || first == "#" {
		return "", 0
	}
	return first, 1
}

// MayMatchBelow reports whether a filter may match a topic that is prefix or begins with it and a slash.
func MayMatchBelow(filter, prefix string) bool {
	for {
		f, restF, moreF := strings.Cut(filter, "/")
		p, restP, moreP := strings.Cut(prefix, "/")
		switch {
		case f == "#":
			return true
		case f != "+" && f != p:
			return false
		case !moreP:
			return true
		case !moreF:
			return false
		}
		filter, prefix = restF, restP
	}
}
