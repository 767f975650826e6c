package store

import (
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
// Who is new or has changed is written first, a chunk at a time: each is a
// customer, whatever becomes of the rest. The last transaction takes out who is
// gone and says what the list is of. A refresh that comes too late, because
// another was claimed, writes nothing any more.
func (c *Customers) Replace(ctx context.Context, k mandate.GrantKey, r mandate.CustomerRefresh) error {
	const doing = "store list of customers"
	known := make(map[mandate.TenantID]mandate.Customer)
	if err := c.each(ctx, `WHERE`+ofKey, keyed(k), func(_ mandate.GrantKey, n mandate.Customer) { known[n.Tenant] = n }); err != nil {
		return wrap(doing, err)
	}
	var news []mandate.Customer
	changed := false
	told := make(map[mandate.TenantID]bool, len(r.Customers))
	for _, n := range r.Customers {
		told[n.Tenant] = true
		old, ok := known[n.Tenant]
		if changed = changed || !ok || old.Gone; !ok || !unchanged(&old, &n) {
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
	return wrap(doing, unavailable(ctx, c.settle(ctx, k, &r, gone, changed)))
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
		if _, err := tx.Exec(ctx, `INSERT INTO customers (cloud, application, partner, tenant, name, domain, sources, relationship, ends, extends, first_seen)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
			ON CONFLICT (cloud, application, partner, tenant) DO UPDATE SET name = excluded.name, domain = excluded.domain, sources = excluded.sources,
			relationship = excluded.relationship, ends = excluded.ends, extends = excluded.extends, gone = NULL`,
			keyed(k, n.Tenant.String(), shorten(n.Name), shorten(n.Domain), strings.Join(n.Sources, " "), shorten(n.Relationship),
				sql.NullInt64{Int64: n.Ends.UnixMilli(), Valid: !n.Ends.IsZero()}, extends, r.Began.UnixMilli())...); err != nil {
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
// state, for which every decision under way is made anew.
func (c *Customers) settle(ctx context.Context, k mandate.GrantKey, r *mandate.CustomerRefresh, gone []mandate.TenantID, changed bool) error {
	do := c.db.Tx
	if len(gone) > 0 {
		do = c.db.Change
	}
	moved := 0
	if changed || len(gone) > 0 {
		moved = 1
	}
	return do(ctx, func(tx *database.Tx) error {
		if err := stillLast(ctx, tx, k, r.Attempt); err != nil {
			return err
		}
		for part := range slices.Chunk(gone, chunk) {
			if err := takeOut(ctx, tx, k, r.Began, part); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `UPDATE customer_lists SET settled = attempt, version = version + $5, members = $6, sources = $7, as_of = $8, due = $9, failures = 0, fault = ''
			WHERE`+ofKey+` AND attempt = $4`,
			keyed(k, r.Attempt, moved, len(r.Customers), strings.Join(r.Sources, " "), r.Began.UnixMilli(), r.Next.UnixMilli())...); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM customers WHERE`+ofKey+` AND gone < $4`, keyed(k, r.Began.Add(-forgetGone).UnixMilli())...)
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
