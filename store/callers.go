package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"fmt"
	"hash/crc32"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A Caller is a workload that authenticates with a secret.
type Caller struct {
	ID      mandate.CallerID `json:"id"`
	KeyID   string           `json:"key"` // of its secret, readable in it
	Created time.Time        `json:"created"`
	Expires time.Time        `json:"expires,omitzero"` // zero: never
}

// A callerKey is what is known of a secret.
type callerKey struct {
	hash    [sha256.Size]byte
	expires time.Time
}

// AddCaller stores a caller, raises the epoch, and returns the caller's
// secret, which cannot be had again. A zero expires means never. The error
// wraps [mandate.ErrInvalid] or [mandate.ErrExists]. When it returns nil the
// caller survives a crash.
func (s *Store) AddCaller(ctx context.Context, id mandate.CallerID, expires time.Time) (Caller, mandate.Secret, error) {
	c := Caller{ID: id, Created: time.Now().Truncate(time.Millisecond), Expires: expires.Truncate(time.Millisecond)}
	if err := c.check(); err != nil {
		return Caller{}, mandate.Secret{}, err
	}
	var secret mandate.Secret
	c.KeyID, secret = newSecret()
	hash := sha256.Sum256([]byte(secret.Reveal()))
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO callers (id, key_id, hash, created, expires)
			SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM callers WHERE id = $1)`,
			string(id), c.KeyID, hash[:], c.Created.UnixMilli(), sql.NullInt64{Int64: expires.UnixMilli(), Valid: !expires.IsZero()})
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: a caller named %q", mandate.ErrExists, id)
		}
		return err
	})
	if err != nil {
		return Caller{}, mandate.Secret{}, wrap("add caller", unavailable(ctx, err))
	}
	return c, secret, nil
}

// check reports what is wrong with a new caller. Names with a colon are those
// of users of the operator socket ("uid:1000"): nobody may take one.
func (c *Caller) check() error {
	if !mandate.Name(string(c.ID)) || strings.Contains(string(c.ID), ":") {
		return mandate.Invalid("caller", "%.80q must be at most 64 letters, digits, '-', '_' or '.'", c.ID)
	}
	if !c.Expires.IsZero() && !c.Expires.After(c.Created) {
		return mandate.Invalid("expires", "is in the past")
	}
	return nil
}

// RemoveCaller removes a caller and raises the epoch: what was decided for it
// before is decided again, and denied. The error wraps [mandate.ErrNotFound].
func (s *Store) RemoveCaller(ctx context.Context, id mandate.CallerID) error {
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		if !mandate.Name(string(id)) {
			return fmt.Errorf("%w: no caller is named %.80q", mandate.ErrNotFound, id)
		}
		n, err := tx.Exec(ctx, `DELETE FROM callers WHERE id = $1`, string(id))
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: no caller is named %.80q", mandate.ErrNotFound, id)
		}
		return err
	})
	return wrap("remove caller", unavailable(ctx, err))
}

// Callers returns all callers by ID.
func (s *Store) Callers() ([]Caller, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return slices.Clone(snap.callers), nil
}

// Authenticate returns the caller whose ID and secret these are. It does not
// wait for the database unless security state has just changed. The error
// wraps [mandate.ErrUnauthenticated], and says the same of an unknown caller
// as of a wrong secret.
func (s *Store) Authenticate(id, secret string) (mandate.CallerID, error) {
	snap, err := s.current()
	if err != nil {
		return "", err
	}
	if !wellFormed(secret) {
		return "", fmt.Errorf("%w: this is not a whole secret of ours; copy it again", mandate.ErrUnauthenticated)
	}
	keys := snap.keys[mandate.CallerID(id)]
	if len(keys) == 0 {
		keys = noKeys // as much work for an unknown caller
	}
	hash, now := sha256.Sum256([]byte(secret)), time.Now()
	for _, k := range keys {
		if subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 0 {
			continue
		}
		if !k.expires.IsZero() && !now.Before(k.expires) {
			return "", fmt.Errorf("%w: the secret expired on %s", mandate.ErrUnauthenticated, k.expires.UTC().Format(time.DateOnly))
		}
		return mandate.CallerID(id), nil
	}
	return "", fmt.Errorf("%w: unknown caller or wrong secret", mandate.ErrUnauthenticated)
}

// noKeys matches nothing: nobody knows what hashes to zero.
var noKeys = []callerKey{{}}

func (n *snapshot) readCallers(ctx context.Context, tx *database.Tx) error {
	rows, err := tx.Query(ctx, `SELECT id, key_id, hash, created, expires FROM callers ORDER BY id, key_id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	n.keys = make(map[mandate.CallerID][]callerKey)
	for rows.Next() {
		var c Caller
		var k callerKey
		var hash []byte
		var created int64
		var expires sql.NullInt64
		if err := rows.Scan(&c.ID, &c.KeyID, &hash, &created, &expires); err != nil {
			return err
		}
		if len(hash) != len(k.hash) {
			return fmt.Errorf("caller %q: the stored hash has %d bytes", c.ID, len(hash))
		}
		copy(k.hash[:], hash)
		c.Created = time.UnixMilli(created)
		if expires.Valid {
			c.Expires = time.UnixMilli(expires.Int64)
		}
		k.expires = c.Expires
		n.callers = append(n.callers, c)
		n.keys[c.ID] = append(n.keys[c.ID], k)
	}
	return rows.Err()
}

// A secret is "mdt_", the key's ID, 256 random bits and a checksum of all that
// in base 62, without separators: a double click selects all of it, secret
// scanners know it by its beginning, and a typing error is told from a wrong
// secret.
const (
	secretPrefix = "mdt_"
	keyIDSize    = 8
	randomSize   = 43 // 256 bits in base 62
	checksumSize = 6  // 32 bits in base 62
	secretSize   = len(secretPrefix) + keyIDSize + randomSize + checksumSize
)

func newSecret() (keyID string, secret mandate.Secret) {
	keyID = rand.Text()[:keyIDSize]
	random := make([]byte, 32)
	rand.Read(random)
	body := secretPrefix + keyID + base62(new(big.Int).SetBytes(random), randomSize)
	return keyID, mandate.NewSecret(body + checksum(body))
}

func checksum(body string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checksumSize)
}

func wellFormed(secret string) bool {
	if len(secret) != secretSize || !strings.HasPrefix(secret, secretPrefix) {
		return false
	}
	body := secret[:secretSize-checksumSize]
	return checksum(body) == secret[secretSize-checksumSize:]
}

// base62 writes n with digits, capitals and small letters, zeros in front.
func base62(n *big.Int, width int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b, base, digit := make([]byte, width), big.NewInt(62), new(big.Int)
	n = new(big.Int).Set(n)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		b[i] = digits[digit.Int64()]
	}
	return string(b)
}
