package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/mozzie-mqtt/mozzie/dht"
)

// inviteFile keeps the invite that a node has joined with, in the data directory: its addresses are tried
// again at every start.
const inviteFile = "invite"

// membership returns the key of the swarm that this node belongs to, nil for an open one, and where to look
// for other nodes of it.
func (n *Node) membership() (key *dht.SwarmKey, bootstrap []string, err error) {
	invite, joining, err := n.invite()
	if err != nil {
		return nil, nil, err
	}
	if n.cfg.Swarm.Open {
		if joining && invite.Key != nil {
			return nil, nil, n.cfg.Refuse("swarm.join", "the invite is to a private swarm, and swarm.open (--open) asks for an open one: leave out one of them")
		}
		return nil, invite.Addrs, n.keepInvite(invite, joining)
	}
	if joining && invite.Key == nil {
		return nil, nil, n.cfg.Refuse("swarm.join", "the invite is to an open swarm: set swarm.open (--open) too")
	}
	key, err = dht.LoadSwarmKey(n.cfg.Data)
	switch {
	case err == nil && joining && !key.Equal(invite.Key):
		return nil, nil, fmt.Errorf("this node belongs to the swarm %s, the invite is to the swarm %s: the keys do not match; "+
			"to move the node, stop it and remove %s, or use another data directory (--data)",
			key.Fingerprint(), invite.Key.Fingerprint(), n.dir.Path(dht.SwarmKeyFile))
	case err == nil:
		return key, invite.Addrs, n.keepInvite(invite, joining)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	case joining:
		key = invite.Key
	default:
		key, n.founds = dht.NewSwarmKey(), true
		n.log.Info("made the key of a new private swarm; other nodes join it by what \"mozzie invite\" prints", "swarm", key.Fingerprint())
	}
	if err := key.Save(n.cfg.Data); err != nil {
		return nil, nil, err
	}
	return key, invite.Addrs, n.keepInvite(invite, joining)
}

// invite returns the invite that the node was given now, or, with joining false, at an earlier start.
func (n *Node) invite() (invite dht.Invite, joining bool, err error) {
	if text := n.cfg.Swarm.Join.Reveal(); text != "" {
		invite, err = dht.ParseInvite(text)
		if err != nil {
			return invite, false, n.cfg.Refuse("swarm.join", err.Error())
		}
		return invite, true, nil
	}
	b, err := os.ReadFile(n.dir.Path(inviteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return invite, false, nil
	}
	if err != nil {
		return invite, false, err
	}
	invite, err = dht.ParseInvite(strings.TrimSpace(string(b)))
	if err != nil {
		n.log.Warn("can't read the invite that this node once joined with; going on without it", "file", n.dir.Path(inviteFile), "error", err)
		return dht.Invite{}, false, nil
	}
	return invite, false, nil
}

func (n *Node) keepInvite(invite dht.Invite, joining bool) error {
	if !joining {
		return nil
	}
	return n.dir.WriteFile(inviteFile, []byte(invite.String()+"\n"))
}
