package vault

import (
	"context"
	"database/sql"
	"errors"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// guarded is what decides whether a grant serves, whom it is of and what it is
// for. A tombstone cannot be made a grant again by whoever can write the
// database. What a redemption changes, the sealed token above all, is not here:
// a token opens only in its own row and version.
var guarded = []database.Guarded{{
	Table: "grants", Key: []string{"cloud", "application", "partner", "generation"},
	Columns: []string{"state", "since", "origin", "user_tenant", "user_object", "user_name", "consented", "until",
		"fallback_until", "compromised", "evidence", "audiences", "agent_groups"},
}}

// guardedValues are r's values of the guarded columns.
func (r *row) guardedValues() map[string]any {
	return map[string]any{
		"cloud": r.cloud, "application": r.application, "partner": r.partner, "generation": r.generation,
		"state": r.state, "since": r.since, "origin": r.origin,
		"user_tenant": r.userTenant, "user_object": r.userObject, "user_name": r.userName,
		"consented": r.consented, "until": r.until, "fallback_until": r.fallbackUntil, "compromised": r.compromised,
		"evidence": r.evidence, "audiences": r.audiences, "agent_groups": r.agentGroups,
	}
}

// genuine reads one row, which must be as it was when all was verified. It
// returns [sql.ErrNoRows] if there is none.
func (v *SQL) genuine(ctx context.Context, query string, args ...any) (row, error) {
	var r row
	var none error
	err := v.db.Genuine(ctx, "grants", func() (map[string]any, error) {
		r = row{}
		if none = r.scan(v.db.QueryRow(ctx, query, args...).Scan, &r.last); errors.Is(none, sql.ErrNoRows) {
			return nil, nil
		}
		return r.guardedValues(), none
	})
	if err == nil {
		err = none
	}
	return r, err
}

// SuspendAll suspends every active grant, destroys fall-backs and what is
// shared, and returns which grants served. It is for a database that cannot be
// believed: what serves again is what an operator resumes.
func SuspendAll(ctx context.Context, tx *database.Tx) ([]mandate.GrantKey, error) {
	keys, err := activeKeys(ctx, tx)
	if err != nil {
		return nil, err
	}
	for _, q := range []string{
		`UPDATE turns SET owner = '', epoch = 0, expires = 0, fingerprint = '', key_id = NULL, sealed = NULL`,
		`UPDATE grants SET state = 'suspended', since = (SELECT epoch FROM head) WHERE state = 'active'`,
		`UPDATE grants SET state = 'replaced', since = (SELECT epoch FROM head), fallback_until = 0, key_id = NULL, ref = '', sealed = NULL
			WHERE state = 'fallback'`,
	} {
		if _, err := tx.Exec(ctx, q); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func activeKeys(ctx context.Context, tx *database.Tx) ([]mandate.GrantKey, error) {
	rows, err := tx.Query(ctx, `SELECT cloud, application, partner FROM grants WHERE state = 'active' ORDER BY cloud, application, partner`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	keys := []mandate.GrantKey{}
	for rows.Next() {
		var k mandate.GrantKey
		var application, partner string
		if err := rows.Scan(&k.Cloud, &application, &partner); err != nil {
			return nil, err
		}
		if err := errors.Join(k.Application.UnmarshalText([]byte(application)), k.Partner.UnmarshalText([]byte(partner))); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}
