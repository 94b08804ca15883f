// Package backup is what "mozzie backup" makes and "mozzie restore" takes: a node's data directory in one file. Package node
// writes it, from a copy of the database that is made while the node runs; the commands check it, and bring it back.
//
// A backup is a tar archive, compressed with gzip, that other programs can read as well:
//
//	mozzie-backup.json   Head, as JSON: which node it is of, and what comes
//	NAME                 the files of the data directory, but for those of the process that used it
//	db/NAME              the database
//	SHA256SUMS           the hash of each file before, one a line, as sha256sum writes and checks it
//
// Nothing but regular files is in it, and nothing behind it. One that ends early, or was changed anywhere, is refused before
// anything is done with it. It has the node's keys and what its clients have sent: whoever has it can be the node.
package backup
