package mqttfront

import "strings"

// mount is what stands before all topics of a listener's clients, such as site1/, and what they do not see; "": nothing.
// Topics are with it everywhere in the broker, in the swarm and for Auth: it is put on when a topic or filter is read, and
// taken off when a message is written. Topics below $local/ have it behind that; the others that begin with $ are the
// node's, and as they are. So are the response topics of requests, which travel with a message as they were given.
//
// A session belongs to the mount that it was made by: another client with the same ID and user, by a listener with
// another mount, has a session of its own. So all that a session is subscribed to is below its mount.
type mount string

// on returns a topic or filter of a client with the mount.
func (m mount) on(name string) string {
	switch {
	case m == "" || name == "":
		return name
	case name[0] != '$':
		return string(m) + name
	case strings.HasPrefix(name, localPrefix):
		return localPrefix + string(m) + name[len(localPrefix):]
	}
	return name
}

// appendOn is on for the topic of a message, which it appends to b.
func (m mount) appendOn(b, name []byte) []byte {
	switch {
	case len(name) == 0 || name[0] != '$':
		return append(append(b, m...), name...)
	case strings.HasPrefix(string(name[:min(len(name), len(localPrefix))]), localPrefix):
		return append(append(append(b, localPrefix...), m...), name[len(localPrefix):]...)
	}
	return append(b, name...)
}

// has reports whether a topic is one that clients behind the mount can see: below it, or of the node. Filters such as
// site1/# match site1 too, which is not.
func (m mount) has(name string) bool {
	if m == "" {
		return true
	}
	if name[0] == '$' {
		rest, local := strings.CutPrefix(name, localPrefix)
		return !local || m.below(rest)
	}
	return m.below(name)
}

func (m mount) below(name string) bool {
	return len(name) > len(m) && strings.HasPrefix(name, string(m))
}

// off returns a topic that the mount has as the client is to see it; "" without a mount: as it is.
func (m mount) off(name string) string {
	switch {
	case m == "":
		return ""
	case name[0] != '$':
		return name[len(m):]
	case strings.HasPrefix(name, localPrefix):
		return localPrefix + name[len(localPrefix)+len(m):]
	}
	return name
}
