// Package node is one Mozzie node: it opens the data directory, joins the swarm, serves MQTT clients and the
// administration API, and takes leave again. It alone knows the packages below it all, and joins them through
// the small interfaces that each of them defines; only cmd/mozzie and end-to-end tests import it.
//
// Goroutines: package node has none of its own; those of the parts are listed in their packages.
package node
