package vault

import (
	"context"
	"time"

	"github.com/mandate-sam/mandate"
)

// Due implements [mandate.Schedule].
func (v *SQL) Due(ctx context.Context, now time.Time, limit int) ([]mandate.Grant, error) {
	all, err := v.list(ctx, `SELECT `+columns+` FROM grants WHERE state = 'active' AND due <= $1 ORDER BY due LIMIT $2`, now.UnixMilli(), int64(limit))
	return all, wrap("list grants that are due", err)
}

// Claim implements [mandate.Schedule]. It is one statement: of several who
// found the same due time, one changes it.
func (v *SQL) Claim(ctx context.Context, g mandate.Grant, until time.Time) (bool, error) {
	n, err := v.db.Exec(ctx, `UPDATE grants SET due = $5 WHERE `+ofGrant+` AND generation = $4 AND state = 'active' AND due = $6`,
		keyArgs(g.Key, g.Generation, millis(until), millis(g.Due))...)
	return n > 0, wrap("claim grant", unavailable(ctx, err))
}

// Attempted implements [mandate.Schedule].
func (v *SQL) Attempted(ctx context.Context, g mandate.Grant, next time.Time, fault string) error {
	failures := `0`
	if fault != "" {
		failures = `failures + 1`
	}
	_, err := v.db.Exec(ctx, `UPDATE grants SET due = $5, attempted = $6, last_fault = $7, failures = `+failures+`
		WHERE `+ofGrant+` AND generation = $4 AND state = 'active'`,
		keyArgs(g.Key, g.Generation, millis(next), time.Now().UnixMilli(), storableText(fault))...)
	return wrap("note attempt", unavailable(ctx, err))
}
