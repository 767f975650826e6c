package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

const (
	// chunk is how many customers are written in one transaction: others
	// write in between.
	chunk = 500

	// forgetGone is after how long a customer that is gone is forgotten.
	forgetGone = 90 * 24 * time.Hour
)

// Replace implements [mandate.CustomerRegister].
//
// Who is new or has changed is written first, a chunk at a time. The last
// transaction takes out who is gone, says what the list is of and seals it: only
// then are those who were added on it. A refresh that comes too late, because
// another was claimed, writes nothing any more.
func (c *Customers) Replace(ctx context.Context, k mandate.GrantKey, r mandate.CustomerRefresh) error {
	const doing = "store list of customers"
	known := make(map[mandate.TenantID]mandate.Customer)
	if err := c.each(ctx, `WHERE`+ofKey, keyed(k), func(_ mandate.GrantKey, n mandate.Customer) { known[n.Tenant] = n }); err != nil {
		return wrap(doing, err)
	}
	var news []mandate.Customer
	told := make(map[mandate.TenantID]bool, len(r.Customers))
	for _, n := range r.Customers {
		told[n.Tenant] = true
		if old, ok := known[n.Tenant]; !ok || !unchanged(&old, &n) {
			news = append(news, n)
		}
	}
	var gone []mandate.TenantID
	for t, old := range known {
		if !told[t] && !old.Gone {
			gone = append(gone, t)
		}
	}
	for part := range slices.Chunk(news, chunk) {
		if err := c.db.Tx(ctx, func(tx *database.Tx) error { return write(ctx, tx, k, &r, part) }); err != nil {
			return wrap(doing, unavailable(ctx, err))
		}
	}
	return wrap(doing, unavailable(ctx, c.settle(ctx, k, &r, gone, told)))
}

// unchanged reports whether a stored customer is what was told.
func unchanged(old, n *mandate.Customer) bool {
	return !old.Gone && old.Name == n.Name && old.Domain == n.Domain && slices.Equal(old.Sources, n.Sources) &&
		old.Relationship == n.Relationship && old.Extends == n.Extends && old.Ends.Equal(n.Ends.Truncate(time.Millisecond))
}

// write stores customers unless the refresh is no longer the last.
func write(ctx context.Context, tx *database.Tx, k mandate.GrantKey, r *mandate.CustomerRefresh, part []mandate.Customer) error {
	if err := stillLast(ctx, tx, k, r.Attempt); err != nil {
		return err
	}
	for _, n := range part {
		extends := 0
		if n.Extends {
			extends = 1
		}
		if _, err := tx.Exec(ctx, `INSERT INTO customers (cloud, application, partner, tenant, name, domain, sources, relationship, ends, extends, first_seen, added)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			ON CONFLICT (cloud, application, partner, tenant) DO UPDATE SET name = excluded.name, domain = excluded.domain, sources = excluded.sources,
			relationship = excluded.relationship, ends = excluded.ends, extends = excluded.extends,
			added = CASE WHEN customers.gone IS NULL THEN customers.added ELSE excluded.added END, gone = NULL`,
			keyed(k, n.Tenant.String(), shorten(n.Name), shorten(n.Domain), strings.Join(n.Sources, " "), shorten(n.Relationship),
				sql.NullInt64{Int64: n.Ends.UnixMilli(), Valid: !n.Ends.IsZero()}, extends, r.Began.UnixMilli(), r.Attempt)...); err != nil {
			return err
		}
	}
	return nil
}

// stillLast returns an error wrapping [mandate.ErrSuperseded] unless attempt is
// the last refresh that was claimed, and lets no other be claimed until the
// transaction is over.
func stillLast(ctx context.Context, tx *database.Tx, k mandate.GrantKey, attempt int64) error {
	var n int64
	err := tx.QueryRow(ctx, `SELECT attempt FROM customer_lists WHERE`+ofKey+` FOR UPDATE`, keyed(k)...).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) || err == nil && n != attempt {
		return fmt.Errorf("%w: a later refresh of the customers has begun", mandate.ErrSuperseded)
	}
	return err
}

// settle ends a refresh. Only that a customer is gone is a change of security
// state, for which every decision under way is made anew; no older list counts
// from then on.
func (c *Customers) settle(ctx context.Context, k mandate.GrantKey, r *mandate.CustomerRefresh, gone []mandate.TenantID, told map[mandate.TenantID]bool) error {
	do := c.db.Tx
	if len(gone) > 0 {
		do = c.db.Change
	}
	floors, err := c.floors()
	if err != nil {
		return err
	}
	return do(ctx, func(tx *database.Tx) error {
		if err := stillLast(ctx, tx, k, r.Attempt); err != nil {
			return err
		}
		l, err := list(tx.QueryRow(ctx, `SELECT `+listColumns+` FROM customer_lists WHERE`+ofKey, keyed(k)...))
		if err != nil {
			return err
		}
		for part := range slices.Chunk(gone, chunk) {
			if err := takeOut(ctx, tx, k, r.Began, part); err != nil {
				return err
			}
		}
		tenants := sumTenants(told)
		if len(gone) > 0 || !bytes.Equal(tenants, l.tenants) || l.verified(c.db, k, floors).AsOf.IsZero() {
			l.Version = max(l.Version, floors[k]) + 1
		}
		l.Count, l.sources, l.asOf, l.sealed, l.tenants = len(told), strings.Join(r.Sources, " "), sql.NullInt64{Int64: r.Began.UnixMilli(), Valid: true}, r.Attempt, tenants
		if _, err := tx.Exec(ctx, `UPDATE customer_lists SET settled = attempt, version = $5, members = $6, sources = $7, as_of = $8, due = $9, failures = 0, fault = '',
			sealed = $4, tenants = $10, seal = $11 WHERE`+ofKey+` AND attempt = $4`,
			keyed(k, r.Attempt, l.Version, l.Count, l.sources, l.asOf.Int64, r.Next.UnixMilli(), l.tenants, l.mac(c.db, k))...); err != nil {
			return err
		}
		if len(gone) > 0 {
			if _, err := tx.Exec(ctx, `INSERT INTO customer_floors (cloud, application, partner, version) VALUES ($1, $2, $3, $4)
				ON CONFLICT (cloud, application, partner) DO UPDATE SET version = excluded.version`, keyed(k, l.Version)...); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `DELETE FROM customers WHERE`+ofKey+` AND gone < $4`, keyed(k, r.Began.Add(-forgetGone).UnixMilli())...)
		return err
	})
}

// takeOut notes that customers are gone, who were last seen by the refresh
// before this one.
func takeOut(ctx context.Context, tx *database.Tx, k mandate.GrantKey, now time.Time, gone []mandate.TenantID) error {
	args, places := keyed(k, now.UnixMilli()), make([]string, len(gone))
	for i, t := range gone {
		args = append(args, t.String())
		places[i] = "$" + strconv.Itoa(len(args))
	}
	_, err := tx.Exec(ctx, `UPDATE customers SET gone = COALESCE((SELECT as_of FROM customer_lists WHERE`+ofKey+`), $4)
		WHERE`+ofKey+` AND tenant IN (`+strings.Join(places, ", ")+`)`, args...)
	return err
}
