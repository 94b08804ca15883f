package core_test

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/proto"
)

var traced = os.Getenv("SIM_TRACE")

// trace prints the frames that hold a text, when SIM_TRACE names one: what to look at when a seed fails.
func (s *sim) trace(v, w *simNode, arrow string, frame any) {
	want := traced
	if want == "" {
		return
	}
	var text string
	switch f := frame.(type) {
	case *proto.Publish:
		text = fmt.Sprintf("Publish %s %q %x/%d served %v hops %d before %q chosen %v", f.Message.Topic, f.Message.Properties, f.Epoch, f.Seq, f.Served, f.Hops, f.Before, f.Chosen)
	case *proto.Deliver:
		text = fmt.Sprintf("Deliver %s %q %x/%d plain %v %v forget %d", f.Message.Topic, f.Message.Properties, f.Epoch, f.Seq, f.Plain, f.Groups, f.Forget)
	default:
		text = fmt.Sprintf("%T %v", frame, frame)
	}
	for part := range strings.SplitSeq(want, ",") {
		if strings.Contains(text, part) {
			for i, x := range s.nodes {
				text = strings.ReplaceAll(text, x.id.Peer(), fmt.Sprint("#", i))
			}
			fmt.Printf("%v %d %s %d %s\n", s.now-time.Hour, v.i, arrow, w.i, text)
			return
		}
	}
}

// note prints what happens, when SIM_TRACE is set.
func (s *sim) note(format string, args ...any) {
	if os.Getenv("SIM_TRACE") != "" {
		fmt.Printf("%v "+format+"\n", append([]any{s.now - time.Hour}, args...)...)
	}
}
