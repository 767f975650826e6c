package database

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
)

// ErrAltered: security state is not as this program left it. That does not
// pass: nothing is served until an operator has accepted the database as it
// is. The error names the row, where what it was before is known.
var ErrAltered = errors.New("the security state in the database was altered by somebody else")

// ErrGuarded: the database's security state carries a MAC, and whoever has not
// its key cannot change it.
var ErrGuarded = errors.New("the security state of this database is guarded, and was opened without its key")

const accept = "nothing is served; find out who can write to the database, put it right, and say on every replica's host: mandate restore --accept-rollback"

// altered is an [ErrAltered] with its reason.
func altered(format string, args ...any) error {
	return fmt.Errorf("%w: %s; %s", ErrAltered, fmt.Sprintf(format, args...), accept)
}

// A KeyWrapper encrypts the key of the MAC with a key that is not in the
// database. What is wrapped has 64 bytes.
type KeyWrapper interface {
	Wrap(ctx context.Context, plain []byte) (keyID string, wrapped []byte, err error)
	Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error)
}

// A GuardConfig says how [DB.Guard] comes to the key.
type GuardConfig struct {
	Key KeyWrapper

	// Fingerprint is of the key that this host knows, which no other may take
	// the place of. Empty means that it knows none.
	Fingerprint string

	// Accept takes the database as it is, whoever made it so, with a new key.
	Accept bool
}

// A guard is the key of the MAC, and what was verified with it last.
type guard struct {
	key  []byte
	name string // of the database

	mu    sync.Mutex // guards state and former
	state *state

	// former has what rows were before, so that one that comes back is known.
	former map[[sha256.Size]byte]bool
}

// maxFormer bounds how many former rows are remembered.
const maxFormer = 100_000

// Guard proves with a MAC, from now on, that security state is as this program
// left it: what the schemas declare as [Guarded]. It verifies everything, or,
// in a database that was never guarded, makes the key. Until it has returned nil
// nothing that was read is known to be right; see [DB.NeedGuard].
//
// Every [DB.Change] then renews the MAC in its transaction, after it has
// verified what it is about to change. [DB.Verify] verifies the whole. Once
// anything is found to be wrong, [DB.Epoch] returns [ErrAltered] for good.
func (d *DB) Guard(ctx context.Context, c GuardConfig) error {
	g, err := d.openGuard(ctx, c)
	if err != nil {
		return fmt.Errorf("guard the security state: %w", err)
	}
	d.guard.Store(g)
	err = d.View(ctx, func(tx *Tx) error { return d.Verify(ctx, tx) })
	if err == nil && !g.current().covers(d.guarded) {
		err = d.Change(ctx, func(tx *Tx) error { tx.change.spec = tx.change.spec.with(d.guarded); return nil })
	}
	if err != nil {
		return fmt.Errorf("guard the security state: %w", err)
	}
	d.doubt.CompareAndSwap(&errUnguarded, nil)
	return nil
}

// errUnguarded is the doubt that [DB.Guard] ends.
var errUnguarded = errors.New("the key with which the security state in the database is verified could not be had yet")

// NeedGuard makes [DB.Epoch] return an error until [DB.Guard] has returned nil:
// for a key that cannot be had at once.
func (d *DB) NeedGuard() { d.doubt.CompareAndSwap(nil, &errUnguarded) }

// Guarded reports whether security state is verified.
func (d *DB) Guarded() bool { return d.guard.Load() != nil }

// Fingerprint names the key of the MAC; "" if the database is not guarded.
func (d *DB) Fingerprint() string { return d.guard.Load().fingerprint() }

func (g *guard) fingerprint() string {
	if g == nil {
		return ""
	}
	sum := sha256.Sum256(append([]byte("fingerprint of a state key"), g.key...))
	return hex.EncodeToString(sum[:16])
}

// openGuard returns the guard with the stored key, or with a new one.
func (d *DB) openGuard(ctx context.Context, c GuardConfig) (*guard, error) {
	if c.Accept {
		return d.newGuard(ctx, c.Key, true)
	}
	g, err := d.storedGuard(ctx, c.Key)
	if errors.Is(err, sql.ErrNoRows) {
		if c.Fingerprint != "" {
			return nil, altered("its MAC and the key of that were removed, which this host has seen there")
		}
		var why error
		if g, why = d.newGuard(ctx, c.Key, false); why == nil {
			return g, nil
		}
		g, err = d.storedGuard(ctx, c.Key) // of another replica, at the same time
		if errors.Is(err, sql.ErrNoRows) {
			err = why
		}
	}
	if err != nil {
		return nil, err
	}
	if c.Fingerprint != "" && c.Fingerprint != g.fingerprint() {
		return nil, altered("the key of its MAC was replaced by another than this host knows")
	}
	return g, nil
}

func (d *DB) storedGuard(ctx context.Context, w KeyWrapper) (*guard, error) {
	var keyID string
	var wrapped []byte
	g := &guard{former: make(map[[sha256.Size]byte]bool)}
	if err := d.QueryRow(ctx, `SELECT name, key_id, wrapped FROM state_key`).Scan(&g.name, &keyID, &wrapped); err != nil {
		return nil, err
	}
	plain, err := w.Unwrap(ctx, keyID, wrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap the key of its MAC: %w", err)
	}
	if want := stateLabel(g.name); len(plain) != 64 || !hmac.Equal(plain[32:], want[:]) {
		return nil, altered("the key of its MAC is that of something else")
	}
	g.key = plain[:32:32]
	return g, nil
}

// stateLabel is wrapped with the key, so that nothing else that was wrapped
// with the same key-encryption key, or for another database, passes for it.
func stateLabel(name string) [sha256.Size]byte {
	return sha256.Sum256([]byte("key of the MAC of security state, of database " + name))
}

// newGuard makes a key, and stores it with the MAC of what is in the database,
// in a new epoch. If there is a key already, only one who accepts what is
// there takes its place.
func (d *DB) newGuard(ctx context.Context, w KeyWrapper, replace bool) (*guard, error) {
	g := &guard{key: make([]byte, 32), name: rand.Text(), former: make(map[[sha256.Size]byte]bool)}
	rand.Read(g.key)
	keyID, wrapped, err := wrapKey(ctx, w, g)
	if err != nil {
		return nil, err
	}
	err = d.changeGuarded(ctx, 0, g, func(tx *Tx) error {
		if replace {
			if _, err := tx.Exec(ctx, `DELETE FROM state_key`); err != nil {
				return err
			}
		}
		n, err := tx.Exec(ctx, `INSERT INTO state_key (one, name, key_id, wrapped) VALUES (1, $1, $2, $3) ON CONFLICT DO NOTHING`, g.name, keyID, wrapped)
		if err == nil && n == 0 {
			err = errors.New("another replica made the key at the same time")
		}
		tx.change = &guardedChange{guard: g, spec: d.guarded, anew: true}
		return err
	})
	return g, err
}

func wrapKey(ctx context.Context, w KeyWrapper, g *guard) (string, []byte, error) {
	label := stateLabel(g.name)
	plain := append(append(make([]byte, 0, 64), g.key...), label[:]...)
	defer clear(plain)
	keyID, wrapped, err := w.Wrap(ctx, plain)
	if err != nil {
		return "", nil, fmt.Errorf("wrap the key of its MAC: %w", err)
	}
	return keyID, wrapped, nil
}

// RewrapKey wraps the key of the MAC with the current key of w.
func (d *DB) RewrapKey(ctx context.Context, w KeyWrapper) error {
	g := d.guard.Load()
	if g == nil {
		return nil
	}
	keyID, wrapped, err := wrapKey(ctx, w, g)
	if err == nil {
		_, err = d.Exec(ctx, `UPDATE state_key SET key_id = $1, wrapped = $2 WHERE name = $3`, keyID, wrapped, g.name)
	}
	return err
}

// KeyID returns which key wraps that of the MAC; "" if there is none.
func (d *DB) KeyID(ctx context.Context) (keyID string, err error) {
	err = d.QueryRow(ctx, `SELECT coalesce(max(key_id), '') FROM state_key`).Scan(&keyID)
	return keyID, err
}

func (g *guard) current() *state {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// adopt remembers what was verified, unless something later was.
func (g *guard) adopt(s *state) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != nil && g.state.epoch > s.epoch {
		return
	}
	if g.state != nil && len(g.former) < maxFormer {
		for name, t := range g.state.tables {
			if now := s.tables[name]; now != nil && now.sum != t.sum {
				t.leftOut(now, g.former)
			}
		}
	}
	g.state = s
}

func (g *guard) wasThere(sum [sha256.Size]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.former[sum]
}

// mac is over the epoch, the digest and the database. Every part but the last
// has a fixed length or its length in front.
func (g *guard) mac(epoch int64, digest string) []byte {
	h := hmac.New(sha256.New, g.key)
	sum := sha256.Sum256([]byte(digest))
	fmt.Fprintf(h, "security state 1\x00%020d%x%s", epoch, sum, g.name)
	return h.Sum(nil)
}
