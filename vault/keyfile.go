package vault

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/mandate-sam/mandate/internal/database"
)

// A KeyFile is a [KeyWrapper] whose keys are in a file beside the program, for
// where there is no Key Vault. Whoever has the file and the database has the
// refresh tokens; either alone yields nothing.
type KeyFile struct {
	path string

	mu      sync.RWMutex      // guards current and keys, which are replaced and never changed
	current string            // ID of the key that wraps
	keys    map[string][]byte // by ID; 32 bytes each
}

// OpenKeyFile reads the keys in the file at path. If there is no file it makes
// one with a new key, which survives a crash when OpenKeyFile returns: nothing
// is ever sealed with a key that could be lost.
//
// A file that others may read or write, that is a symbolic link, that belongs
// to somebody else or lies in a directory where others could replace it is
// refused.
func OpenKeyFile(path string) (*KeyFile, error) {
	k, err := readKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKeyFile(path); err != nil {
			return nil, fmt.Errorf("create key file: %w", err)
		}
		k, err = readKeyFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	return k, nil
}

func readKeyFile(path string) (*KeyFile, error) {
	keys, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	k := &KeyFile{path: path}
	k.use(keys)
	return k, nil
}

func readKeys(path string) ([]fileKey, error) {
	if err := database.PrivateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := database.OpenPrivate(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// use makes keys those of k.
func (k *KeyFile) use(keys []fileKey) {
	all := make(map[string][]byte)
	for _, key := range keys {
		all[key.id] = key.bytes
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current, k.keys = keys[0].id, all
}

// key returns the key of an ID, or the one that wraps if that is "".
func (k *KeyFile) key(id string) (string, []byte) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if id == "" {
		id = k.current
	}
	return id, k.keys[id]
}

// createKeyFile makes a key file that is either whole or absent, whenever the
// machine stops: it is written and synced under another name, and then given
// its own, which fails if somebody else was first. That one then serves.
func createKeyFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeKeys(path, []fileKey{newKey()}, func(from, to string) error {
		if err := os.Link(from, to); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// writeKeys writes and syncs a key file under another name, and lets give give
// it its own.
func writeKeys(path string, keys []fileKey, give func(from, to string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-*") // 0600, O_EXCL
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	text := keyText(keys)
	defer clear(text)
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := give(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// KeyID returns the ID of the key that wraps.
func (k *KeyFile) KeyID() string {
	id, _ := k.key("")
	return id
}

// Has reports whether the file has the key of that ID, or has by now.
func (k *KeyFile) Has(keyID string) bool {
	if _, key := k.key(keyID); key != nil {
		return true
	}
	if k.Reload() != nil {
		return false
	}
	_, key := k.key(keyID)
	return key != nil
}

// Wrap implements [KeyWrapper].
func (k *KeyFile) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return k.wrap(forGrants, plain)
}

// Unwrap implements [KeyWrapper].
func (k *KeyFile) Unwrap(_ context.Context, keyID string, wrapped []byte) ([]byte, error) {
	return k.unwrap(forGrants, keyID, wrapped)
}

// Shared returns the key wrapper for the access tokens that replicas share.
// Its keys are derived from those of the file, and other than those for
// grants: neither kind of wrapped key can be unwrapped as the other.
func (k *KeyFile) Shared() KeyWrapper { return sharedKeys{k} }

type sharedKeys struct{ *KeyFile }

func (k sharedKeys) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return k.wrap(forShared, plain)
}

func (k sharedKeys) Unwrap(_ context.Context, keyID string, wrapped []byte) ([]byte, error) {
	return k.unwrap(forShared, keyID, wrapped)
}

func (k *KeyFile) wrap(purpose string, plain []byte) (string, []byte, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	id, key := k.key("")
	sub, err := subkey(key, salt, purpose)
	if err != nil {
		return "", nil, err
	}
	defer clear(sub)
	aead, err := newGCM(sub)
	if err != nil {
		return "", nil, err
	}
	return id, aead.Seal(salt, nil, plain, []byte(id)), nil
}

func (k *KeyFile) unwrap(purpose, keyID string, wrapped []byte) ([]byte, error) {
	if keyID == "" || !k.Has(keyID) {
		return nil, fmt.Errorf("the grant was sealed with key %.64q, which the key file %s does not have; put that key back from the file's backup", keyID, k.path)
	}
	if len(wrapped) < saltSize {
		return nil, errors.New("the wrapped data key is cut short")
	}
	_, key := k.key(keyID)
	sub, err := subkey(key, wrapped[:saltSize], purpose)
	if err != nil {
		return nil, err
	}
	defer clear(sub)
	aead, err := newGCM(sub)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, wrapped[saltSize:], []byte(keyID))
	if err != nil {
		return nil, fmt.Errorf("the data key was not wrapped by key %.64q as it is in the key file, or was altered", keyID)
	}
	return plain, nil
}

const saltSize = 32

// What keys are derived for.
const (
	forGrants = "mandate key file 1: wrap data key"
	forShared = "mandate key file 1: wrap data key of a shared access token"
)

// subkey derives the key for one wrapping. With a random salt each has its
// own, so that there is no limit on how many data keys a file's key may wrap;
// the purpose keeps the uses of the same key apart.
func subkey(key, salt []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, key, salt, purpose, 32)
}
