// Package store keeps what a node must not forget, in one Pebble database. It implements the storage interfaces that the packages
// which use them define: core.Custody, core.Retained, core.Journal and core.Received for the rendezvous, mqttfront.SessionStore
// for the broker. What these promise is in the conformance suites beside the interfaces; that it holds over power cuts, in
// the tests here. keys.go has the records by their keys, proto/store.proto what is in them.
//
// Goroutines: runCommit, runSweep and, where that is wanted, runLazySync of each DB; they end in Close.
package store
