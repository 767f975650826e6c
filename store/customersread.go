package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

const customerColumns = `tenant, name, domain, sources, relationship, ends, extends, first_seen, gone`

// scanCustomer reads [customerColumns], after what else there is. Last is known
// only of one that is gone: others were last seen when the list was made.
func scanCustomer(scan func(...any) error, before ...any) (n mandate.Customer, err error) {
	var tenant, sources string
	var ends, gone sql.NullInt64
	var extends, first int64
	if err = scan(append(before, &tenant, &n.Name, &n.Domain, &sources, &n.Relationship, &ends, &extends, &first, &gone)...); err != nil {
		return n, err
	}
	n.Sources, n.Extends, n.First, n.Gone = strings.Fields(sources), extends != 0, time.UnixMilli(first), gone.Valid
	if ends.Valid {
		n.Ends = time.UnixMilli(ends.Int64)
	}
	if gone.Valid {
		n.Last = time.UnixMilli(gone.Int64)
	}
	if err = n.Tenant.UnmarshalText([]byte(tenant)); err != nil {
		err = fmt.Errorf("customer %q: %v", tenant, err) // of ours, not the caller's, so not wrapped
	}
	return n, err
}

// List returns the customers of a partner by name, those that are gone among
// them, and how the list stands.
func (c *Customers) List(ctx context.Context, k mandate.GrantKey) (mandate.CustomerStanding, []mandate.Customer, error) {
	s, err := c.Standing(ctx, k)
	if err != nil {
		return s, nil, err
	}
	var all []mandate.Customer
	err = c.each(ctx, `WHERE`+ofKey+` ORDER BY name, tenant`, keyed(k), func(_ mandate.GrantKey, n mandate.Customer) {
		if !n.Gone {
			n.Last = s.AsOf
		}
		all = append(all, n)
	})
	return s, all, wrap("list customers", err)
}

// Serving returns as whose customer a tenant is known, or was.
func (c *Customers) Serving(ctx context.Context, tenant mandate.TenantID) (map[mandate.GrantKey]mandate.Customer, error) {
	all := make(map[mandate.GrantKey]mandate.Customer)
	err := c.each(ctx, `WHERE tenant = $1`, []any{tenant.String()}, func(k mandate.GrantKey, n mandate.Customer) { all[k] = n })
	return all, wrap("find customer", err)
}

// Ending returns the customers whose delegated relationship ends by then and
// does not go on by itself, the first first.
func (c *Customers) Ending(ctx context.Context, by time.Time) (map[mandate.GrantKey][]mandate.Customer, error) {
	all := make(map[mandate.GrantKey][]mandate.Customer)
	err := c.each(ctx, `WHERE ends <= $1 AND extends = 0 AND gone IS NULL ORDER BY ends, tenant`, []any{by.UnixMilli()},
		func(k mandate.GrantKey, n mandate.Customer) { all[k] = append(all[k], n) })
	return all, wrap("find relationships that end", err)
}

// each calls do for every customer that a query finds.
func (c *Customers) each(ctx context.Context, where string, args []any, do func(mandate.GrantKey, mandate.Customer)) error {
	rows, err := c.db.Query(ctx, `SELECT cloud, application, partner, `+customerColumns+` FROM customers `+where, args...)
	if err != nil {
		return unavailable(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		var cloud, application, partner string
		n, err := scanCustomer(rows.Scan, &cloud, &application, &partner)
		if err != nil {
			return unavailable(ctx, err)
		}
		k, err := keyOf(cloud, application, partner)
		if err != nil {
			return err
		}
		do(k, n)
	}
	return unavailable(ctx, rows.Err())
}
