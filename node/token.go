package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// adminToken returns the token that changes over the administration API need where every user of the machine reaches it. It
// is made at the first start, and kept.
func (n *Node) adminToken() (string, error) {
	path := n.dir.Path(admin.TokenFile)
	text, err := datadir.ReadSmall(path)
	if token := strings.TrimSpace(string(text)); err == nil && len(token) >= admin.MinToken {
		return token, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the token of the administration API: %w", err)
	}
	token := rand.Text()
	return token, n.dir.WriteFile(admin.TokenFile, []byte(token+"\n"))
}
