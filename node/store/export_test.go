package store

// For tests of what is bounded.
const (
	FullRecords = fullRecords
	FullSize    = fullSize
)
