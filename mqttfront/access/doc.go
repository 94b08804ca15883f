// Package access decides who may do what: accounts with their passwords (Table, Account, Hash), who gets in and how often
// it may be tried (Door), and access rules (Rules, Rights). It is what a node's mqttfront.Auth is made of.
//
// A Table does not change: a change makes another one. Every entry carries the Stamp of its last change, deletions too,
// and Merge joins two tables entry by entry: the later change wins, whatever the order in which they are joined. So
// tables that were changed at several nodes come out the same at all of them.
//
// Nothing here reads or writes files, and nothing waits but Door.Login. There are no goroutines.
package access
