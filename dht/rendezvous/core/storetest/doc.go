// Package storetest has the rules that every implementation of core.Custody and core.Retained must keep. The
// tests of an implementation call Custody and Retained; a durable one reopens its files when it is asked to.
package storetest
