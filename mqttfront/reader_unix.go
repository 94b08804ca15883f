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
	var n int
	var err error
	if r.over != nil {
		n, err = r.over.readNow(int(fd), (*held)[at:])
	} else {
		n, err = readNow(int(fd), (*held)[at:])
	}
	if n > 0 { // an error comes again
		r.held, r.n = held, n
		return true
	}
	freeScratch(held)
	r.err = err
	return err != errNothingYet
}

// readNow reads what is there without waiting.
func readNow(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, errNothingYet
		case err == nil && n == 0:
			return 0, io.EOF
		}
		return max(n, 0), err
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
