package node

import (
	"errors"
	"fmt"
	"strings"
)

// reloadable is something that the node can read again while it runs.
type reloadable struct {
	// what it is, for a person: "certificates".
	what string
	// read reads and checks all of it. use, which cannot fail, puts it to work; it may take a moment. An error names
	// the file and the line.
	read func() (use func(), err error)
}

// Reload reads again what may change while the node runs. Nothing of it takes effect unless all of it is in order: the
// error says what is not, and what was there before goes on. It returns what was read.
func (n *Node) Reload() ([]string, error) {
	n.reloadMu.Lock()
	defer n.reloadMu.Unlock()
	var whats []string
	var uses []func()
	var wrong []error
	for _, r := range n.reloadables {
		use, err := r.read()
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", r.what, err))
			continue
		}
		whats, uses = append(whats, r.what), append(uses, use)
	}
	if err := errors.Join(wrong...); err != nil {
		n.log.Error("not reloaded: everything stays as it was", "error", err)
		return nil, err
	}
	for _, use := range uses {
		use()
	}
	n.log.Info("reloaded", "what", strings.Join(whats, ", "))
	return whats, nil
}
