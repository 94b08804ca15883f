package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/datadir"
)

// Take gets the files of a backup as they are read, each to be read to its end by it. What it returns ends the reading.
type Take interface {
	// Begin gets the head, before all files.
	Begin(h Head) error
	// File gets a file. Its name leads nowhere but to the data directory: it is NAME or db/NAME.
	File(name string, size int64, date time.Time, r io.Reader) error
}

// Read reads a backup to its end and checks all of it: nil says that it is whole. What it gives to take before is not checked
// yet, but for names and limits. take may be nil. An error with the backup is an Error, or wraps ErrNewer.
func Read(r io.Reader, take Take) (h Head, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	z, err := gzip.NewReader(in)
	if err != nil {
		return h, bad("", err)
	}
	z.Multistream(false)
	rd := &reader{t: tar.NewReader(z), take: take, sums: map[string]string{}}
	if h, err = rd.head(); err != nil {
		if errors.Is(err, ErrNewer) { // so it says, if nothing in it is changed
			if _, damage := io.Copy(io.Discard, z); damage != nil {
				return h, bad("", damage)
			}
		}
		return h, err
	}
	if take != nil {
		if err := take.Begin(h); err != nil {
			return h, err
		}
	}
	if err := rd.files(h); err != nil {
		return h, err
	}
	if _, err := io.Copy(io.Discard, z); err != nil { // to the checksum
		return h, bad("", err)
	}
	if _, err := in.ReadByte(); err == nil {
		return h, bad("", errors.New("something follows it"))
	} else if !errors.Is(err, io.EOF) {
		return h, bad("", err)
	}
	return h, nil
}

func bad(where string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends in the middle")
	}
	return &Error{where, err}
}

// reader reads the archive.
type reader struct {
	t     *tar.Reader
	take  Take
	sums  map[string]string // in hex, by name
	bytes int64
}

// next returns the next file of the archive.
func (rd *reader) next() (*tar.Header, error) {
	hdr, err := rd.t.Next()
	switch {
	case err != nil:
		return nil, bad("", err)
	case hdr.Typeflag != tar.TypeReg:
		return nil, bad(hdr.Name, errors.New("it is no regular file"))
	}
	for key := range hdr.PAXRecords { // a sparse file is longer than what is there
		if strings.HasPrefix(key, "GNU.") {
			return nil, bad(hdr.Name, errors.New("it is no regular file"))
		}
	}
	return hdr, nil
}

// small reads a file that is not larger than a limit.
func (rd *reader) small(name string, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, bad(name, fmt.Errorf("%d bytes, at most %d are read", size, limit))
	}
	text, err := io.ReadAll(io.LimitReader(rd.t, limit+1))
	if err != nil {
		return nil, bad(name, err)
	}
	return text, nil
}

func (rd *reader) head() (h Head, err error) {
	hdr, err := rd.next()
	if err != nil {
		return h, err
	}
	if hdr.Name != headName {
		return h, bad(hdr.Name, fmt.Errorf("it comes first, where %s should", headName))
	}
	text, err := rd.small(headName, hdr.Size, maxHead)
	if err != nil {
		return h, err
	}
	switch err := json.Unmarshal(text, &h); {
	case err != nil:
		return h, bad(headName, err)
	case h.Format > Format, h.Layout > datadir.Version:
		return h, ErrNewer
	case h.Format < 1, h.Layout < 1, h.Files < 0, h.Files > maxFiles, h.Bytes < 0, h.Bytes > maxBytes:
		return h, bad(headName, errors.New("it says what cannot be"))
	}
	return h, nil
}

// files reads all files, and their hashes behind them.
func (rd *reader) files(h Head) error {
	for {
		hdr, err := rd.next()
		if err != nil {
			return err
		}
		if hdr.Name == sumsName {
			if len(rd.sums) != h.Files || rd.bytes != h.Bytes {
				return bad("", fmt.Errorf("%d files of %d bytes, %d of %d were to come", len(rd.sums), rd.bytes, h.Files, h.Bytes))
			}
			return rd.end(hdr)
		}
		if err := rd.file(hdr, h); err != nil {
			return err
		}
	}
}

func (rd *reader) file(hdr *tar.Header, h Head) error {
	name, size := hdr.Name, hdr.Size
	_, twice := rd.sums[name]
	switch {
	case !validName(name):
		return bad(name, errors.New("no file in a data directory has this name"))
	case twice:
		return bad(name, errors.New("it comes twice"))
	case size < 0, size > h.Bytes-rd.bytes, !ofDatabase(name) && size > maxSmall, len(rd.sums) >= h.Files:
		return bad(name, fmt.Errorf("%d bytes, more than there can be", size))
	}
	rd.bytes += size
	hash := sha256.New()
	in := &counted{r: io.TeeReader(rd.t, hash)}
	if rd.take != nil {
		if err := rd.take.File(name, size, hdr.ModTime, in); err != nil {
			if in.err != nil {
				return bad(name, in.err)
			}
			return err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return bad(name, err)
	}
	rd.sums[name] = fmt.Sprintf("%x", hash.Sum(nil))
	return nil
}

// counted is a reader that remembers what went wrong with it.
type counted struct {
	r   io.Reader
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// end compares the hashes, behind which there is nothing.
func (rd *reader) end(hdr *tar.Header) error {
	text, err := rd.small(sumsName, hdr.Size, int64(len(rd.sums))*(sha256.Size*2+3+maxName))
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(rd.sums) == 0 {
		lines = nil
	}
	if len(lines) != len(rd.sums) {
		return bad(sumsName, fmt.Errorf("it has %d lines for %d files", len(lines), len(rd.sums)))
	}
	for _, line := range lines {
		sum, name, _ := strings.Cut(string(line), "  ")
		switch have, there := rd.sums[name]; {
		case !there:
			return bad(sumsName, fmt.Errorf("%q is not there, or twice", name))
		case have != sum:
			return bad(name, errors.New("it is not what was backed up"))
		}
		delete(rd.sums, name)
	}
	if _, err := rd.t.Next(); err == nil {
		return bad("", errors.New("something follows "+sumsName))
	} else if !errors.Is(err, io.EOF) {
		return bad("", err)
	}
	return nil
}
