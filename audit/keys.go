package audit

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A KeyWrapper encrypts a key with one that it does not give out.
type KeyWrapper interface {
	// Wrap encrypts plain, which has 64 bytes, and returns the ID of the key
	// that can undo it. Plain is cleared afterwards.
	Wrap(ctx context.Context, plain []byte) (keyID string, wrapped []byte, err error)

	// Unwrap reverses Wrap.
	Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error)
}

// A keyring has the keys of personal data: one for each chain and month. They
// are sealed by one key that is unwrapped once, so that a key vault is asked
// when the server starts and not when a partner's month begins.
type keyring struct {
	db   *database.DB
	wrap KeyWrapper

	mu    sync.Mutex // guards the fields below
	outer cipher.AEAD
	known map[keyName]*key
}

type keyName struct{ chain, month string }

// A key encrypts the personal data of one partner and month.
type key struct {
	plain []byte // nil: destroyed
	aead  cipher.AEAD
}

// errErased: the key of a month was destroyed.
var errErased = errors.New("its personal data was erased")

func newKeyring(db *database.DB, wrap KeyWrapper) *keyring {
	return &keyring{db: db, wrap: wrap, known: make(map[keyName]*key)}
}

// get returns a key, and makes it if there is none and create is set. Without
// it, a missing key is one that was erased.
func (k *keyring) get(ctx context.Context, chain, month string, create bool) (*key, error) {
	name := keyName{chain, month}
	k.mu.Lock()
	found := k.known[name]
	k.mu.Unlock()
	if found == nil {
		var err error
		if found, err = k.load(ctx, name, create); err != nil {
			return nil, fmt.Errorf("key of personal data: %w", err)
		}
		k.mu.Lock()
		k.known[name] = found
		k.mu.Unlock()
	}
	if found.plain == nil {
		return nil, errErased
	}
	return found, nil
}

func (k *keyring) load(ctx context.Context, name keyName, create bool) (*key, error) {
	outer, err := k.outerKey(ctx)
	if err != nil {
		return nil, err
	}
	_, sealed, err := k.row(ctx, name)
	if errors.Is(err, sql.ErrNoRows) {
		if !create {
			return nil, errErased
		}
		fresh := make([]byte, 32)
		rand.Read(fresh)
		if err := k.store(ctx, name, "", outer.Seal(nil, nil, fresh, name.bound())); err != nil {
			return nil, err
		}
		_, sealed, err = k.row(ctx, name) // another replica may have been first
	}
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 {
		return &key{}, nil
	}
	return name.open(outer, sealed)
}

func newKey(plain []byte) (*key, error) {
	block, err := aes.NewCipher(plain)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &key{plain, aead}, err
}

// bound is what a sealed key is tied to.
func (n keyName) bound() []byte { return []byte("mandate audit " + n.chain + " " + n.month) }

func (k *keyring) row(ctx context.Context, name keyName) (id string, sealed []byte, err error) {
	err = k.db.QueryRow(ctx, `SELECT key_id, sealed FROM audit_keys WHERE chain = $1 AND month = $2`, name.chain, name.month).Scan(&id, &sealed)
	return id, sealed, err
}

func (k *keyring) store(ctx context.Context, name keyName, id string, sealed []byte) error {
	_, err := k.db.Exec(ctx, `INSERT INTO audit_keys (chain, month, key_id, sealed) VALUES ($1, $2, $3, $4) ON CONFLICT (chain, month) DO NOTHING`,
		name.chain, name.month, id, sealed)
	return err
}

// outerPurpose is wrapped beside the outer key, so that no other key that the
// same wrapper has wrapped can stand in for it.
var outerPurpose = sha256.Sum256([]byte("mandate audit: the key of the keys of personal data"))

// outerKey returns the key that seals the others.
func (k *keyring) outerKey(ctx context.Context) (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.outer != nil {
		return k.outer, nil
	}
	id, wrapped, err := k.row(ctx, keyName{})
	if errors.Is(err, sql.ErrNoRows) {
		fresh := append(make([]byte, 32), outerPurpose[:]...)
		rand.Read(fresh[:32])
		if id, wrapped, err = k.wrap.Wrap(ctx, fresh); err != nil {
			return nil, fmt.Errorf("wrap: %w", err)
		}
		if err = k.store(ctx, keyName{}, id, wrapped); err == nil {
			id, wrapped, err = k.row(ctx, keyName{})
		}
	}
	if err != nil {
		return nil, err
	}
	plain, err := k.wrap.Unwrap(ctx, id, wrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	if len(plain) != 64 || !bytes.Equal(plain[32:], outerPurpose[:]) {
		return nil, errors.New("what was unwrapped is another key")
	}
	block, err := aes.NewCipher(plain[:32])
	if err != nil {
		return nil, err
	}
	if k.outer, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, err
	}
	_ = k.rewrap(ctx, id, plain) // it can wait for the next start, or for [Log.RewrapKey]
	return k.outer, nil
}

// rewrap wraps the outer key with the current key, if it was wrapped with an
// earlier one, which may be taken away some day. It clears plain.
func (k *keyring) rewrap(ctx context.Context, id string, plain []byte) error {
	defer clear(plain)
	current, wrapped, err := k.wrap.Wrap(ctx, plain)
	if err != nil || current == id {
		return err
	}
	_, err = k.db.Exec(ctx, `UPDATE audit_keys SET key_id = $1, sealed = $2 WHERE chain = '' AND month = '' AND key_id = $3`, current, wrapped, id)
	return err
}

// KeyID returns which key wraps the one that the keys of personal data are
// sealed with; "" if there is none yet. While it cannot be had nothing is
// recorded, so it must not be taken away.
func (l *Log) KeyID(ctx context.Context) (string, error) {
	id, _, err := l.keys.row(ctx, keyName{})
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// RewrapKey wraps the key that [Log.KeyID] is about with the current key.
func (l *Log) RewrapKey(ctx context.Context) error {
	k := l.keys
	id, wrapped, err := k.row(ctx, keyName{})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	plain, err := k.wrap.Unwrap(ctx, id, wrapped)
	if err == nil {
		err = k.rewrap(ctx, id, plain)
	}
	if err != nil {
		return fmt.Errorf("rewrap the key of personal data in the audit log: %w", err)
	}
	return nil
}

// erase destroys a key for good, as far as the database can.
func (k *keyring) erase(ctx context.Context, chain, month string) error {
	name := keyName{chain, month}
	n, err := k.db.Exec(ctx, `UPDATE audit_keys SET sealed = $1 WHERE chain = $2 AND month = $3 AND length(sealed) > 0`, []byte{}, chain, month)
	if err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	if n == 0 {
		return fmt.Errorf("%w: no key of %q in %s: nothing was recorded then, or it was erased before", mandate.ErrNotFound, chain, month)
	}
	k.mu.Lock()
	k.known[name] = &key{}
	k.mu.Unlock()
	return k.db.Scrub(ctx)
}

// forget drops what is in memory of other replicas' erasures: keys are read
// again.
func (k *keyring) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.known)
}

// tag is what text of personal data is found by.
func (k *key) tag(kind, text string) int64 {
	m := hmac.New(sha256.New, k.plain)
	m.Write([]byte(kind + "\x00" + text))
	return int64(binary.BigEndian.Uint64(m.Sum(nil)))
}

// months returns the keys of a chain, or of all chains if all is set, between
// two months, and both. They are in memory then: of many partners they are
// thousands, and would be asked for one by one.
func (k *keyring) months(ctx context.Context, chain string, all bool, from, to string) (out []keyName, err error) {
	outer, err := k.outerKey(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := k.db.Query(ctx, `SELECT chain, month, sealed FROM audit_keys
		WHERE (chain = $1 OR $2) AND month >= $3 AND month <= $4 AND month <> '' AND length(sealed) > 0`, chain, all, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n keyName
		var sealed []byte
		if err := rows.Scan(&n.chain, &n.month, &sealed); err != nil {
			return nil, err
		}
		out = append(out, n)
		if found, err := n.open(outer, sealed); err == nil {
			k.learn(n, found)
		}
	}
	return out, rows.Err()
}

// learn keeps a key in memory, but not in the place of one that was destroyed
// since it was read.
func (k *keyring) learn(n keyName, found *key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known[n] == nil {
		k.known[n] = found
	}
}

// open opens a sealed key.
func (n keyName) open(outer cipher.AEAD, sealed []byte) (*key, error) {
	plain, err := outer.Open(nil, nil, sealed, n.bound())
	if err != nil {
		return nil, fmt.Errorf("the key of %q in %s does not open: its row was changed, or belongs elsewhere", n.chain, n.month)
	}
	return newKey(plain)
}

// open decrypts the personal data of an entry.
func (k *key) open(h *head, p *parts) (personal []byte, err error) {
	sealed, err := base64.StdEncoding.DecodeString(string(p.sealed))
	if err != nil {
		return nil, errNotEntry
	}
	return k.aead.Open(nil, h.salt[:k.aead.NonceSize()], sealed, appendSealing(nil, h.chain, string(p.month), &h.salt))
}

// monthOf returns the month of a time.
func monthOf(t time.Time) string { return t.UTC().Format(monthForm) }
