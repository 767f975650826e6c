package vault

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A row is one row of the table grants.
type row struct {
	cloud, application, partner      string
	generation, version              int64
	state                            string
	userTenant, userObject, userName string
	consented, until, redeemed       int64 // Unix milliseconds
	evidence, audiences, agentGroups string
	keyID                            sql.NullString
	sealed                           []byte
}

const columns = `cloud, application, partner, generation, version, state, user_tenant, user_object, user_name,
	consented, until, redeemed, evidence, audiences, agent_groups, key_id, sealed`

// scan reads a row of columns.
func (r *row) scan(scan func(...any) error) error {
	return scan(&r.cloud, &r.application, &r.partner, &r.generation, &r.version, &r.state, &r.userTenant, &r.userObject, &r.userName,
		&r.consented, &r.until, &r.redeemed, &r.evidence, &r.audiences, &r.agentGroups, &r.keyID, &r.sealed)
}

// last returns the last generation of a grant, in whatever state.
func (v *SQL) last(ctx context.Context, k mandate.GrantKey) (row, error) {
	var r row
	err := r.scan(v.db.QueryRow(ctx, `SELECT `+columns+` FROM grants
		WHERE cloud = $1 AND application = $2 AND partner = $3 ORDER BY generation DESC LIMIT 1`,
		k.Cloud, k.Application.String(), k.Partner.String()).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, &mandate.NoGrantError{}
	}
	if err != nil {
		return row{}, wrap("read grant", unavailable(ctx, err))
	}
	return r, nil
}

// replace destroys the token of the generation before r, if that is active.
func (r *row) replace(ctx context.Context, tx *database.Tx) error {
	_, err := tx.Exec(ctx, `UPDATE grants SET state = 'replaced', sealed = NULL, key_id = NULL
		WHERE cloud = $1 AND application = $2 AND partner = $3 AND generation = $4 AND state = 'active'`,
		r.cloud, r.application, r.partner, r.generation-1)
	return err
}

// insert adds r, or returns [mandate.ErrSuperseded] if r's generation is not
// the one after the last, or if another is active or suspended.
func (r *row) insert(ctx context.Context, tx *database.Tx) error {
	n, err := tx.Exec(ctx, `INSERT INTO grants (`+columns+`)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
		WHERE $4 = 1 + (SELECT coalesce(max(generation), 0) FROM grants WHERE cloud = $1 AND application = $2 AND partner = $3)
			AND NOT EXISTS (SELECT 1 FROM grants WHERE cloud = $1 AND application = $2 AND partner = $3 AND state IN ('active', 'suspended'))`,
		r.cloud, r.application, r.partner, r.generation, r.version, r.state, r.userTenant, r.userObject, r.userName,
		r.consented, r.until, r.redeemed, r.evidence, r.audiences, r.agentGroups, r.keyID, r.sealed)
	if err == nil && n == 0 {
		err = mandate.ErrSuperseded
	}
	return err
}

func rowOf(g mandate.Grant, s sealed) (row, error) {
	r := row{
		cloud: g.Key.Cloud, application: g.Key.Application.String(), partner: g.Key.Partner.String(),
		generation: g.Generation, version: g.Version, state: string(g.State),
		userTenant: g.User.Tenant.String(), userObject: g.User.Object.String(), userName: g.UserName,
		consented: g.Consented.UnixMilli(), until: g.Until.UnixMilli(), redeemed: g.Redeemed.UnixMilli(),
		keyID: sql.NullString{String: s.keyID, Valid: true}, sealed: s.blob(),
	}
	for _, c := range []struct {
		column *string
		value  any
	}{{&r.evidence, g.Evidence}, {&r.audiences, g.Audiences}, {&r.agentGroups, g.AgentGroups}} {
		b, err := json.Marshal(c.value)
		if err != nil {
			return row{}, err
		}
		*c.column = string(b)
	}
	return r, nil
}

// grant returns the domain's form of r, without the refresh token.
func (r *row) grant() (mandate.Grant, error) {
	g := mandate.Grant{
		Key:        mandate.GrantKey{Cloud: r.cloud},
		Generation: r.generation, Version: r.version, State: mandate.State(r.state), UserName: r.userName,
		Consented: time.UnixMilli(r.consented), Until: time.UnixMilli(r.until), Redeemed: time.UnixMilli(r.redeemed),
	}
	err := errors.Join(
		g.Key.Application.UnmarshalText([]byte(r.application)),
		g.Key.Partner.UnmarshalText([]byte(r.partner)),
		g.User.Tenant.UnmarshalText([]byte(r.userTenant)),
		g.User.Object.UnmarshalText([]byte(r.userObject)),
		json.Unmarshal([]byte(r.evidence), &g.Evidence),
		json.Unmarshal([]byte(r.audiences), &g.Audiences),
		json.Unmarshal([]byte(r.agentGroups), &g.AgentGroups),
	)
	if err != nil {
		return mandate.Grant{}, fmt.Errorf("read generation %d of partner %q: %w", r.generation, r.partner, err)
	}
	return g, nil
}
