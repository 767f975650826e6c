// Package privatefile reads the files that hold credentials: whole, bounded,
// and with the mode of the very file that was read and not of one that took its
// place.
package privatefile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read returns what is in a regular file of at most most bytes, and its mode.
// What the mode must be is for [Private], [Unwritable] or [Guarded] to say.
func Read(path string, most int64) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return b, info.Mode(), err
}

// Private refuses a file that anybody but its owner may read or write.
func Private(path string, mode fs.FileMode) error {
	if mode.Perm()&^0o600 != 0 {
		return fmt.Errorf("%s has mode %#o; others must not read it: chmod 600 %s", path, mode.Perm(), path)
	}
	return nil
}

// Unwritable refuses a file that others may write. It is for what everybody may
// read, and decides whose word counts.
func Unwritable(path string, mode fs.FileMode) error {
	if mode.Perm()&0o022 != 0 {
		return fmt.Errorf("%s has mode %#o; it decides whose word counts, so others must not write it: chmod go-w %s", path, mode.Perm(), path)
	}
	return nil
}

// Guarded refuses a file that others may write, or that everybody may read. It
// is for tokens that an agent of another user puts there for our group.
func Guarded(path string, mode fs.FileMode) error {
	if mode.Perm()&^0o640 != 0 {
		return fmt.Errorf("%s has mode %#o; its group may read it, others must not: chmod 640 %s", path, mode.Perm(), path)
	}
	return nil
}
