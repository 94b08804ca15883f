package store_test

import (
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/mqttfront/storetest"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

func TestSessions(t *testing.T) {
	storetest.Run(t, func(*testing.T) mqttfront.SessionStore { return store.NewSessions() },
		func(_ *testing.T, s mqttfront.SessionStore) mqttfront.SessionStore { return s })
}
