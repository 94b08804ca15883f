package store

import (
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// What a client takes from a long queue is removed in long runs, of entries and of their messages. A run is removed as a range: that
// is a few bytes in the log, and Pebble gives up the tables in it as they are, where of keys removed one by one it writes anew what
// they are among.

// leastRange is how many keys in a row are removed as a range: each range costs those who read a little.
const leastRange = 256

// inRow reports whether a key is of a kind that may be removed as a part of a range: it ends with a number, and nothing can be
// between it and the key with the next number.
func inRow(key string) bool {
	switch key[0] {
	case kindMessage:
		return len(key) == 9
	case kindEntry:
		return len(key) == 17
	}
	return false
}

// next returns the key with the next number, "" where there is none.
func next(key string) string {
	n := binary.BigEndian.Uint64([]byte(key[len(key)-8:]))
	if n+1 == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint64([]byte(key[:len(key)-8]), n+1))
}

// removeRows has keys for which inRow holds removed, and returns how many bytes that takes.
func removeRows(b *pebble.Batch, keys []string) (size int) {
	if len(keys) >= leastRange {
		slices.Sort(keys)
	}
	for len(keys) > 0 {
		n, end := 1, next(keys[0])
		for len(keys) >= leastRange && n < len(keys) && keys[n] == end {
			n, end = n+1, next(keys[n])
		}
		if n >= leastRange && end != "" {
			_ = b.DeleteRange([]byte(keys[0]), []byte(end), nil) // these fail for no batch of this kind
			size += len(keys[0]) + len(end)
		} else {
			for _, key := range keys[:n] {
				_ = b.Delete([]byte(key), nil)
				size += len(key)
			}
		}
		keys = keys[n:]
	}
	return size
}
