//go:build race

package mqttfront_test

const raceEnabled = true
