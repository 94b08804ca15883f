//go:build unix

package mqttfront

import (
	"io"
	"syscall"
)

// rawIO says that sockets can be read and written without waiting.
const rawIO = true

// readReady reads once. It returns false when there is nothing, to be called again when there is.
func (r *reader) readReady(fd uintptr) bool {
	held := scratch(max(r.last, len(r.rest), r.need))
	at := copy(*held, r.rest)
	for {
		n, err := syscall.Read(int(fd), (*held)[at:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			freeScratch(held)
			return false
		case err != nil:
			freeScratch(held)
			r.err = err
		case n == 0:
			freeScratch(held)
			r.err = io.EOF
		default:
			r.held, r.n = held, n
		}
		return true
	}
}

// tryWrite writes what the socket takes without waiting.
func (w *writer) tryWrite(fd uintptr) bool {
	for w.n < len(w.b) {
		n, err := syscall.Write(int(fd), w.b[w.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			w.err = err
			return true
		}
		w.n += n
	}
	return true
}
