package store

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// What fits a Raspberry Pi 3. A memtable takes what is put and removed again before it is full, so that it is written to the
// log alone.
const (
	cacheSize    = 8 << 20
	memTableSize = 8 << 20
	maxOpenFiles = 200
)

func (d *DB) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		CacheSize: cacheSize, MemTableSize: memTableSize, MemTableStopWritesThreshold: 4, MaxOpenFiles: maxOpenFiles,
		FormatMajorVersion: pebble.FormatNewest, FS: d.files, Logger: pebbleLog{d.log},
	}
	o.EventListener = &pebble.EventListener{ // the default ends the process
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			d.log.Error("a file of the database is damaged", "file", i.Path, "error", i.Details)
		},
	}
	o.EnsureDefaults()
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// pebbleLog takes what Pebble says.
type pebbleLog struct{ log *slog.Logger }

// Infof implements pebble.Logger.
func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("database", "says", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Warn("database", "says", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger: it must not return.
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("database: " + fmt.Sprintf(format, args...))
}
