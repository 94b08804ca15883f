package node

import (
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
)

// TestBrokerCountersAreShown checks that /metrics has everything that the broker counts.
func TestBrokerCountersAreShown(t *testing.T) {
	st := new(mqttfront.Stats)
	names := map[float64]string{}
	set := func(name string, field any) {
		value := 1000 + len(names)
		names[float64(value)] = name
		switch f := field.(type) {
		case *atomic.Int64:
			f.Store(int64(value))
		case *atomic.Uint64:
			f.Store(uint64(value))
		default:
			t.Fatalf("Stats.%s is a %T", name, field)
		}
	}
	fields := reflect.ValueOf(st).Elem()
	for i := range fields.NumField() {
		name, f := fields.Type().Field(i).Name, fields.Field(i)
		if f.Kind() != reflect.Array {
			set(name, f.Addr().Interface())
			continue
		}
		for j := range f.Len() {
			set(name, f.Index(j).Addr().Interface())
		}
	}
	for _, s := range brokerSamples(st) {
		delete(names, s.value)
	}
	for _, name := range names {
		t.Errorf("Stats.%s is not in /metrics", name)
	}
}
