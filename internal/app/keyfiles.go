package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/vault"
)

// NewKeyFile makes a key file with one key, and returns that key's ID. A file
// that is there is left as it is, and the error wraps [mandate.ErrExists].
func NewKeyFile(path string) (keyID string, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(fmt.Errorf("%w: %s", mandate.ErrExists, path), err)
	}
	f, err := vault.OpenKeyFile(path)
	if err != nil {
		return "", err
	}
	return f.KeyID(), nil
}

// RotateKeyFile puts a new key into a key file that is to be brought to
// replicas. Whoever runs with the file meanwhile goes on with the key before
// until it is told to read the file again.
func RotateKeyFile(path string) (keyID string, err error) {
	if _, err := os.Stat(path); err != nil { // opening would make one
		return "", err
	}
	f, err := vault.OpenKeyFile(path)
	if err != nil {
		return "", err
	}
	return f.Rotate()
}
