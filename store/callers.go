package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/spelling"
)

// maxSecrets is how many secrets that have not expired a caller may have: the
// one in use and the one that replaces it.
const maxSecrets = 2

// AddCaller is [Store.Register] for a caller with nothing but a secret.
func (s *Store) AddCaller(ctx context.Context, id mandate.CallerID, expires time.Time) (mandate.Caller, mandate.Secret, error) {
	return s.Register(ctx, mandate.Caller{ID: id, Credentials: []mandate.CallerCredential{{Kind: mandate.CredentialSecret, Expires: expires}}})
}

// Register stores a caller with its credentials, raises the epoch, and returns
// it as it is stored. If one of the credentials is a secret, it is made here
// and returned: it cannot be had again. What the credentials say must have
// been checked. The error wraps [mandate.ErrInvalid] or [mandate.ErrExists].
// When it returns nil the caller survives a crash.
func (s *Store) Register(ctx context.Context, c mandate.Caller) (mandate.Caller, mandate.Secret, error) {
	c = c.Clone()
	c.Created = time.Now().Truncate(time.Millisecond)
	if err := checkCaller(&c); err != nil {
		return mandate.Caller{}, mandate.Secret{}, err
	}
	binding, err := json.Marshal(c.Binding)
	if err != nil {
		return mandate.Caller{}, mandate.Secret{}, err
	}
	var secret mandate.Secret
	err = s.db.Change(ctx, func(tx *database.Tx) error {
		if known, err := registered(ctx, tx, c.ID); err != nil || known {
			return cmpErr(err, fmt.Errorf("%w: a caller named %q; another secret for it: mandate caller rotate %s", mandate.ErrExists, c.ID, c.ID))
		}
		if _, err := tx.Exec(ctx, `INSERT INTO caller_registry (id, owner, created, binding) VALUES ($1, $2, $3, $4)`,
			string(c.ID), c.Owner, c.Created.UnixMilli(), string(binding)); err != nil {
			return err
		}
		for i := range c.Credentials {
			if made, err := addCredential(ctx, tx, c.ID, &c.Credentials[i]); err != nil {
				return err
			} else if !made.IsZero() {
				secret = made
			}
		}
		return nil
	})
	if err != nil {
		return mandate.Caller{}, mandate.Secret{}, wrap("add caller", unavailable(ctx, err))
	}
	return c, secret, nil
}

// cmpErr returns err, or else what it is if nothing went wrong.
func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// checkCaller reports what is wrong with a new caller.
func checkCaller(c *mandate.Caller) error {
	if err := mandate.CheckCallerID(c.ID); err != nil {
		return err
	}
	if err := c.Binding.Check(); err != nil {
		return err
	}
	secrets := 0
	for i := range c.Credentials {
		if err := checkCredential(&c.Credentials[i], c.Created); err != nil {
			return err
		}
		if c.Credentials[i].Kind == mandate.CredentialSecret {
			secrets++
		}
	}
	switch {
	case len(c.Credentials) == 0:
		return mandate.Invalid("credentials", "are required: how is the caller to prove who it is?")
	case secrets > 1 || len(c.Credentials)-secrets > mandate.MaxCredentials:
		return mandate.Invalid("credentials", "are too many: one secret, and %d others", mandate.MaxCredentials)
	case !database.ValidText(c.Owner) || len(c.Owner) > 500:
		return mandate.Invalid("owner", "is too long, or no text")
	}
	return nil
}

// checkCredential checks a new credential and sets when it was made.
func checkCredential(c *mandate.CallerCredential, now time.Time) error {
	kinds := []string{mandate.CredentialSecret, mandate.CredentialKey, mandate.CredentialWorkload, mandate.CredentialCertificate, mandate.CredentialSPIFFE}
	if !slices.Contains(kinds, c.Kind) {
		return mandate.Invalid("kind", "%.40q is not a kind of credential", c.Kind)
	}
	c.Created, c.Expires = now, c.Expires.Truncate(time.Millisecond)
	if !c.Expires.IsZero() && !c.Expires.After(now) {
		return mandate.Invalid("expires", "is in the past")
	}
	return nil
}

func registered(ctx context.Context, tx *database.Tx, id mandate.CallerID) (bool, error) {
	var n int64
	err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM caller_registry WHERE id = $1) + (SELECT count(*) FROM callers WHERE id = $1)`, string(id)).Scan(&n)
	return n > 0, err
}

// AddCredential gives a caller one more credential, raises the epoch, and
// returns it as it is stored; if it is a secret, with the secret. The error
// wraps [mandate.ErrNotFound] if there is no such caller, and
// [mandate.ErrInvalid] if it has too many.
func (s *Store) AddCredential(ctx context.Context, id mandate.CallerID, c mandate.CallerCredential) (mandate.CallerCredential, mandate.Secret, error) {
	var secret mandate.Secret
	now := time.Now().Truncate(time.Millisecond)
	if err := checkCredential(&c, now); err != nil {
		return c, secret, err
	}
	err := s.changeCaller(ctx, id, func(tx *database.Tx) (err error) {
		if err := room(ctx, tx, id, c.Kind, now); err != nil {
			return err
		}
		secret, err = addCredential(ctx, tx, id, &c)
		return err
	})
	return c, secret, wrap("add credential", unavailable(ctx, err))
}

// room reports whether a caller may have one more credential.
func room(ctx context.Context, tx *database.Tx, id mandate.CallerID, kind string, now time.Time) error {
	var n int64
	if kind == mandate.CredentialSecret {
		err := tx.QueryRow(ctx, `SELECT count(*) FROM callers WHERE id = $1 AND (expires IS NULL OR expires > $2)`, string(id), now.UnixMilli()).Scan(&n)
		if err == nil && n >= maxSecrets {
			err = mandate.Invalid("caller", "%s has two secrets that are valid; let one of them expire first", id)
		}
		return err
	}
	err := tx.QueryRow(ctx, `SELECT count(*) FROM caller_credentials WHERE caller = $1`, string(id)).Scan(&n)
	if err == nil && n >= mandate.MaxCredentials {
		err = mandate.Invalid("caller", "%s has %d credentials, and may not have more", id, n)
	}
	return err
}

// addCredential stores c, which is given its ID.
func addCredential(ctx context.Context, tx *database.Tx, id mandate.CallerID, c *mandate.CallerCredential) (secret mandate.Secret, err error) {
	expires := sql.NullInt64{Int64: c.Expires.UnixMilli(), Valid: !c.Expires.IsZero()}
	if c.Kind == mandate.CredentialSecret {
		c.ID, secret = newSecret()
		hash := sha256.Sum256([]byte(secret.Reveal()))
		_, err = tx.Exec(ctx, `INSERT INTO callers (id, key_id, hash, created, expires) VALUES ($1, $2, $3, $4, $5)`,
			string(id), c.ID, hash[:], c.Created.UnixMilli(), expires)
		return secret, err
	}
	c.ID = rand.Text()[:keyIDSize]
	detail, err := json.Marshal(credentialDetail{c.Key, c.Issuer, c.Claims, c.Certificate, c.SPIFFE})
	if err != nil {
		return secret, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO caller_credentials (caller, id, kind, detail, created, expires) VALUES ($1, $2, $3, $4, $5, $6)`,
		string(id), c.ID, c.Kind, string(detail), c.Created.UnixMilli(), expires)
	return secret, err
}

// credentialDetail is what differs from kind to kind.
type credentialDetail struct {
	Key         string            `json:"key,omitempty"`
	Issuer      string            `json:"issuer,omitempty"`
	Claims      map[string]string `json:"claims,omitempty"`
	Certificate string            `json:"certificate,omitempty"`
	SPIFFE      string            `json:"spiffe,omitempty"`
}

// Rotate gives a caller a new secret beside the one it has, which expires
// after overlap; it never comes to live longer by that. It raises the epoch.
// The error wraps [mandate.ErrNotFound], or [mandate.ErrInvalid] if the caller
// has two secrets already.
func (s *Store) Rotate(ctx context.Context, id mandate.CallerID, overlap time.Duration, expires time.Time) (mandate.CallerCredential, mandate.Secret, error) {
	var secret mandate.Secret
	now := time.Now().Truncate(time.Millisecond)
	c := mandate.CallerCredential{Kind: mandate.CredentialSecret, Expires: expires}
	if err := checkCredential(&c, now); err != nil {
		return c, secret, err
	}
	end := now.Add(overlap).UnixMilli()
	err := s.changeCaller(ctx, id, func(tx *database.Tx) (err error) {
		if err := room(ctx, tx, id, c.Kind, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE callers SET expires = $2 WHERE id = $1 AND (expires IS NULL OR expires > $2)`, string(id), end); err != nil {
			return err
		}
		secret, err = addCredential(ctx, tx, id, &c)
		return err
	})
	return c, secret, wrap("rotate secret", unavailable(ctx, err))
}

// ExpireCredential lets a credential of a caller end at a time, and raises the
// epoch. It never comes to live longer by that. The error wraps
// [mandate.ErrNotFound].
func (s *Store) ExpireCredential(ctx context.Context, id mandate.CallerID, credential string, at time.Time) error {
	err := s.changeCaller(ctx, id, func(tx *database.Tx) error {
		if !mandate.Name(credential) {
			return fmt.Errorf("%w: caller %s has no credential %.40q", mandate.ErrNotFound, id, credential)
		}
		var found int64
		for _, update := range []string{
			`UPDATE callers SET expires = CASE WHEN expires < $3 THEN expires ELSE $3 END WHERE id = $1 AND key_id = $2`,
			`UPDATE caller_credentials SET expires = CASE WHEN expires < $3 THEN expires ELSE $3 END WHERE caller = $1 AND id = $2`,
		} {
			n, err := tx.Exec(ctx, update, string(id), credential, at.UnixMilli())
			if err != nil {
				return err
			}
			found += n
		}
		if found == 0 {
			return fmt.Errorf("%w: caller %s has no credential %.40q", mandate.ErrNotFound, id, credential)
		}
		return nil
	})
	return wrap("expire credential", unavailable(ctx, err))
}

// RemoveCaller removes a caller and raises the epoch: what was decided for it
// before is decided again, and denied. The error wraps [mandate.ErrNotFound].
func (s *Store) RemoveCaller(ctx context.Context, id mandate.CallerID) error {
	err := s.changeCaller(ctx, id, func(tx *database.Tx) error {
		for _, from := range []string{
			`DELETE FROM callers WHERE id = $1`, `DELETE FROM caller_credentials WHERE caller = $1`, `DELETE FROM caller_registry WHERE id = $1`,
			`DELETE FROM approvals WHERE caller = $1`, // another of that name is another
		} {
			if _, err := tx.Exec(ctx, from, string(id)); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("remove caller", unavailable(ctx, err))
}

// AdoptCaller makes somebody the owner of a caller, and raises the epoch. What
// the caller asks, and who has agreed to it, is taken back: whoever agreed may
// be the owner now. The error wraps [mandate.ErrNotFound].
func (s *Store) AdoptCaller(ctx context.Context, id mandate.CallerID, owner string) error {
	if !database.ValidText(owner) || owner == "" || len(owner) > 500 {
		return mandate.Invalid("owner", "is too long, or no text")
	}
	err := s.changeCaller(ctx, id, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE caller_registry SET owner = $2 WHERE id = $1`, string(id), owner)
		if err == nil && n == 0 { // of an earlier version
			_, err = tx.Exec(ctx, `INSERT INTO caller_registry (id, owner, created, binding) SELECT id, $2, MIN(created), '{}' FROM callers WHERE id = $1 GROUP BY id`, string(id), owner)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM approvals WHERE caller = $1`, string(id))
		}
		return err
	})
	return wrap("adopt caller", unavailable(ctx, err))
}

// changeCaller changes a caller that is there, and raises the epoch.
func (s *Store) changeCaller(ctx context.Context, id mandate.CallerID, fn func(*database.Tx) error) error {
	none := fmt.Errorf("%w: no caller is named %.80q", mandate.ErrNotFound, id)
	if !mandate.Name(string(id)) {
		return none
	}
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		if known, err := registered(ctx, tx, id); err != nil || !known {
			return cmpErr(err, none)
		}
		return fn(tx)
	})
	if errors.Is(err, none) {
		if near := s.nearestCaller(id); near != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, near)
		}
	}
	return err
}

// nearestCaller returns the caller whose name is spelt most like id, or "" if
// none is near.
func (s *Store) nearestCaller(id mandate.CallerID) string {
	snap, err := s.current()
	if err != nil {
		return ""
	}
	var names []string
	for _, c := range snap.callers {
		names = append(names, string(c.ID))
	}
	return spelling.Nearest(string(id), names, 2)
}

// Callers returns all callers by ID.
func (s *Store) Callers() ([]mandate.Caller, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	out := make([]mandate.Caller, len(snap.callers))
	for i, c := range snap.callers {
		out[i] = c.Clone()
	}
	return out, nil
}

// Registered is [Store.Callers] for every request: what it returns is shared,
// and must not be changed. It does not wait for the database unless security
// state has just changed. It returns the epoch of the registrations, too.
func (s *Store) Registered() ([]mandate.Caller, int64, error) {
	snap, err := s.current()
	if err != nil {
		return nil, 0, err
	}
	return snap.callers, snap.epoch, nil
}
