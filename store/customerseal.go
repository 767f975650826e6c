package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A listRow is how a partner's list is stored. That its tenants are those of a
// refresh, and when that was, is sealed: what somebody else writes into the
// database makes no tenant a customer, and no old list a young one.
type listRow struct {
	mandate.CustomerStanding
	sources       string
	asOf          sql.NullInt64
	sealed        int64  // the refresh that the list is of
	tenants, seal []byte // SHA-256 of the members, and the MAC
}

const listColumns = `attempt, settled, version, members, sources, as_of, attempted, due, failures, fault, sealed, tenants, seal`

// scanList reads [listColumns], after what else there is.
func scanList(scan func(...any) error, before ...any) (l listRow, err error) {
	var attempted, due int64
	err = scan(append(before, &l.Attempt, &l.Settled, &l.Version, &l.Count, &l.sources, &l.asOf, &attempted, &due, &l.Failures, &l.Fault, &l.sealed, &l.tenants, &l.seal)...)
	l.Sources, l.Attempted, l.Due = strings.Fields(l.sources), time.UnixMilli(attempted), time.UnixMilli(due)
	if l.asOf.Valid {
		l.AsOf = time.UnixMilli(l.asOf.Int64)
	}
	return l, err
}

func list(row *sql.Row) (listRow, error) {
	l, err := scanList(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return listRow{}, nil
	}
	return l, err
}

// mac is the seal that the row must have.
func (l *listRow) mac(db *database.DB, k mandate.GrantKey) []byte {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return db.Seal("list of customers", k.Cloud, k.Application.String(), k.Partner.String(),
		number(l.Version), number(int64(l.Count)), l.sources, number(l.asOf.Int64), number(l.sealed), string(l.tenants))
}

// verified returns how a list stands, as one that counts for nothing if it is
// not as it was sealed, or is an older one than may be.
func (l *listRow) verified(db *database.DB, k mandate.GrantKey, floors map[mandate.GrantKey]int64) mandate.CustomerStanding {
	switch {
	case !db.Guarded() || !l.asOf.Valid:
	case l.seal == nil:
		s := l.altered(k, "it has no MAC")
		s.Altered, s.Fault = false, "the stored list is of an earlier version of this program" // or looks so
		return s
	case !hmac.Equal(l.seal, l.mac(db, k)):
		return l.altered(k, "it was changed")
	case l.Version < floors[k]:
		return l.altered(k, fmt.Sprintf("it is an older one that was put back (replayed): version %d, when %d is the least", l.Version, floors[k]))
	}
	return l.CustomerStanding
}

// altered returns the standing of a list that counts for nothing.
func (l *listRow) altered(k mandate.GrantKey, what string) mandate.CustomerStanding {
	s := l.CustomerStanding
	s.AsOf, s.Count, s.Altered = time.Time{}, 0, true
	s.Fault = fmt.Sprintf("the list of customers in the database was altered by somebody else: row \"%s/%s/%s\" of customer_lists: %s; it counts for nothing until it is refreshed; find out who can write to the database",
		k.Cloud, k.Application, k.Partner, what)
	return s
}

// sumTenants returns the hash of a list's members.
func sumTenants(members map[mandate.TenantID]bool) []byte {
	texts := make([]string, 0, len(members))
	for t := range members {
		texts = append(texts, t.String())
	}
	slices.Sort(texts)
	h := sha256.New()
	for _, t := range texts {
		io.WriteString(h, t+"\n")
	}
	return h.Sum(nil)
}

// floors returns the least version that each list may have. Whoever asks does
// so before the list is read: it may be later, and never earlier.
func (c *Customers) floors() (map[mandate.GrantKey]int64, error) {
	if !c.db.Guarded() {
		return nil, nil
	}
	if _, err := c.db.Epoch(); err != nil {
		return c.store.snap.Load().floors, nil // nothing is handed out, but it can be looked at
	}
	snap, err := c.store.current()
	if err != nil {
		return nil, err
	}
	return snap.floors, nil
}

func (n *snapshot) readFloors(ctx context.Context, tx *database.Tx) error {
	rows, err := tx.Query(ctx, `SELECT cloud, application, partner, version FROM customer_floors`)
	if err != nil {
		return err
	}
	defer rows.Close()
	n.floors = make(map[mandate.GrantKey]int64)
	for rows.Next() {
		var cloud, application, partner string
		var version int64
		if err := rows.Scan(&cloud, &application, &partner, &version); err != nil {
			return err
		}
		k, err := keyOf(cloud, application, partner)
		if err != nil {
			return err
		}
		n.floors[k] = version
	}
	return rows.Err()
}
