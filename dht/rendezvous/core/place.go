package core

import (
	"github.com/mozzie-mqtt/mozzie/dht"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Place is a topic prefix with its number of levels; its location is a hash of it.
type Place struct {
	Prefix string
	Depth  int
}

// root is where registrations stand whose filter begins with a wildcard.
var root = Place{}

// Location returns where the place is in the keyspace.
func (p Place) Location() dht.Location { return dht.Locate(p.Prefix, p.Depth) }

func (p Place) pb() *pb.Place {
	return &pb.Place{Prefix: p.Prefix, Depth: uint32(p.Depth)} //nolint:gosec // a count of levels
}

// placeOf converts a place from the wire; ok is false where its depth and its prefix disagree.
func placeOf(p *pb.Place) (place Place, ok bool) {
	if p == nil {
		return root, false
	}
	place = Place{p.Prefix, int(p.Depth)}
	prefix, depth := dht.Prefix(p.Prefix, place.Depth)
	return place, prefix == place.Prefix && depth == place.Depth && len(prefix) <= 65535
}

// above returns the places whose registrations concern p, nearest first, p itself left out. Registrations
// stand at the first level or at the root.
func (p Place) above() []Place {
	switch {
	case p.Depth == 0:
		return nil
	case p.Depth == 1:
		return []Place{root}
	}
	prefix, depth := dht.Prefix(p.Prefix, 1)
	return []Place{{prefix, depth}, root}
}
