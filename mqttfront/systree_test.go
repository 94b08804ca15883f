package mqttfront

import (
	"math"
	"testing"
	"time"
)

// TestLoad compares with what mosquitto computes: a steady rate is reached as 1 - e^(-t/period), and left the same way.
func TestLoad(t *testing.T) {
	const every, perLook = 10 * time.Second, 50 // 300 a minute
	var l load
	counter := uint64(0)
	check := func(at time.Duration, want func(period time.Duration) float64) {
		t.Helper()
		for i, period := range loadPeriods {
			if w := want(period); math.Abs(l.rates[i]-w) > 1e-6 {
				t.Errorf("after %v: %s is %f, want %f", at, loadPeriodNames[i], l.rates[i], w)
			}
		}
	}
	rise := func(at, period time.Duration) float64 { return 300 * (1 - math.Exp(-at.Seconds()/period.Seconds())) }
	for at := every; at <= 20*time.Minute; at += every {
		counter += perLook
		l.update(counter, every)
		check(at, func(p time.Duration) float64 { return rise(at, p) })
	}
	l.update(counter, 5*time.Minute) // one late look
	check(25*time.Minute, func(p time.Duration) float64 { return rise(20*time.Minute, p) * math.Exp(-300/p.Seconds()) })
}
