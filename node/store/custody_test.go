package store_test

import (
	"testing"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
	"github.com/mozzie-mqtt/mozzie/node/store"
)

func TestCustody(t *testing.T) {
	storetest.Custody(t, func(*testing.T) core.Custody { return store.NewCustody() },
		func(_ *testing.T, c core.Custody) core.Custody { return c })
}

func TestRetained(t *testing.T) {
	storetest.Retained(t, func(*testing.T) core.Retained { return store.NewRetained() },
		func(_ *testing.T, r core.Retained) core.Retained { return r })
}
