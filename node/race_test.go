//go:build race

package node

// raceEnabled says that the tests run under the race detector.
const raceEnabled = true
