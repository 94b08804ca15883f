package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mozzie-mqtt/mozzie/cmd/mozzie/client"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// TestLeaveRefused: a node does not leave for good where nobody is there to hand over to, or where a session would be lost, and goes
// on. One that has no time to leave is not taken for gone, and is there with its session when it is started again; told to lose
// the session it leaves, and is not started any more.
func TestLeaveRefused(t *testing.T) {
	s := startSwarm(t, 1)
	leave := func(discard bool, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := s.nodes[0].Leave(ctx, discard)
		return err
	}
	if err := leave(false, time.Minute); !errors.Is(err, admin.ErrAlone) {
		t.Errorf("alone: %v", err)
	}
	s.start(0)
	s.meet()
	away := s.connect(0, "away", kept)
	away.subscribe(1, "a/#")
	_ = away.Disconnect()
	pub := s.connect(1, "pub")
	pub.publish(client.Message{Topic: "a/b", Payload: []byte("x"), QoS: 1})
	eventually(t, func() error {
		if at := s.nodes[0].AtStake(); at != (admin.AtStake{Sessions: 1, Messages: 1}) {
			return errors.New("it is not in the session")
		}
		return nil
	})
	if err := leave(false, time.Minute); !errors.Is(err, admin.ErrSessions) {
		t.Errorf("with a session: %v", err)
	}
	if ok, reasons := s.nodes[0].Ready(); !ok {
		t.Errorf("the node does not go on: %v", reasons)
	}
	if err := leave(true, 0); err == nil {
		t.Error("it has left in no time")
	}
	<-s.nodes[0].Gone()
	if err := leave(true, time.Minute); !errors.Is(err, admin.ErrLeaving) {
		t.Errorf("while it stops: %v", err)
	}
	s.stopNode(0)
	s.again(0)
	s.meet()
	s.connect(0, "away", kept).wait(1)
	if err := leave(true, time.Minute); err != nil {
		t.Error(err)
	}
	s.stopNode(0)
	var left *datadir.LeftError
	if _, err := Start(t.Context(), s.configs[0], Options{}); !errors.As(err, &left) {
		t.Errorf("started again: %v", err)
	}
}
