package backup

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Format is the version of the format that this program writes. It grows when an older program could not read what a newer
// one has written.
const Format = 1

// Names of what is not of the data directory.
const (
	headName = "mozzie-backup.json"
	sumsName = "SHA256SUMS"
	// dbDir is where the database is, in a backup and in the data directory.
	dbDir = "db"
)

// Limits of what is read, so that a file that is no backup costs nothing.
const (
	maxHead  = 64 << 10
	maxFiles = 1 << 20
	maxName  = 128
	maxSmall = 16 << 20 // of a file that is not the database's
	maxBytes = 1 << 44
)

// Head says what a backup is of.
type Head struct {
	Format  int       `json:"format"`
	Layout  int       `json:"layout"` // of the data directory
	Made    time.Time `json:"made"`
	PeerID  string    `json:"peer_id"`
	Version string    `json:"version"` // of the program
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"` // of the files
}

// Error says what is wrong with a backup.
type Error struct {
	Where string // the file in it; "" where it is none of them
	Err   error
}

func (e *Error) Error() string {
	if e.Where == "" {
		return "the backup is damaged or none: " + e.Err.Error()
	}
	return fmt.Sprintf("the backup is damaged or none: %q in it: %v", e.Where, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrNewer says that a backup was written by a newer program.
var ErrNewer = errors.New("it was written by a newer version of mozzie: use that version")

// validName reports whether a file in a backup can have a name: one that leads nowhere but to the data directory.
func validName(name string) bool {
	base, _ := strings.CutPrefix(name, dbDir+"/")
	if base == "" || len(name) > maxName || base[0] == '.' || name == dbDir || name == headName || name == sumsName {
		return false
	}
	for _, c := range []byte(base) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// ofDatabase reports whether a file in a backup is the database's.
func ofDatabase(name string) bool { return strings.HasPrefix(name, dbDir+"/") }
