package chaos

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// askRetained asks every node for the retained messages on topics, until all say the same and nobody can object, or it has
// taken too long. The answers of the last time count.
func (h *History) askRetained(o Options, s *swarm, topics []string) {
	deadline := time.Now().Add(patience / 2)
	for round := 1; ; round++ {
		for _, n := range s.members() {
			got, err := ask(n)
			if err != nil {
				h.Add(Event{Kind: Trouble, Node: n.number, Text: fmt.Sprintf("ask node %d for retained messages: %v", n.number, err)})
				return
			}
			for _, topic := range topics {
				h.Add(Event{Kind: Answer, Node: n.number, Topic: topic, Msg: got[topic], ID: round})
			}
		}
		if !h.judge(o).has("retained") || time.Now().After(deadline) {
			return
		}
	}
}

// checkRetained: every node has the same retained messages, and none that an acknowledged one has replaced.
func (c *checker) checkRetained() {
	last := map[int]int{} // by node: the round that counts
	for _, e := range c.events {
		if e.Kind == Answer {
			last[e.Node] = e.ID
		}
	}
	said := map[string]map[string][]int{} // by topic and message: nodes
	for _, e := range c.events {
		if e.Kind != Answer || e.ID != last[e.Node] {
			continue
		}
		if said[e.Topic] == nil {
			said[e.Topic] = map[string][]int{}
		}
		said[e.Topic][e.Msg] = append(said[e.Topic][e.Msg], e.Node)
	}
	for topic, answers := range said {
		c.report.Retained++
		if len(answers) > 1 {
			c.violation(Event{At: c.end, Topic: topic}, "retained", nil, fmt.Sprintf("nodes do not agree: %v", answers))
		}
		for msg, nodes := range answers {
			if newer := c.newer(topic, msg); newer != nil {
				c.violation(Event{At: newer.ackedAt, Topic: topic, Msg: newer.id}, "retained", nil, fmt.Sprintf("nodes %v have %q, which is older", nodes, msg))
			}
		}
	}
}

// newer returns an acknowledged message that must have replaced one, nil if there is none.
func (c *checker) newer(topic, msg string) (newest *message) {
	settled := time.Duration(-1) // there is no message, where there never was one
	for _, m := range c.byTopic[topic] {
		if !m.retain || m.id != msg && !(msg == "" && m.empty) {
			continue
		}
		at := m.ackedAt
		if m.acked == nil || slices.ContainsFunc(m.sends, func(e Event) bool { return e.Node != m.ackedBy || e.Conn != m.acked.Conn }) {
			at = forever // it has also gone where it was not acknowledged, and may have been taken at any time
		}
		settled = max(settled, at)
	}
	for _, m := range c.byTopic[topic] {
		if !m.retain || m.acked == nil || m.id == msg || msg == "" && m.empty || m.firstSend <= settled {
			continue
		}
		if c.alone(m.ackedBy, m.ackedAt) != 0 {
			c.report.excuse(SwarmOfItsOwn)
			continue
		}
		if c.lostWithDisk(m.ackedBy, m.ackedAt) {
			c.report.excuse(PublisherWiped)
			continue
		}
		if settled >= 0 && m.firstSend <= settled+stamping && !c.calm(settled-stamping, m.ackedAt) {
			c.report.excuse(WithinASecond)
			continue
		}
		if c.clockUnheard(m.ackedAt, m.firstSend) {
			c.report.excuse(ClockUnheard)
			continue
		}
		newest = m
	}
	return newest
}

// ask asks a node for all retained messages.
func ask(n *node) (map[string]string, error) {
	raw, err := net.DialTimeout("unix", n.mqtt, answerLimit)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: raw}
	defer k.Close()
	k.send(&packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: fmt.Sprint("ask", n.number), CleanStart: true, KeepAlive: keepAlive, Properties: &packets.Properties{}})
	k.send(&packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: "retained/#"}}})
	got := map[string]string{}
	subscribed := false
	for {
		// Nothing says that no more comes but that nothing comes.
		limit := 1500 * time.Millisecond
		if !subscribed {
			limit = 2 * answerLimit
		}
		_ = k.SetReadDeadline(time.Now().Add(limit))
		p, err := packets.ReadPacket(k)
		if err != nil && subscribed {
			return got, nil
		}
		if err != nil {
			return nil, err
		}
		switch p := p.Content.(type) {
		case *packets.Suback:
			subscribed = true
		case *packets.Publish:
			got[p.Topic], _, _ = strings.Cut(string(p.Payload), " ")
		}
	}
}
