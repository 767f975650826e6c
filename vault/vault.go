// Package vault keeps grants at rest, sealed.
//
// Every refresh token is encrypted with a fresh data key, and the data key with
// a key-encryption key that is not in the database. What is sealed is bound to
// its cloud, application, partner, generation and row version: whoever can
// write the database can destroy a grant, but neither read one nor put one in
// another's place, nor an old token in the place of a newer.
//
// [SQL] keeps grants in a database; [Check] is the conformance test for it and
// for any other implementation of [mandate.Vault], and [CheckSealed] that for
// key wrappers.
package vault

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the tables of [SQL], with which the database must be opened.
func Schema() database.Schema { return database.Schema{Package: "vault", Files: migrations} }

// SQL is a [mandate.Vault] in a database.
type SQL struct {
	db  *database.DB
	key KeyWrapper
}

// New returns the vault in db, which was opened with [Schema]. Tokens are
// sealed with key.
func New(db *database.DB, key KeyWrapper) *SQL { return &SQL{db, key} }

// Head implements [mandate.Vault].
func (v *SQL) Head(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	r, err := v.last(ctx, k)
	if err != nil {
		return mandate.Grant{}, err
	}
	if err := r.servable(); err != nil {
		return mandate.Grant{}, err
	}
	return r.grant()
}

// Open implements [mandate.Vault]. It does not open a grant past its end:
// nothing may be redeemed any more then, and the error, which wraps
// [mandate.ErrNoGrant], says so.
func (v *SQL) Open(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	r, err := v.last(ctx, k)
	if err != nil {
		return mandate.Grant{}, err
	}
	if err := r.servable(); err != nil {
		return mandate.Grant{}, err
	}
	g, err := r.grant()
	if err != nil {
		return mandate.Grant{}, err
	}
	if !time.Now().Before(g.Until) {
		return mandate.Grant{}, fmt.Errorf("%w: the grant ended on %s; the partner can renew it", mandate.ErrNoGrant, g.Until.UTC().Format(time.DateOnly))
	}
	s, err := parseSealed(r.keyID.String, r.sealed)
	if err == nil {
		g.Refresh, err = s.open(ctx, v.key, labelOf(g))
	}
	if err != nil {
		return mandate.Grant{}, fmt.Errorf("open generation %d of partner %s: %w", g.Generation, k.Partner, err)
	}
	return g, nil
}

// servable returns a [*mandate.NoGrantError] unless the grant may serve.
func (r *row) servable() error {
	if r.state != string(mandate.StateActive) {
		return &mandate.NoGrantError{Generation: r.generation, State: mandate.State(r.state)}
	}
	return nil
}

func labelOf(g mandate.Grant) label {
	return label{key: g.Key, kind: kindRefresh, generation: g.Generation, version: g.Version}
}

// Rotate implements [mandate.Vault]. Comparison and write are one statement,
// so no choice of isolation level can part them. The version is part of what
// the token is sealed for, so the next version's row opens only the next token.
func (v *SQL) Rotate(ctx context.Context, g mandate.Grant, next mandate.Secret, epoch int64) error {
	if next.IsZero() {
		return errors.New("rotate grant: there is no refresh token")
	}
	l := labelOf(g)
	l.version++
	s, err := seal(ctx, v.key, l, next)
	if err != nil {
		return fmt.Errorf("seal grant: %w", err)
	}
	n, err := v.db.Exec(ctx, `
		UPDATE grants SET sealed = $1, key_id = $2, version = version + 1, redeemed = $3
		WHERE cloud = $4 AND application = $5 AND partner = $6 AND generation = $7
			AND version = $8 AND state = 'active' AND (SELECT epoch FROM head) = $9`,
		s.blob(), s.keyID, time.Now().UnixMilli(),
		g.Key.Cloud, g.Key.Application.String(), g.Key.Partner.String(), g.Generation, g.Version, epoch)
	if err != nil {
		return wrap("rotate grant", unavailable(ctx, err))
	}
	if n == 0 {
		return v.lost(ctx, g, epoch)
	}
	return nil
}

// lost tells why a rotation changed nothing. None of the reasons passes: an
// epoch only grows, and so do a row's version and the generation.
func (v *SQL) lost(ctx context.Context, g mandate.Grant, epoch int64) error {
	var same bool
	err := v.db.QueryRow(ctx, `
		SELECT count(*) > 0 FROM grants
		WHERE cloud = $1 AND application = $2 AND partner = $3 AND generation = $4
			AND version > $5 AND state = 'active' AND (SELECT epoch FROM head) = $6`,
		g.Key.Cloud, g.Key.Application.String(), g.Key.Partner.String(), g.Generation, g.Version, epoch).Scan(&same)
	if err != nil {
		return wrap("rotate grant", unavailable(ctx, err))
	}
	if same {
		return fmt.Errorf("rotate grant: %w", mandate.ErrRotated)
	}
	return fmt.Errorf("rotate grant: %w", mandate.ErrSuperseded)
}

// Activate implements [mandate.Vault]. The sealed token of the generation
// before is overwritten, and as soon as nobody reads any more also gone from
// the write-ahead log; see [database.DB.Scrub] for what that cannot reach.
func (v *SQL) Activate(ctx context.Context, g mandate.Grant) error {
	if err := activable(g); err != nil {
		return fmt.Errorf("activate grant: %w", err)
	}
	s, err := seal(ctx, v.key, labelOf(g), g.Refresh)
	if err != nil {
		return fmt.Errorf("seal grant: %w", err)
	}
	r, err := rowOf(g, s)
	if err != nil {
		return fmt.Errorf("activate grant: %w", err)
	}
	err = v.db.Change(ctx, func(tx *database.Tx) error {
		if err := r.replace(ctx, tx); err != nil {
			return err
		}
		return r.insert(ctx, tx)
	})
	if errors.Is(err, mandate.ErrSuperseded) {
		return wrap("activate grant", err)
	}
	if err != nil {
		return wrap("activate grant", unavailable(ctx, err))
	}
	// The grant is active, whatever becomes of the log's old pages; they are
	// overwritten with the next of many writes.
	v.db.Scrub(ctx)
	return nil
}

// activable reports the first thing for which g cannot be stored as active.
func activable(g mandate.Grant) error {
	switch {
	case g.Key.Cloud == "" || g.Key.Application.IsZero() || g.Key.Partner.IsZero():
		return mandate.Invalid("key", "is incomplete")
	case g.State != mandate.StateActive:
		return mandate.Invalid("state", "is %q and not %q", g.State, mandate.StateActive)
	case g.Generation < 1 || g.Version < 1:
		return mandate.Invalid("generation", "and version start at 1")
	case g.Refresh.IsZero():
		return mandate.Invalid("refresh", "is missing: a grant has a refresh token")
	}
	return nil
}

// unavailable says of an error of the database that it is one, unless it was
// the caller who gave up.
func unavailable(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
