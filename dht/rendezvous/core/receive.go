package core

import (
	"github.com/mozzie-mqtt/mozzie/proto"
	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// Receive takes in a frame from a node that is up. Frames of one node come in the order in which it sent
// them. A Publish or a Deliver is lent: it and its message are good until the effects of this event are carried out.
// Other frames belong to the core from then on.
func (n *Node) Receive(from NodeID, frame any) {
	p := n.peers[from]
	if p == nil || !p.up {
		return
	}
	switch f := frame.(type) {
	case *proto.Publish:
		n.receivePublish(p, f)
	case *proto.Deliver:
		n.receiveDeliver(p, f)
	case *pb.PublishAck:
		n.receivePublishAck(p, f)
	case *pb.DeliverAck:
		n.receiveDeliverAck(p, f)
	case *pb.Ack:
		n.receiveAck(p, f)
	case *pb.Lease:
		n.receiveLease(p, f)
	case *pb.Forget:
		n.receiveForget(p, f)
	case *pb.Nodes:
		n.hearTime(f.GetTime())
		n.learnNodes(from, f.GetKnown())
	default:
		n.receiveControl(p, frame)
	}
}

// malformed counts something from another node that cannot be meant. It is dropped.
func (n *Node) malformed(where string) {
	n.stats.Malformed++
	n.cfg.Log.Debug("malformed frame dropped", "in", where)
}

func (n *Node) receiveControl(p *peer, frame any) {
	switch f := frame.(type) {
	case *pb.Register:
		n.receiveRegister(p, f)
	case *pb.RegisterAck:
		n.receiveRegisterAck(p, f)
	case *pb.Replicate:
		n.receiveReplicate(p, f)
	case *pb.Found:
		n.receiveFound(p, f)
	case *pb.FoundAck:
		n.receiveFoundAck(p, f)
	case *pb.Prepare:
		n.receivePrepare(p, f)
	case *pb.Promise:
		n.receivePromise(p, f)
	case *pb.Accept:
		n.receiveAccept(p, f)
	case *pb.Accepted:
		n.receiveAccepted(p, f)
	case *pb.SetNews:
		n.receiveSetNews(p, f)
	case *pb.Transfer:
		n.receiveTransfer(p, f)
	case *pb.HandOver:
		n.receiveHandOver(p, f)
	default:
		n.receiveRest(p, frame)
	}
}

func (n *Node) receiveRest(p *peer, frame any) {
	switch f := frame.(type) {
	case *pb.Inherit:
		n.receiveInherit(p, f)
	case *pb.Inherited:
		n.receiveInherited(p, f)
	case *pb.NoInterest:
		n.receiveNoInterest(p, f)
	case *pb.Wake:
		n.receiveWake(p, f)
	case *pb.Sync:
		n.receiveSync(p, f)
	case *pb.Retain:
		n.receiveRetain(p, f)
	case *pb.RetainedQuery:
		n.receiveRetainedQuery(p, f)
	case *pb.RetainedReply:
		n.receiveRetainedReply(p, f)
	case *pb.Child:
		n.receiveChild(p, f)
	case *pb.Copy:
		n.receiveCopy(p, f)
	case *pb.CopyDone:
		n.receiveCopyDone(p, f)
	case *pb.Digest:
		n.receiveDigest(p, f)
	case *pb.Recall:
		n.receiveRecall(p, f)
	case *pb.Leaving:
		n.receiveLeaving(p, f)
	case *pb.Chosen:
		n.receiveChosen(p, f)
	case *pb.Carried:
		n.receiveCarried(p, f)
	}
}
