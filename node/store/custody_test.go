package store_test

import (
	"testing"

	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core"
	"github.com/mozzie-mqtt/mozzie/dht/rendezvous/core/storetest"
)

func TestCustody(t *testing.T) {
	h := newDisk(t)
	storetest.Custody(t, func(t *testing.T) core.Custody { return h.fresh(t).Custody() },
		func(t *testing.T, _ core.Custody) core.Custody { return h.again(t).Custody() })
}

func TestRetained(t *testing.T) {
	h := newDisk(t)
	storetest.Retained(t, func(t *testing.T) core.Retained { return h.fresh(t).Retained() },
		func(t *testing.T, _ core.Retained) core.Retained { return h.again(t).Retained() })
}
