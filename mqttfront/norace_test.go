//go:build !race

package mqttfront_test

const raceEnabled = false
