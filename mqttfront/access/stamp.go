package access

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Stamp says when something was changed, by a hybrid logical clock: milliseconds since 1970 in the upper 48 bits and a
// counter in the lower 16. Later changes have larger stamps; 0 is before all of them.
type Stamp uint64

const (
	counterBits = 16
	maxMillis   = 253402300799999 // the end of the year 9999, which is as far as the text of a stamp goes
)

// stampLayout is the time in the text of a stamp.
const stampLayout = "2006-01-02T15:04:05.000Z"

// String returns the time in UTC, and the counter behind a + where it is not 0.
func (s Stamp) String() string {
	text := time.UnixMilli(s.millis()).UTC().Format(stampLayout)
	if n := uint16(s); n > 0 {
		text += "+" + strconv.Itoa(int(n))
	}
	return text
}

func (s Stamp) millis() int64 { return int64(s >> counterBits) }

// ParseStamp is the inverse of String.
func ParseStamp(text string) (Stamp, error) {
	day, count, counted := strings.Cut(text, "+")
	t, err := time.Parse(stampLayout, day)
	n := uint64(0)
	if err == nil && counted {
		n, err = strconv.ParseUint(count, 10, counterBits)
	}
	if err == nil {
		if s := stampAt(t.UnixMilli()) + Stamp(n); t.UnixMilli() >= 0 && s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%.60q is no time of a change, such as %s", text, stampAt(1792000000000)+2)
}

func stampAt(millis int64) Stamp {
	return Stamp(min(max(millis, 0), maxMillis)) << counterBits
}

// Clock makes stamps, each larger than all that it has made or seen. It is not safe for concurrent use.
type Clock struct{ last Stamp }

// Next returns the stamp of a change that is made now.
func (c *Clock) Next(now time.Time) Stamp {
	c.last = max(c.last+1, stampAt(now.UnixMilli()))
	return c.last
}

// Saw tells of a stamp that was made elsewhere or before. A machine whose clock is behind (a Raspberry Pi has none
// before it reaches the network) goes on from it.
func (c *Clock) Saw(s Stamp) { c.last = max(c.last, s) }
