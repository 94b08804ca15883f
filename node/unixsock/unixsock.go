// Package unixsock listens at Unix sockets, for MQTT clients and for the administration API: sockets that a node left
// behind which was killed are no hindrance, and who may connect is decided by the mode of the socket.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrNoSocket says that something which is no socket has the path.
var ErrNoSocket = errors.New("something that is no socket is in the way")

// Listen listens at a path. The socket is removed when the listener is closed. The error wraps ErrNoSocket, or
// syscall.EADDRINUSE where somebody listens there, or fs.ErrPermission.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	removeStale(path)
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && !isSocket(path) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoSocket)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("set who may connect: %w", err)
	}
	return l, nil
}

func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

// removeStale removes the socket of a node that was killed: one that nobody listens at.
func removeStale(path string) {
	if !isSocket(path) {
		return
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}
