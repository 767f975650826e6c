package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Customers are the lists of partners' customers. They implement
// [mandate.CustomerRegister].
type Customers struct {
	db    *database.DB
	store *Store
}

// Customers returns the lists of partners' customers.
func (s *Store) Customers() *Customers { return &Customers{s.db, s} }

// maxFault bounds what is stored of a fault, in bytes.
const maxFault = 500

// ofKey restricts a statement to one partner.
const ofKey = ` cloud = $1 AND application = $2 AND partner = $3`

// keyed returns the arguments of a statement with [ofKey] in it.
func keyed(k mandate.GrantKey, more ...any) []any {
	return append([]any{k.Cloud, k.Application.String(), k.Partner.String()}, more...)
}

// Standing implements [mandate.CustomerRegister].
func (c *Customers) Standing(ctx context.Context, k mandate.GrantKey) (mandate.CustomerStanding, error) {
	const doing = "read list of customers"
	floors, err := c.floors()
	if err != nil {
		return mandate.CustomerStanding{}, wrap(doing, err)
	}
	l, err := list(c.db.QueryRow(ctx, `SELECT `+listColumns+` FROM customer_lists WHERE`+ofKey, keyed(k)...))
	if err != nil {
		return mandate.CustomerStanding{}, wrap(doing, unavailable(ctx, err))
	}
	return l.verified(c.db, k, floors), nil
}

// Standings returns how all lists stand that were ever attempted.
func (c *Customers) Standings(ctx context.Context) (map[mandate.GrantKey]mandate.CustomerStanding, error) {
	const doing = "read lists of customers"
	floors, err := c.floors()
	if err != nil {
		return nil, wrap(doing, err)
	}
	rows, err := c.db.Query(ctx, `SELECT cloud, application, partner, `+listColumns+` FROM customer_lists`)
	if err != nil {
		return nil, wrap(doing, unavailable(ctx, err))
	}
	defer rows.Close()
	all := make(map[mandate.GrantKey]mandate.CustomerStanding)
	for rows.Next() {
		var cloud, application, partner string
		l, err := scanList(rows.Scan, &cloud, &application, &partner)
		if err != nil {
			return nil, wrap(doing, unavailable(ctx, err))
		}
		k, err := keyOf(cloud, application, partner)
		if err != nil {
			return nil, wrap(doing, err)
		}
		all[k] = l.verified(c.db, k, floors)
	}
	return all, wrap(doing, unavailable(ctx, rows.Err()))
}

func keyOf(cloud, application, partner string) (mandate.GrantKey, error) {
	k := mandate.GrantKey{Cloud: cloud}
	return k, errors.Join(k.Application.UnmarshalText([]byte(application)), k.Partner.UnmarshalText([]byte(partner)))
}

// Members implements [mandate.CustomerRegister].
func (c *Customers) Members(ctx context.Context, k mandate.GrantKey) (s mandate.CustomerStanding, members map[mandate.TenantID]struct{}, err error) {
	const doing = "read customers"
	floors, err := c.floors()
	if err != nil {
		return s, nil, wrap(doing, err)
	}
	err = c.db.View(ctx, func(tx *database.Tx) error {
		l, err := list(tx.QueryRow(ctx, `SELECT `+listColumns+` FROM customer_lists WHERE`+ofKey, keyed(k)...))
		if err != nil {
			return err
		}
		var sum []byte
		if members, sum, err = readMembers(ctx, tx, k, &l); err != nil {
			return err
		}
		if s = l.verified(c.db, k, floors); c.db.Guarded() && !s.AsOf.IsZero() && !bytes.Equal(sum, l.tenants) {
			s = l.altered(k, fmt.Sprintf("rows of customers were inserted, changed or deleted; %d are there", len(members)))
		}
		if s.Altered {
			members = nil
		}
		return nil
	})
	return s, members, wrap(doing, unavailable(ctx, err))
}

// readMembers reads who is on a list, and their hash.
func readMembers(ctx context.Context, tx *database.Tx, k mandate.GrantKey, l *listRow) (map[mandate.TenantID]struct{}, []byte, error) {
	rows, err := tx.Query(ctx, `SELECT tenant FROM customers WHERE`+ofKey+` AND gone IS NULL AND added <= $4 ORDER BY tenant`, keyed(k, l.sealed)...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	members, h := make(map[mandate.TenantID]struct{}), sha256.New()
	for rows.Next() {
		var text string
		var tenant mandate.TenantID
		if err := rows.Scan(&text); err != nil {
			return nil, nil, err
		}
		if err := tenant.UnmarshalText([]byte(text)); err != nil {
			return nil, nil, fmt.Errorf("customer of partner %s: %v", k.Partner, err) // of ours, not the caller's, so not wrapped
		}
		members[tenant] = struct{}{}
		io.WriteString(h, text+"\n")
	}
	return members, h.Sum(nil), rows.Err()
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
