package store_test

import (
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
)

func TestSessions(t *testing.T) {
	h := newDisk(t)
	storetest.Run(t, func(t *testing.T) mqttfront.SessionStore { return h.fresh(t).Sessions() },
		func(t *testing.T, _ mqttfront.SessionStore) mqttfront.SessionStore { return h.again(t).Sessions() })
}

// TestInItsPlace: a session is there until it is safe that another is in its place.
func TestInItsPlace(t *testing.T) {
	d := newDisk(t)
	db := d.fresh(t)
	db.Sessions().Create("c").Save(mqttfront.SessionRecord{Version: 4, Expiry: time.Hour})
	db = d.again(t)
	version := func() (v byte) {
		t.Helper()
		if err := db.Sessions().Load(func(_ string, rec mqttfront.SessionRecord, _ mqttfront.SessionLog) { v += rec.Version }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	db.Sessions().Create("c")
	if db = d.again(t); version() != 4 {
		t.Errorf("version %d after a crash before the other was there", version())
	}
	db.Sessions().Create("c").Save(mqttfront.SessionRecord{Version: 5, Expiry: time.Hour})
	if db = d.again(t); version() != 5 {
		t.Errorf("version %d after a crash when the other was there", version())
	}
}
