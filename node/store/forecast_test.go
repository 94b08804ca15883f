package store

import (
	"testing"
	"time"
)

// TestForecast: that it is worth waiting is learned in some messages, and unlearned.
func TestForecast(t *testing.T) {
	f := forecast{need: lasting}
	sampled := func(need time.Duration, most int) {
		t.Helper()
		for range most {
			was := f.need <= briefly
			f.sample(need)
			if is := f.need <= briefly; is != was {
				return
			}
		}
		t.Errorf("%d records that were needed for %v changed nothing, it is %v", most, need, f.need)
	}
	sampled(2*time.Millisecond, 12)
	sampled(lasting, 12)
	f.need = 0
	for i := range 100 { // one in eight does not spoil it
		f.sample([]time.Duration{time.Millisecond, lasting}[(i%8)/7])
		if f.need > briefly {
			t.Fatalf("after %d records, of which few were needed for long: %v", i, f.need)
		}
	}
}

// TestForecastLooks: a record that stays counts, though nobody says anything of it.
func TestForecastLooks(t *testing.T) {
	f := forecast{}
	now := time.Now()
	for i := range 20 {
		f.key, f.at = "a", now
		f.look(now.Add(gatherMost))
		if f.nothing() {
			t.Fatalf("%d: it counts too early", i)
		}
		f.look(now.Add(gatherMost + 1))
	}
	if f.need <= briefly {
		t.Errorf("records stay, and %v is what they are needed for", f.need)
	}
}
