package dht

import (
	"errors"
	"os"
	"path/filepath"
)

// writeFile replaces the file at path, as a whole or not at all, also through a power cut. Only the owner
// may read it.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

// syncDir makes a rename last. Not every file system can, and then there is nothing to be done.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil { //nolint:gosec // the data directory
		_ = d.Sync()
		_ = d.Close()
	}
}
