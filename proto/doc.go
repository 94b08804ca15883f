// Package proto is Mozzie's wire: what nodes say to each other, in which bytes. WIRE.md, beside this file,
// describes it well enough to write another implementation.
package proto
