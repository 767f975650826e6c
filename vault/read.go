package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// Head implements [mandate.Vault].
func (v *SQL) Head(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	r, err := v.head(ctx, k)
	if err != nil {
		return mandate.Grant{}, err
	}
	return r.grant()
}

// head returns the active generation's row, or a [*mandate.NoGrantError].
func (v *SQL) head(ctx context.Context, k mandate.GrantKey) (row, error) {
	r, err := v.current(ctx, k)
	if err == nil && r.state != string(mandate.StateActive) {
		err = r.none()
	}
	return r, err
}

// Open implements [mandate.Vault]. It does not open a grant past its end:
// nothing may be redeemed any more then, and the error, which wraps
// [mandate.ErrNoGrant], says so.
func (v *SQL) Open(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	return v.openRow(ctx, k, v.head, v.open)
}

// Fallback implements [mandate.Vault]. Nothing stands in for a grant that is
// not active.
func (v *SQL) Fallback(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	g, err := v.openRow(ctx, k, func(ctx context.Context, k mandate.GrantKey) (row, error) {
		if _, err := v.head(ctx, k); err != nil {
			return row{}, err
		}
		return v.waiting(ctx, k, mandate.StateFallback)
	}, v.open)
	return g, wrap("no fall-back", err)
}

// Candidate implements [mandate.Vault].
func (v *SQL) Candidate(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	g, err := v.openRow(ctx, k, func(ctx context.Context, k mandate.GrantKey) (row, error) {
		return v.waiting(ctx, k, mandate.StateCandidate)
	}, v.open)
	return g, wrap("no candidate", err)
}

type (
	finder func(context.Context, mandate.GrantKey) (row, error)
	opener func(context.Context, *row) (mandate.Grant, error)
)

// openRow opens what find finds. Between reading a row and reading its token
// from a home the token may have been replaced, and the old one be gone; then
// the row is read again.
func (v *SQL) openRow(ctx context.Context, k mandate.GrantKey, find finder, open opener) (mandate.Grant, error) {
	r, err := find(ctx, k)
	for err == nil {
		g, oerr := open(ctx, &r)
		if oerr == nil || r.home == "" {
			return g, oerr
		}
		again, err := find(ctx, k)
		if err != nil || again.generation == r.generation && again.version == r.version && again.ref == r.ref {
			return mandate.Grant{}, oerr
		}
		r = again
	}
	return mandate.Grant{}, err
}

// open returns the grant in r with its refresh token, unless it has ended.
func (v *SQL) open(ctx context.Context, r *row) (mandate.Grant, error) {
	if until := time.UnixMilli(r.until); !time.Now().Before(until) {
		return mandate.Grant{}, fmt.Errorf("%w: the grant ended on %s; the partner can renew it", mandate.ErrNoGrant, until.UTC().Format(time.DateOnly))
	}
	return v.unsealed(ctx, r)
}

// unsealed returns the grant in r with its refresh token.
func (v *SQL) unsealed(ctx context.Context, r *row) (mandate.Grant, error) {
	g, err := r.grant()
	if err != nil {
		return mandate.Grant{}, err
	}
	blob, err := v.blobOf(ctx, r)
	if err == nil {
		g.Refresh, err = v.secret(ctx, r.keyID.String, blob, labelOf(g))
	}
	if err != nil {
		return mandate.Grant{}, fmt.Errorf("open generation %d of partner %s: %w", g.Generation, g.Key.Partner, beside(err))
	}
	return g, nil
}

// current returns the active generation, or else a suspended one, or else the
// last that ever was active, or else one that never was.
func (v *SQL) current(ctx context.Context, k mandate.GrantKey) (row, error) {
	return v.one(ctx, `SELECT `+columns+`, (SELECT max(generation) FROM grants WHERE `+ofGrant+`) FROM grants WHERE `+ofGrant+`
		ORDER BY CASE state WHEN 'active' THEN 0 WHEN 'suspended' THEN 1 WHEN 'candidate' THEN 3 WHEN 'discarded' THEN 3 ELSE 2 END,
			generation DESC LIMIT 1`, keyArgs(k)...)
}

// waiting returns the row in a state that ends at a time which is not past.
func (v *SQL) waiting(ctx context.Context, k mandate.GrantKey, s mandate.State) (row, error) {
	r, err := v.one(ctx, `SELECT `+columns+`, (SELECT max(generation) FROM grants WHERE `+ofGrant+`) FROM grants
		WHERE `+ofGrant+` AND state = $4 AND fallback_until > `+nowMS, keyArgs(k, string(s))...)
	var none *mandate.NoGrantError
	if !errors.As(err, &none) {
		return r, err
	}
	if r, err = v.current(ctx, k); err != nil {
		return row{}, err
	}
	return row{}, r.none()
}

func (v *SQL) one(ctx context.Context, query string, args ...any) (row, error) {
	r, err := v.genuine(ctx, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, &mandate.NoGrantError{}
	}
	if err != nil {
		return row{}, wrap("read grant", unavailable(ctx, err))
	}
	return r, nil
}

// none says why a grant whose current row is r has nothing to serve from.
func (r *row) none() error {
	e := &mandate.NoGrantError{Generation: r.last, State: mandate.State(r.state)}
	if e.State == mandate.StateCandidate || e.State == mandate.StateDiscarded {
		e.State = ""
	}
	return e
}

// Grants returns every generation of a partner's grants, of whatever cloud and
// application, the newest first; of all partners if the ID is zero. None has
// its refresh token.
func (v *SQL) Grants(ctx context.Context, partner mandate.TenantID) ([]mandate.Grant, error) {
	all, err := v.list(ctx, `SELECT `+columns+` FROM grants WHERE partner = $1 OR $1 = ''
		ORDER BY partner, cloud, application, generation DESC`, partner.String())
	return all, wrap("list grants", err)
}

// list returns the grants that a query of columns finds.
func (v *SQL) list(ctx context.Context, query string, args ...any) ([]mandate.Grant, error) {
	rows, err := v.rows(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	var all []mandate.Grant
	for _, r := range rows {
		g, err := r.grant()
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

func (v *SQL) rows(ctx context.Context, query string, args ...any) ([]row, error) {
	rows, err := v.db.Query(ctx, query, args...)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	all, err := scanAll(rows)
	return all, unavailable(ctx, err)
}

// scanAll reads rows of columns to their end.
func scanAll(rows *sql.Rows) ([]row, error) {
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		if err := r.scan(rows.Scan); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}
