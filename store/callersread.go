package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// readCallers reads the callers from their three tables. Of callers that an
// earlier version has added there is nothing but a secret.
func (n *snapshot) readCallers(ctx context.Context, tx *database.Tx) error {
	n.keys = make(map[mandate.CallerID][]callerKey)
	all := make(map[mandate.CallerID]*mandate.Caller)
	of := func(id mandate.CallerID, created time.Time) *mandate.Caller {
		if all[id] == nil {
			all[id] = &mandate.Caller{ID: id, Created: created}
		}
		return all[id]
	}
	if err := errors.Join(readRegistry(ctx, tx, of), n.readSecrets(ctx, tx, of), readCredentials(ctx, tx, of)); err != nil {
		return err
	}
	n.callers = make([]mandate.Caller, 0, len(all))
	for _, c := range all {
		n.callers = append(n.callers, *c)
	}
	slices.SortFunc(n.callers, func(a, b mandate.Caller) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return nil
}

// callerOf returns the caller of an ID; one that is new was created at a time.
type callerOf func(id mandate.CallerID, created time.Time) *mandate.Caller

func readRegistry(ctx context.Context, tx *database.Tx, of callerOf) error {
	rows, err := tx.Query(ctx, `SELECT id, owner, created, binding FROM caller_registry ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id mandate.CallerID
		var owner, binding string
		var created int64
		if err := rows.Scan(&id, &owner, &created, &binding); err != nil {
			return err
		}
		c := of(id, time.UnixMilli(created))
		c.Owner = owner
		if err := json.Unmarshal([]byte(binding), &c.Binding); err != nil {
			return fmt.Errorf("caller %q: the stored binding: %w", id, err)
		}
	}
	return rows.Err()
}

func (n *snapshot) readSecrets(ctx context.Context, tx *database.Tx, of callerOf) error {
	rows, err := tx.Query(ctx, `SELECT id, key_id, hash, created, expires FROM callers ORDER BY id, created, key_id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id mandate.CallerID
		var key, hash = "", []byte(nil)
		var created int64
		var expires sql.NullInt64
		if err := rows.Scan(&id, &key, &hash, &created, &expires); err != nil {
			return err
		}
		k := callerKey{expires: moment(expires)}
		if copy(k.hash[:], hash) != sha256.Size || len(hash) != sha256.Size {
			return fmt.Errorf("caller %q: the stored hash has %d bytes", id, len(hash))
		}
		n.keys[id] = append(n.keys[id], k)
		c := of(id, time.UnixMilli(created))
		c.Credentials = append(c.Credentials, mandate.CallerCredential{
			ID: key, Kind: mandate.CredentialSecret, Created: time.UnixMilli(created), Expires: k.expires,
		})
	}
	return rows.Err()
}

// readCredentials leaves out what belongs to no registration.
func readCredentials(ctx context.Context, tx *database.Tx, of callerOf) error {
	rows, err := tx.Query(ctx, `SELECT c.caller, c.id, c.kind, c.detail, c.created, c.expires
		FROM caller_credentials c JOIN caller_registry r ON r.id = c.caller ORDER BY c.caller, c.created, c.id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id mandate.CallerID
		var c mandate.CallerCredential
		var detail string
		var created int64
		var expires sql.NullInt64
		if err := rows.Scan(&id, &c.ID, &c.Kind, &detail, &created, &expires); err != nil {
			return err
		}
		var d credentialDetail
		if err := json.Unmarshal([]byte(detail), &d); err != nil {
			return fmt.Errorf("caller %q: the stored credential %q: %w", id, c.ID, err)
		}
		c.Key, c.Issuer, c.Claims, c.Certificate, c.SPIFFE = d.Key, d.Issuer, d.Claims, d.Certificate, d.SPIFFE
		c.Created, c.Expires = time.UnixMilli(created), moment(expires)
		owner := of(id, c.Created)
		owner.Credentials = append(owner.Credentials, c)
	}
	return rows.Err()
}

// moment is zero for a time that is none.
func moment(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}

// UseAssertion notes that an assertion was used, which ends at a time. The
// insert is the check, in whichever replica: of several that use the same
// assertion one succeeds, and for the others the error wraps
// [mandate.ErrUnauthenticated].
func (s *Store) UseAssertion(ctx context.Context, id mandate.CallerID, jti string, expires time.Time) error {
	hash := sha256.Sum256([]byte(jti))
	n, err := s.db.Exec(ctx, `INSERT INTO caller_assertions (caller, hash, expires) VALUES ($1, $2, $3) ON CONFLICT (caller, hash) DO NOTHING`,
		string(id), hash[:], expires.UnixMilli())
	if err != nil {
		return wrap("use assertion", unavailable(ctx, err))
	}
	if n == 0 {
		return fmt.Errorf("%w: this assertion was used before; make one for each request", mandate.ErrUnauthenticated)
	}
	return nil
}

// SweepCallers forgets assertions, nonces and sessions of operators that have
// ended. The first two are kept a while longer, for clocks that differ.
func (s *Store) SweepCallers(ctx context.Context, now time.Time) error {
	for _, old := range []struct {
		query string
		at    time.Time
	}{
		{`DELETE FROM caller_assertions WHERE expires < $1`, now.Add(-time.Hour)},
		{`DELETE FROM operator_signins WHERE expires < $1`, now.Add(-time.Hour)},
	} {
		if _, err := s.db.Exec(ctx, old.query, old.at.UnixMilli()); err != nil {
			return wrap("sweep callers", unavailable(ctx, err))
		}
	}
	return wrap("sweep callers", unavailable(ctx, s.dropSessions(ctx, `expires < $1`, now.UnixMilli())))
}
