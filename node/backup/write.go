package backup

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// File is a file of a backup that is to be written.
type File struct {
	name string
	path string // where it is; "" where data has it
	data []byte
	size int64
	date time.Time
}

// process are the files of the data directory that belong to who uses it. The version is in the head.
var process = map[string]bool{"lock": true, "admin.addr": true, "version": true}

// Collect returns the files of a data directory, and of a copy of the database. Small ones are read now. Others in it that
// are no business of mozzie's, for their kind, name or size, are left out, and returned by name.
func Collect(data, db string) (files []File, left []string, err error) {
	entries, err := os.ReadDir(data)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if name == dbDir || name[0] == '.' || process[name] {
			continue
		}
		info, err := os.Stat(filepath.Join(data, name)) // what a link leads to
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxSmall || !validName(name) {
			left = append(left, name)
			continue
		}
		text, err := os.ReadFile(filepath.Join(data, name))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, File{name: name, data: text, size: int64(len(text)), date: info.ModTime()})
	}
	entries, err = os.ReadDir(db)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, nil, err
		}
		f := File{name: dbDir + "/" + e.Name(), path: filepath.Join(db, e.Name()), size: info.Size(), date: info.ModTime()}
		if !info.Mode().IsRegular() || !validName(f.name) {
			return nil, nil, fmt.Errorf("%s is in the database", f.path)
		}
		files = append(files, f)
	}
	return files, left, nil
}

// Bytes is the size of files together.
func Bytes(files []File) (n int64) {
	for i := range files {
		n += files[i].size
	}
	return n
}

// Write writes a backup of files. It fills in what the head says of them.
func Write(w io.Writer, h Head, files []File) error {
	h.Format, h.Files, h.Bytes = Format, len(files), Bytes(files)
	head, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // the database is compressed already
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if err := writeSmall(t, headName, append(head, '\n'), h.Made); err != nil {
		return err
	}
	var sums []byte
	for i := range files {
		sum, err := writeFile(t, &files[i])
		if err != nil {
			return fmt.Errorf("back up %s: %w", files[i].name, err)
		}
		sums = fmt.Appendf(sums, "%x  %s\n", sum, files[i].name)
	}
	return errors.Join(writeSmall(t, sumsName, sums, h.Made), t.Close(), z.Close())
}

func header(name string, size int64, date time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: date.Truncate(time.Second), Format: tar.FormatPAX}
}

func writeSmall(t *tar.Writer, name string, data []byte, date time.Time) error {
	if err := t.WriteHeader(header(name, int64(len(data)), date)); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

func writeFile(t *tar.Writer, f *File) (sum [sha256.Size]byte, err error) {
	if f.path == "" {
		return sha256.Sum256(f.data), writeSmall(t, f.name, f.data, f.date)
	}
	in, err := os.Open(f.path)
	if err != nil {
		return sum, err
	}
	defer in.Close()
	if err := t.WriteHeader(header(f.name, f.size, f.date)); err != nil {
		return sum, err
	}
	hash := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(t, hash), in, f.size); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}
