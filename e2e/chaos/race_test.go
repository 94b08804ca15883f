//go:build race

package chaos

// raceEnabled says that the tests run under the race detector.
const raceEnabled = true
