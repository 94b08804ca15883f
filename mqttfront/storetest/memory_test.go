package storetest

import (
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

func TestSessions(t *testing.T) {
	Run(t, func(*testing.T) mqttfront.SessionStore { return NewSessions() },
		func(_ *testing.T, s mqttfront.SessionStore) mqttfront.SessionStore { return s.(*Sessions).Left() })
}
