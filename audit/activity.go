package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// An Activity says how often a partner's grant was used.
type Activity struct {
	Days    []ActiveDay // in order; days without records are left out
	Callers []string    // who used it or tried to, sorted
	Tenants []string    // where, sorted
}

// An ActiveDay counts the records of one day, in UTC.
type ActiveDay struct {
	Day    time.Time
	Issued int64 // tokens that were handed out, and calls
	Denied int64 // requests that got none
}

// mostCounted bounds what one count looks at.
const mostCounted = 1_000_000

// Activity counts the records that a query finds, of one application, by day. It
// reads the index alone.
func (l *Log) Activity(ctx context.Context, q Query, application mandate.AppID) (Activity, error) {
	if err := l.index.settled(ctx); err != nil {
		return Activity{}, err
	}
	u, err := l.index.activity(ctx, q, application)
	if err != nil {
		return Activity{}, fmt.Errorf("%w: count records: %w", mandate.ErrUnavailable, err)
	}
	return u, nil
}

func (x *index) activity(ctx context.Context, q Query, application mandate.AppID) (u Activity, err error) {
	f, err := x.lookup(ctx, q)
	if err != nil || f == nil {
		return u, err
	}
	args := append(f.args, f.first, f.end, application.String())
	rows, err := x.db.Query(ctx, `SELECT at / 86400000, kind, caller, tenant, count(*) FROM audit_index WHERE idx IN (`+f.newest(mostCounted)+`)
		AND application = $`+strconv.Itoa(len(args))+` AND kind IN ('issued', 'denied', 'failed') GROUP BY 1, 2, 3, 4 ORDER BY 1`, args...)
	if err != nil {
		return u, err
	}
	defer rows.Close()
	for rows.Next() {
		var day, n int64
		var kind, caller, tenant string
		if err := rows.Scan(&day, &kind, &caller, &tenant, &n); err != nil {
			return u, err
		}
		u.add(day, kind, n)
		u.Callers, u.Tenants = append(u.Callers, caller), append(u.Tenants, tenant)
	}
	u.Callers, u.Tenants = names(u.Callers), names(u.Tenants)
	return u, rows.Err()
}

func (u *Activity) add(day int64, kind string, n int64) {
	at := time.Unix(day*86400, 0).UTC()
	if len(u.Days) == 0 || !u.Days[len(u.Days)-1].Day.Equal(at) {
		u.Days = append(u.Days, ActiveDay{Day: at})
	}
	last := &u.Days[len(u.Days)-1]
	if kind == mandate.KindIssued {
		last.Issued += n
	} else {
		last.Denied += n
	}
}

// names sorts names, and leaves out those that are empty.
func names(all []string) []string {
	slices.SortFunc(all, strings.Compare)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}
