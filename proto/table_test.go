package proto

import (
	"time"

	"github.com/mozzie-mqtt/mozzie/proto/pb"
)

// The values of the table: short, and each different from its neighbours, so that mixed-up fields show.
const (
	nodeA = "\x01\x02\x03\x04\x05\x06\x07\x08peer-one"
	nodeB = "\x11\x12\x13\x14\x15\x16\x17\x18peer-two"
)

var (
	loc       = [LocationSize]byte{0: 0xaa, 31: 0xbb}
	placeA    = &pb.Place{Prefix: "a", Depth: 1}
	placeAB   = &pb.Place{Prefix: "a/b", Depth: 2}
	set       = &pb.Set{Version: 3, Members: [][]byte{[]byte(nodeA), []byte(nodeB)}}
	known     = []*pb.Known{{Node: []byte(nodeB), Addresses: []string{"/ip4/10.0.0.1/tcp/7883", "/ip6/::1/tcp/1"}, Left: true, Life: 5, Gone: true}}
	ballot    = &pb.Ballot{Round: 2, Node: []byte(nodeA)}
	ranges    = []*pb.Ranges{{Epoch: 0x0102030405060708, Ranges: []*pb.Range{{From: 1, To: 1}, {From: 3, To: 300}}}}
	pbMessage = &pb.Message{Topic: "a/b", Payload: []byte("on"), Properties: []byte{1, 1}, Qos: 2, Retain: true, ExpiresMs: 1001}
	retained  = []*pb.RetainedMessage{{Message: pbMessage, Stamp: 0x1000, Epoch: 9, Seq: 8, Cleared: true, AgeMs: 7}}
	custody   = []*pb.Custody{{Message: pbMessage, Epoch: 9, Seq: 8, Stamp: 0x1000, Unsettled: true, Except: []byte(nodeA), Holders: [][]byte{[]byte(nodeB)}, Shares: []*pb.Custody_Share{
		{Node: []byte(nodeB), Plain: true, Groups: []*pb.Group{{Name: "g", Filter: "a/+"}}, Stored: true, HoldS: 600, Done: true, Turn: 2,
			Partly: true, Open: []string{"$session-00/s"}}}}}
	open         = []*pb.Open{{Node: []byte(nodeB), Sessions: []string{"$session-00/s"}, Messages: ranges, Through: true}}
	registration = &pb.Registration{Owner: []byte(nodeB), Seq: 6, Base: 5, Part: 1, More: true, Stood: 4, Interests: []*pb.Interest{
		{Filter: "a/#", Plain: true, Qos: 1, HoldS: 600, Groups: []*pb.GroupInterest{{Name: "g", Qos: 2, Members: 3, Online: true}},
			Sessions: []*pb.SessionInterest{{Name: "$session-00/s", From: []byte("peer"), Database: 1 << 63}}}}}
)

type frameCase struct {
	name  string
	frame any
	hex   string // of the whole frame: length, kind, body
}

// frames is every kind of frame with all its fields set, and the data frames with none as well. The hex was
// held against protoc's encoding of the same values.
func frames() []frameCase {
	full := &Message{Topic: "a/b", Payload: []byte("on"), Properties: []byte{1, 1}, QoS: 2, Retain: true, Expires: now.Add(time.Second)}
	return []frameCase{
		{"Hello", &pb.Hello{Node: []byte(nodeA), Version: 1, Life: 4, Addresses: []string{"/ip4/10.0.0.2/tcp/7883"}, Known: known, Serves: true, Time: 1767225600000, Clock: 7}, `
			8301010a100102030405060708706565722d6f6e651001180422162f6970342f31302e302e302e322f7463702f37383833
			2a400a101112131415161718706565722d74776f12162f6970342f31302e302e302e312f7463702f37383833120e2f69
			70362f3a3a312f7463702f3118012005280130013880d0eab6b733410700000000000000`},
		{"Nodes", &pb.Nodes{Known: known, Time: 1767225600000}, `
			4a020a400a101112131415161718706565722d74776f12162f6970342f31302e302e302e312f7463702f37383833120e
			2f6970362f3a3a312f7463702f311801200528011080d0eab6b733`},
		{"Lease", &pb.Lease{Ask: 1, Granted: 2, ForMs: 5000}, `1603090100000000000000110200000000000000188827`},
		{"Ack", &pb.Ack{Ops: []uint64{1, 1 << 62}, Refused: []uint64{7}}, `10040a0a01808080808080808040120107`},
		{"Publish", &Publish{Message: full, Location: loc, Depth: 2, Epoch: 9, Seq: 8, Released: 7, Age: 1500 * time.Millisecond,
			Origin: nodeA, Hops: 4, Version: 3, Served: true, Echo: true, Awaited: true, Before: []string{nodeB},
			Chosen: []Choice{{Group{"g", "a/+"}, nodeA, time.Hour, 2}}}, `
			9d01050a20aa000000000000000000000000000000000000000000000000000000000000bb10021a140a03612f621202
			6f6e1a0201012002280130e90721090000000000000028083007380140014a100102030405060708706565722d6f6e65
			500458dc0b6003680172101112131415161718706565722d74776f8201210a080a01671203612f2b1210010203040506
			0708706565722d6f6e6518901c2002`},
		{"Publish of nothing", &Publish{Message: &Message{Topic: "t"}}, `28050a2000000000000000000000000000000000000000000000000000000000000000001a030a0174`},
		{"PublishAck", &pb.PublishAck{Taken: ranges, Kept: ranges[:1], Written: ranges}, `
			49060a160908070605040302011204080110011205080310ac0212160908070605040302011204080110011205080310
			ac021a160908070605040302011204080110011205080310ac02`},
		{"Deliver", &Deliver{Message: full, Location: loc, Epoch: 9, Seq: 8, Forget: 7, Stamp: 0x1000,
			Groups: []Group{{"g", "a/+"}, {"h", "#"}}, Plain: true, Recent: true}, `
			65070a20aa000000000000000000000000000000000000000000000000000000000000bb12140a03612f6212026f6e1a
			0201012002280130e9071909000000000000002008280132080a01671203612f2b32060a016812012338074100100000
			000000004801`},
		{"Deliver of nothing", &Deliver{Message: &Message{Topic: "t"}}, `28070a20000000000000000000000000000000000000000000000000000000000000000012030a0174`},
		{"DeliverAck", &pb.DeliverAck{Stored: ranges, Done: ranges,
			Refused: []*pb.Refusal{{Epoch: 9, Seq: 8, Group: &pb.Group{Name: "g", Filter: "a/+"}}}, Open: open}, `
			8501080a160908070605040302011204080110011205080310ac02121609080706050403020112040801100112050803
			10ac021a1509090000000000000010081a080a01671203612f2b223b0a101112131415161718706565722d74776f120d
			2473657373696f6e2d30302f731a160908070605040302011204080110011205080310ac022001`},
		{"Forget", &pb.Forget{Epochs: []*pb.Forget_Epoch{{Epoch: 9, Upto: 8, Closed: true}}, Released: true}, `12090a0d090900000000000000100818011001`},
		{"Register", &pb.Register{Place: placeA, Registration: registration, Hops: 1}, `
			610a0a050a0161100112550a101112131415161718706565722d74776f1006180522370a03612f231001180122090a01
			6710021803200128d804321e0a0d2473657373696f6e2d30302f73120470656572190000000000000080280130013804
			1801`},
		{"RegisterAck", &pb.RegisterAck{Place: placeA, Owner: []byte(nodeB), Seq: 6, Set: set, Local: true, Resend: true, Full: true}, `
			4a0b0a050a0161100112101112131415161718706565722d74776f18062226080312100102030405060708706565722d
			6f6e6512101112131415161718706565722d74776f280130013801`},
		{"Replicate", &pb.Replicate{Op: 10, Place: placeA, Set: set, Registrations: []*pb.Registration{registration}, Sync: true, Children: []*pb.Place{placeAB}, Told: [][]byte{[]byte(nodeA)}}, `
			a6010c080a12050a016110011a26080312100102030405060708706565722d6f6e651210111213141516171870656572
			2d74776f22550a101112131415161718706565722d74776f1006180522370a03612f231001180122090a016710021803
			200128d804321e0a0d2473657373696f6e2d30302f73120470656572190000000000000080280130013804280132070a
			03612f6210023a100102030405060708706565722d6f6e65`},
		{"Found", &pb.Found{Op: 10, Place: placeA, Set: set}, `
			320d080a12050a016110011a26080312100102030405060708706565722d6f6e6512101112131415161718706565722d
			74776f`},
		{"FoundAck", &pb.FoundAck{Op: 10, Place: placeA, Set: set, Stood: true}, `
			340e080a12050a016110011a26080312100102030405060708706565722d6f6e6512101112131415161718706565722d
			74776f2001`},
		{"Prepare", &pb.Prepare{Place: placeA, Version: 4, Ballot: ballot}, `200f0a050a0161100110041a14080212100102030405060708706565722d6f6e65`},
		{"Promise", &pb.Promise{Place: placeA, Version: 4, Ballot: ballot, Ok: true, Set: set, Promised: ballot, Accepted: ballot, AcceptedMembers: set.Members}, `
			9a01100a050a0161100110041a14080212100102030405060708706565722d6f6e6520012a2608031210010203040506
			0708706565722d6f6e6512101112131415161718706565722d74776f3214080212100102030405060708706565722d6f
			6e653a14080212100102030405060708706565722d6f6e6542100102030405060708706565722d6f6e65421011121314
			15161718706565722d74776f`},
		{"Accept", &pb.Accept{Place: placeA, Version: 4, Ballot: ballot, Members: set.Members}, `
			44110a050a0161100110041a14080212100102030405060708706565722d6f6e6522100102030405060708706565722d
			6f6e6522101112131415161718706565722d74776f`},
		{"Accepted", &pb.Accepted{Place: placeA, Version: 4, Ballot: ballot, Ok: true}, `22120a050a0161100110041a14080212100102030405060708706565722d6f6e652001`},
		{"SetNews", &pb.SetNews{Place: placeA, Set: set, Rendezvous: []byte(nodeA)}, `
			42130a050a016110011226080312100102030405060708706565722d6f6e6512101112131415161718706565722d7477
			6f1a100102030405060708706565722d6f6e65`},
		{"Transfer", &pb.Transfer{Op: 10, Place: placeA, Registrations: []*pb.Registration{registration}, Retained: retained, Children: []*pb.Place{placeAB},
			Custody: custody, Seen: []*pb.Seen{{Epoch: 9, Upto: 8, Ranges: ranges[0].Ranges, Owed: []*pb.Seen_Owed{{Node: []byte(nodeA), Ranges: ranges[0].Ranges}}}},
			Matched: []*pb.Matched{{Place: placeA, Have: []*pb.Seq{{Owner: []byte(nodeB), Seq: 5}}}}}, `
			810314080a12050a016110011a550a101112131415161718706565722d74776f1006180522370a03612f231001180122
			090a016710021803200128d804321e0a0d2473657373696f6e2d30302f73120470656572190000000000000080280130
			013804222e0a140a03612f6212026f6e1a0201012002280130e907110010000000000000190900000000000000200828
			0130072a070a03612f621002328a010a140a03612f6212026f6e1a0201012002280130e9071109000000000000001808
			22380a101112131415161718706565722d74776f10011a080a01671203612f2b200128d8043001380240014a0d247365
			7373696f6e2d30302f7329001000000000000030013a100102030405060708706565722d6f6e65421011121314151617
			18706565722d74776f3a3909090000000000000010081a04080110011a05080310ac02221f0a10010203040506070870
			6565722d6f6e651204080110011205080310ac02421d0a050a0161100112140a101112131415161718706565722d7477
			6f1005`},
		{"HandOver", &pb.HandOver{Op: 10, Place: placeA, Set: set, Inheritors: [][]byte{[]byte(nodeB)}}, `
			4415080a12050a016110011a26080312100102030405060708706565722d6f6e6512101112131415161718706565722d
			74776f22101112131415161718706565722d74776f`},
		{"Inherit", &pb.Inherit{Place: placeA, Have: []*pb.Seq{{Owner: []byte(nodeB), Seq: 6}}}, `1e160a050a0161100112140a101112131415161718706565722d74776f1006`},
		{"Inherited", &pb.Inherited{Place: placeA, Set: set, Registrations: []*pb.Registration{registration}, Gone: [][]byte{[]byte(nodeA)}, More: true, Ended: true}, `
			9d01170a050a016110011226080312100102030405060708706565722d6f6e6512101112131415161718706565722d74
			776f1a550a101112131415161718706565722d74776f1006180522370a03612f231001180122090a0167100218032001
			28d804321e0a0d2473657373696f6e2d30302f7312047065657219000000000000008028013001380422100102030405
			060708706565722d6f6e6528013001`},
		{"NoInterest", &pb.NoInterest{Place: placeA}, `08180a050a01611001`},
		{"Wake", &pb.Wake{Op: 10, Places: []*pb.Place{placeA, placeAB}}, `1319080a12050a0161100112070a03612f621002`},
		{"Sync", &pb.Sync{Op: 10, Place: placeA, Hops: 1, Token: 5, Epoch: 6}, `1e1a080a12050a016110011801210500000000000000290600000000000000`},
		{"Retain", &pb.Retain{Op: 10, Place: placeA, Retained: retained, Set: set}, `
			621b080a12050a016110011a2e0a140a03612f6212026f6e1a0201012002280130e90711001000000000000019090000
			00000000002008280130072226080312100102030405060708706565722d6f6e6512101112131415161718706565722d
			74776f`},
		{"RetainedQuery", &pb.RetainedQuery{Op: 10, Filter: "a/#", Places: []*pb.Place{placeA}, Tries: 1, After: "a/0"}, `161c080a1203612f231a050a0161100120012a03612f30`},
		{"RetainedReply", &pb.RetainedReply{Op: 10, Retained: retained, Children: []*pb.Place{placeAB},
			Elsewhere: []*pb.SetNews{{Place: placeA, Set: set, Rendezvous: []byte(nodeB)}}, Last: true, Rest: []*pb.Place{placeA}, After: "a/1"}, `
			8d011d080a122e0a140a03612f6212026f6e1a0201012002280130e90711001000000000000019090000000000000020
			08280130071a070a03612f62100222410a050a016110011226080312100102030405060708706565722d6f6e65121011
			12131415161718706565722d74776f1a101112131415161718706565722d74776f280132050a016110013a03612f31`},
		{"Child", &pb.Child{Op: 10, Parent: placeA, Child: placeAB, Hops: 1}, `151e080a12050a016110011a070a03612f6210022001`},
		{"Copy", &pb.Copy{Op: 10, Place: placeA, Custody: custody, Set: set, Offered: true}, `
			c1011f080a12050a016110011a8a010a140a03612f6212026f6e1a0201012002280130e9071109000000000000001808
			22380a101112131415161718706565722d74776f10011a080a01671203612f2b200128d8043001380240014a0d247365
			7373696f6e2d30302f7329001000000000000030013a100102030405060708706565722d6f6e65421011121314151617
			18706565722d74776f2226080312100102030405060708706565722d6f6e6512101112131415161718706565722d7477
			6f2801`},
		{"CopyDone", &pb.CopyDone{Place: placeA, Done: []*pb.CopyDone_Share{{Epoch: 9, Seq: 8, Node: []byte(nodeB)}}, Op: 10, Over: ranges,
			Moved: []*pb.CopyDone_Moved{{Epoch: 9, Seq: 8, Group: &pb.Group{Name: "g", Filter: "a/+"}, Node: []byte(nodeB), HoldS: 600, Turn: 1, Done: true}},
			Seen:  []*pb.Seen{{Epoch: 9, Upto: 5, Ranges: []*pb.Range{{From: 7, To: 7}}, Owed: []*pb.Seen_Owed{{Node: []byte(nodeB), Ranges: []*pb.Range{{From: 8, To: 8}}}}}},
			Open:  open}, `
			db01200a050a01611001121d09090000000000000010081a101112131415161718706565722d74776f200a2a16090807
			0605040302011204080110011205080310ac02322e09090000000000000010081a080a01671203612f2b221011121314
			15161718706565722d74776f28d804300138013a2b09090000000000000010051a040807100722180a10111213141516
			1718706565722d74776f120408081008423b0a101112131415161718706565722d74776f120d2473657373696f6e2d30
			302f731a160908070605040302011204080110011205080310ac022001`},
		{"Digest", &pb.Digest{Place: placeA, Set: set, Have: []*pb.Seq{{Owner: []byte(nodeB), Seq: 6}}, Answer: true, Retained: 0xfeed, Children: 0xc0}, `
			5a210a050a016110011226080312100102030405060708706565722d6f6e6512101112131415161718706565722d7477
			6f1a140a101112131415161718706565722d74776f1006200129edfe00000000000031c000000000000000`},
		{"Leaving", &pb.Leaving{Node: []byte(nodeA), Gone: true}, `15220a100102030405060708706565722d6f6e651001`},
		{"Recall", &pb.Recall{Stored: ranges}, `19230a160908070605040302011204080110011205080310ac02`},
		{"Chosen", &pb.Chosen{Choices: []*pb.Choice{{Group: &pb.Group{Name: "g", Filter: "a/+"}, Node: []byte(nodeA), HoldS: 3600, Turn: 2}}, Op: 7, Epoch: 9, Seq: 8, Groups: []*pb.Group{{Name: "g", Filter: "a/+"}}}, `
			3b240807110900000000000000180822080a01671203612f2b2a210a080a01671203612f2b12100102030405060708706565
			722d6f6e6518901c2002`},
		{"Carried", &pb.Carried{Op: 7, Node: []byte(nodeB), Session: &pb.Group{Name: "session", Filter: "$session-00/c"}, HoldS: 600, Messages: ranges}, `
			4a25080712101112131415161718706565722d74776f1a180a0773657373696f6e120d2473657373696f6e2d30302f63
			20d8042a160908070605040302011204080110011205080310ac02`},
	}
}
