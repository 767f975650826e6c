package vault

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A row is one row of the table grants.
type row struct {
	cloud, application, partner      string
	generation, version              int64
	state                            string
	since                            int64
	origin                           string
	userTenant, userObject, userName string
	consented, until, redeemed       int64 // Unix milliseconds
	fallbackUntil                    int64
	compromised                      int64
	due, attempted, failures         int64
	lastFault                        string
	evidence, audiences, agentGroups string
	keyID                            sql.NullString
	home, ref                        string
	sealed                           []byte
	last                             int64 // the last generation of the grant; not stored
}

const columns = `cloud, application, partner, generation, version, state, since, origin, user_tenant, user_object, user_name,
	consented, until, redeemed, fallback_until, compromised, due, attempted, failures, last_fault,
	evidence, audiences, agent_groups, key_id, home, ref, sealed`

// ofGrant finds the rows of a grant, whose key is $1 to $3.
const ofGrant = `cloud = $1 AND application = $2 AND partner = $3`

// keyArgs are $1 to $3, and others after them.
func keyArgs(k mandate.GrantKey, more ...any) []any {
	return append([]any{k.Cloud, k.Application.String(), k.Partner.String()}, more...)
}

// scan reads a row of columns, and of more after them.
func (r *row) scan(scan func(...any) error, more ...any) error {
	return scan(append([]any{&r.cloud, &r.application, &r.partner, &r.generation, &r.version, &r.state, &r.since, &r.origin,
		&r.userTenant, &r.userObject, &r.userName, &r.consented, &r.until, &r.redeemed, &r.fallbackUntil, &r.compromised,
		&r.due, &r.attempted, &r.failures, &r.lastFault, &r.evidence, &r.audiences, &r.agentGroups,
		&r.keyID, &r.home, &r.ref, &r.sealed}, more...)...)
}

// insert adds r. Its since is the epoch in force.
func (r *row) insert(ctx context.Context, tx *database.Tx) error {
	_, err := tx.Exec(ctx, `INSERT INTO grants (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, (SELECT epoch FROM head), $7, $8, $9, $10,
		$11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)`,
		r.cloud, r.application, r.partner, r.generation, r.version, r.state, r.origin, r.userTenant, r.userObject, r.userName,
		r.consented, r.until, r.redeemed, r.fallbackUntil, r.compromised, r.due, r.attempted, r.failures, r.lastFault,
		r.evidence, r.audiences, r.agentGroups, r.keyID, r.home, r.ref, orNull(r.sealed))
	return err
}

// orNull is b, or NULL if there is none.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// rowOf returns the stored form of g, whose token is sealed in s.
func rowOf(g mandate.Grant, s stored) (row, error) {
	r := row{
		cloud: g.Key.Cloud, application: g.Key.Application.String(), partner: g.Key.Partner.String(),
		generation: g.Generation, version: g.Version, state: string(g.State), origin: g.Origin,
		userTenant: g.User.Tenant.String(), userObject: g.User.Object.String(), userName: storableText(g.UserName),
		consented: g.Consented.UnixMilli(), until: g.Until.UnixMilli(), redeemed: g.Redeemed.UnixMilli(),
		due: millis(g.Due), attempted: millis(g.Attempted), failures: int64(g.Failures), lastFault: g.LastFault,
		keyID: sql.NullString{String: s.keyID, Valid: true}, home: s.home, ref: s.ref, sealed: s.blob,
	}
	if g.Compromised {
		r.compromised = 1
	}
	if r.origin == "" {
		r.origin = mandate.OriginConsent
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
		Key: mandate.GrantKey{Cloud: r.cloud}, Last: r.last,
		Generation: r.generation, Version: r.version, State: mandate.State(r.state), Since: r.since, Origin: r.origin,
		UserName: r.userName, Compromised: r.compromised != 0,
		Consented: time.UnixMilli(r.consented), Until: time.UnixMilli(r.until), Redeemed: time.UnixMilli(r.redeemed),
		Fallback: fromMillis(r.fallbackUntil), Due: fromMillis(r.due), Attempted: fromMillis(r.attempted),
		Failures: int(r.failures), LastFault: r.lastFault,
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

// maxText bounds what others say of themselves or of an error, in bytes.
const maxText = 1000

// storableText is the beginning of s as a database takes it: what comes from
// elsewhere may be cut within a character, or have none.
func storableText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), maxText)], ""), "\x00", "")
}
