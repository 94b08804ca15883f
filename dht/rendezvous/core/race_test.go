//go:build race

package core_test

// manySeeds is how many seeds are simulated under the race detector, which makes them slow and, the core having no
// goroutines, finds nothing in them.
const manySeeds = 10
