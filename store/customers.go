package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Customers are the lists of partners' customers. They implement
// [mandate.CustomerRegister].
type Customers struct{ db *database.DB }

// Customers returns the lists of partners' customers.
func (s *Store) Customers() *Customers { return &Customers{s.db} }

// maxFault bounds what is stored of a fault, in bytes.
const maxFault = 500

// ofKey restricts a statement to one partner.
const ofKey = ` cloud = $1 AND application = $2 AND partner = $3`

// keyed returns the arguments of a statement with [ofKey] in it.
func keyed(k mandate.GrantKey, more ...any) []any {
	return append([]any{k.Cloud, k.Application.String(), k.Partner.String()}, more...)
}

const standingColumns = `attempt, settled, version, members, sources, as_of, attempted, due, failures, fault`

// scanStanding reads [standingColumns], after what else there is.
func scanStanding(scan func(...any) error, before ...any) (s mandate.CustomerStanding, err error) {
	var sources string
	var asOf sql.NullInt64
	var attempted, due int64
	err = scan(append(before, &s.Attempt, &s.Settled, &s.Version, &s.Count, &sources, &asOf, &attempted, &due, &s.Failures, &s.Fault)...)
	s.Sources, s.Attempted, s.Due = strings.Fields(sources), time.UnixMilli(attempted), time.UnixMilli(due)
	if asOf.Valid {
		s.AsOf = time.UnixMilli(asOf.Int64)
	}
	return s, err
}

// Standing implements [mandate.CustomerRegister].
func (c *Customers) Standing(ctx context.Context, k mandate.GrantKey) (mandate.CustomerStanding, error) {
	s, err := standing(c.db.QueryRow(ctx, `SELECT `+standingColumns+` FROM customer_lists WHERE`+ofKey, keyed(k)...))
	return s, wrap("read list of customers", unavailable(ctx, err))
}

func standing(row *sql.Row) (mandate.CustomerStanding, error) {
	s, err := scanStanding(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return mandate.CustomerStanding{}, nil
	}
	return s, err
}

// Standings returns how all lists stand that were ever attempted.
func (c *Customers) Standings(ctx context.Context) (map[mandate.GrantKey]mandate.CustomerStanding, error) {
	const doing = "read lists of customers"
	rows, err := c.db.Query(ctx, `SELECT cloud, application, partner, `+standingColumns+` FROM customer_lists`)
	if err != nil {
		return nil, wrap(doing, unavailable(ctx, err))
	}
	defer rows.Close()
	all := make(map[mandate.GrantKey]mandate.CustomerStanding)
	for rows.Next() {
		var cloud, application, partner string
		s, err := scanStanding(rows.Scan, &cloud, &application, &partner)
		if err != nil {
			return nil, wrap(doing, unavailable(ctx, err))
		}
		k, err := keyOf(cloud, application, partner)
		if err != nil {
			return nil, wrap(doing, err)
		}
		all[k] = s
	}
	return all, wrap(doing, unavailable(ctx, rows.Err()))
}

func keyOf(cloud, application, partner string) (mandate.GrantKey, error) {
	k := mandate.GrantKey{Cloud: cloud}
	return k, errors.Join(k.Application.UnmarshalText([]byte(application)), k.Partner.UnmarshalText([]byte(partner)))
}

// Members implements [mandate.CustomerRegister].
func (c *Customers) Members(ctx context.Context, k mandate.GrantKey) (s mandate.CustomerStanding, members map[mandate.TenantID]struct{}, err error) {
	err = c.db.View(ctx, func(tx *database.Tx) error {
		if s, err = standing(tx.QueryRow(ctx, `SELECT `+standingColumns+` FROM customer_lists WHERE`+ofKey, keyed(k)...)); err != nil {
			return err
		}
		members = make(map[mandate.TenantID]struct{}, s.Count)
		rows, err := tx.Query(ctx, `SELECT tenant FROM customers WHERE`+ofKey+` AND gone IS NULL`, keyed(k)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			var tenant mandate.TenantID
			if err := rows.Scan(&text); err != nil {
				return err
			}
			if err := tenant.UnmarshalText([]byte(text)); err != nil {
				return fmt.Errorf("customer of partner %s: %v", k.Partner, err) // of ours, not the caller's, so not wrapped
			}
			members[tenant] = struct{}{}
		}
		return rows.Err()
	})
	return s, members, wrap("read customers", unavailable(ctx, err))
}

// Due implements [mandate.CustomerRegister]. Partners without an active grant
// are due, too: what they are told is that there is none.
func (c *Customers) Due(ctx context.Context, now time.Time, limit int) ([]mandate.CustomerDue, error) {
	const doing = "find lists of customers that are due"
	rows, err := c.db.Query(ctx, `SELECT p.cloud, p.application, p.partner, COALESCE(l.attempt, 0)
		FROM partners p LEFT JOIN customer_lists l ON l.cloud = p.cloud AND l.application = p.application AND l.partner = p.partner
		WHERE l.due IS NULL OR l.due <= $1 ORDER BY COALESCE(l.due, 0), p.name LIMIT $2`, now.UnixMilli(), limit)
	if err != nil {
		return nil, wrap(doing, unavailable(ctx, err))
	}
	defer rows.Close()
	var all []mandate.CustomerDue
	for rows.Next() {
		var cloud, application, partner string
		var d mandate.CustomerDue
		if err := rows.Scan(&cloud, &application, &partner, &d.Attempt); err != nil {
			return nil, wrap(doing, unavailable(ctx, err))
		}
		if d.Key, err = keyOf(cloud, application, partner); err != nil {
			return nil, wrap(doing, err)
		}
		all = append(all, d)
	}
	return all, wrap(doing, unavailable(ctx, rows.Err()))
}

// Claim implements [mandate.CustomerRegister]. The comparison and the write are
// one statement.
func (c *Customers) Claim(ctx context.Context, k mandate.GrantKey, attempt int64, until time.Time) (bool, error) {
	now := time.Now().UnixMilli()
	n, err := c.db.Exec(ctx, `INSERT INTO customer_lists (cloud, application, partner, attempt, settled, version, members, sources, attempted, due, failures, fault)
		VALUES ($1, $2, $3, 1, 0, 0, 0, '', $4, $5, 0, '')
		ON CONFLICT (cloud, application, partner) DO UPDATE SET attempt = customer_lists.attempt + 1, attempted = excluded.attempted, due = excluded.due
		WHERE customer_lists.attempt = $6 AND (customer_lists.settled = customer_lists.attempt OR customer_lists.due <= $4)`,
		keyed(k, now, until.UnixMilli(), attempt)...)
	return n == 1, wrap("claim list of customers", unavailable(ctx, err))
}

// Failed implements [mandate.CustomerRegister].
func (c *Customers) Failed(ctx context.Context, k mandate.GrantKey, attempt int64, next time.Time, fault string) error {
	_, err := c.db.Exec(ctx, `UPDATE customer_lists SET settled = attempt, due = $5, failures = failures + 1, fault = $6 WHERE`+ofKey+` AND attempt = $4`,
		keyed(k, attempt, next.UnixMilli(), shorten(fault))...)
	return wrap("note failed refresh", unavailable(ctx, err))
}

// shorten makes text from elsewhere fit for a column and a line.
func shorten(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(strings.ReplaceAll(s, "\x00", "")), " "), "")
	return strings.ToValidUTF8(s[:min(len(s), maxFault)], "")
}
