// Package store keeps what a node must not forget. It implements the storage interfaces that the packages
// which use them define: core.Custody and core.Retained for the rendezvous, mqttfront.SessionStore for the
// broker. What is here now is in memory; the conformance suites beside the interfaces are what a durable
// implementation has to pass.
package store
