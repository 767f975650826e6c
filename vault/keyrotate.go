package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Reload reads the file again, for keys that another process or a person has
// put there. If the file cannot be read the keys stay as they were.
func (k *KeyFile) Reload() error {
	keys, err := readKeys(k.path)
	if err != nil {
		return fmt.Errorf("reload key file: %w", err)
	}
	k.use(keys)
	return nil
}

// Rotate puts a new key into the file, with which everything is wrapped from
// now on, and returns its ID. The earlier keys stay; see [SQL.Rewrap] for what
// is wrapped with them. When Rotate returns nil the key survives a crash.
//
// Replicas that have a copy of the file need the new one before this one wraps
// anything: put it there and rotate nowhere else.
func (k *KeyFile) Rotate() (keyID string, err error) {
	added := newKey()
	err = k.edit(func(keys []fileKey) ([]fileKey, error) {
		return append([]fileKey{added}, keys...), nil
	})
	if err != nil {
		return "", fmt.Errorf("rotate key file: %w", err)
	}
	return added.id, nil
}

// Remove takes a key that is not current out of the file. What is still wrapped
// with it, in backups too, never opens again.
func (k *KeyFile) Remove(keyID string) error {
	err := k.edit(func(keys []fileKey) ([]fileKey, error) {
		i := slices.IndexFunc(keys, func(key fileKey) bool { return key.id == keyID })
		switch {
		case i < 0:
			return nil, fmt.Errorf("it has no key %.64q", keyID)
		case i == 0:
			return nil, fmt.Errorf("key %.64q is the one that wraps; rotate first", keyID)
		}
		return slices.Delete(keys, i, i+1), nil
	})
	if err != nil {
		return fmt.Errorf("remove key from the key file: %w", err)
	}
	return nil
}

// edit replaces the file by one with other keys, while nobody else does. The
// file is the old or the new one, whenever the machine stops.
func (k *KeyFile) edit(change func([]fileKey) ([]fileKey, error)) error {
	dir, err := os.Open(filepath.Dir(k.path))
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	keys, err := readKeys(k.path)
	if err != nil {
		return err
	}
	if keys, err = change(keys); err != nil {
		return err
	}
	if len(keyText(keys)) > maxKeyFile {
		return errors.New("it is full: remove keys with which nothing is sealed any more")
	}
	if err := writeKeys(k.path, keys, os.Rename); err != nil {
		return err
	}
	k.use(keys)
	return nil
}
