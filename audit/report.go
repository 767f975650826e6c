package audit

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Usage is how often a partner's rights were used in one way.
type Usage struct {
	Chain    string           `json:"chain"`
	Partner  string           `json:"partner"` // short name
	Caller   mandate.CallerID `json:"caller"`
	Purpose  string           `json:"purpose"`
	Tenant   mandate.TenantID `json:"tenant,omitzero"`
	Audience mandate.Audience `json:"audience"`
	Issued   int64            `json:"issued"` // tokens handed out, or used for a call
	Denied   int64            `json:"denied"`
	Failed   int64            `json:"failed"`
	Possibly int64            `json:"possibly_issued"` // allowed, and what came of it is not recorded: the server ended in between
	First    time.Time        `json:"first"`
	Last     time.Time        `json:"last"`
	Scopes   []mandate.Scope  `json:"scopes,omitempty"` // that tokens carried
}

type usageKey struct{ chain, purpose, caller, tenant, audience string }

// kindsOfUse are those of records about using a grant. The others are about
// what became of it.
var kindsOfUse = []string{mandate.KindIssued, mandate.KindDecided, mandate.KindDenied, mandate.KindFailed, mandate.KindRefreshed, kindLost}

// inFlight is how old a request is at least of which nothing more is awaited.
const inFlight = 5 * time.Minute

// Report says whose rights were used by whom, for which customer and purpose,
// the most used first. It counts in the index, and reads few records.
func (l *Log) Report(ctx context.Context, q Query) ([]Usage, error) {
	if err := l.index.near(ctx); err != nil {
		return nil, err
	}
	r := &reporting{log: l, all: make(map[usageKey]*Usage), scopes: map[int64][]mandate.Scope{0: nil}, names: make(map[string]string)}
	for c, err := range l.index.count(ctx, q) {
		if err == nil {
			err = r.add(ctx, c)
		}
		if err != nil {
			return nil, err
		}
	}
	out := make([]Usage, 0, len(r.all))
	for _, u := range slices.SortedFunc(maps.Values(r.all), busier) {
		u.Partner = r.names[u.Chain]
		slices.Sort(u.Scopes)
		out = append(out, *u)
	}
	return out, nil
}

// busier orders what was used more before the rest.
func busier(a, b *Usage) int {
	if n := cmp.Or(cmp.Compare(b.Issued, a.Issued), cmp.Compare(a.Chain, b.Chain), b.Last.Compare(a.Last), cmp.Compare(a.Caller, b.Caller),
		cmp.Compare(a.Purpose, b.Purpose), cmp.Compare(a.Audience, b.Audience)); n != 0 {
		return n
	}
	return cmp.Compare(a.Tenant.String(), b.Tenant.String())
}

// A counted is what records have in common, and how many they are.
type counted struct {
	usageKey
	kind        string
	granted     int64 // see scopesTag
	n           int64
	first, last int64 // times
	newest      int64 // index
}

// count counts the records of q about using a grant, the newest first, in
// several ranges. An operator's act that failed is about a partner, and uses
// nothing.
func (x *index) count(ctx context.Context, q Query) iter.Seq2[*counted, error] {
	return func(yield func(*counted, error) bool) {
		f, err := x.lookup(ctx, q)
		if err != nil {
			yield(nil, fmt.Errorf("%w: report: %w", mandate.ErrUnavailable, err))
		}
		if err != nil || f == nil {
			return
		}
		// What is counted at once is little enough to be sorted in memory.
		query, more := f.counting()
		step := x.look / 10
		if f.order != "idx" {
			step = math.MaxInt64 // no index has ranges of these, and they are few
		}
		for args := range f.ranges(step, step) {
			all, err := x.countRange(ctx, query, append(args, more...))
			if err != nil {
				yield(nil, fmt.Errorf("%w: report: %w", mandate.ErrUnavailable, err))
				return
			}
			for i := range all {
				if !yield(&all[i], nil) {
					return
				}
			}
		}
	}
}

// counting returns the statement that counts, and its arguments behind those
// of the lookup. What was allowed and has no end is counted for itself, and has
// a kind of its own.
func (f *lookup) counting() (query string, args []any) {
	n := len(f.args) + 3 // behind the range
	count := func(kind, granted, more string) string {
		return `SELECT chain, purpose, caller, tenant, audience, ` + kind + ` AS kind, ` + granted + ` AS granted, count(*) AS n, min(at) AS first, max(at) AS last, max(idx) AS newest
			FROM audit_index AS this WHERE ` + f.where + ` AND application <> '' AND caller <> '' AND audience <> ''` + more + ` GROUP BY 1, 2, 3, 4, 5, 6, 7`
	}
	lost := ` AND kind = '` + mandate.KindDecided + `' AND at < $` + strconv.Itoa(n) + ` AND NOT EXISTS (SELECT 1 FROM audit_index AS other
		WHERE other.request = this.request AND other.idx > this.idx AND other.kind || '' IN (` + placeholders(n+1, len(kindsOfEnd)) + `))`
	return count("kind", "granted", "") + ` UNION ALL ` + count("'"+kindLost+"'", "0", lost) + ` ORDER BY newest DESC`,
		append([]any{time.Now().Add(-inFlight).UnixMilli()}, kindsOfEnd...)
}

// kindLost is of no record, but of how many were allowed and have no end.
const kindLost = "lost"

// kindsOfEnd are those of records that say what came of a request that was
// allowed.
var kindsOfEnd = []any{mandate.KindIssued, mandate.KindFailed, mandate.KindRefreshed}

func (x *index) countRange(ctx context.Context, query string, args []any) (all []counted, err error) {
	rows, err := x.db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c counted
		if err := rows.Scan(&c.chain, &c.purpose, &c.caller, &c.tenant, &c.audience, &c.kind, &c.granted, &c.n, &c.first, &c.last, &c.newest); err != nil {
			return nil, err
		}
		if slices.Contains(kindsOfUse, c.kind) {
			all = append(all, c)
		}
	}
	return all, rows.Err()
}

// A reporting is a report that is being made, from the newest records back.
type reporting struct {
	log    *Log
	all    map[usageKey]*Usage
	scopes map[int64][]mandate.Scope // by scopesTag
	names  map[string]string         // of partners, by chain
}

func (r *reporting) add(ctx context.Context, c *counted) error {
	scopes, err := r.read(ctx, c)
	if err != nil {
		return err
	}
	u := r.all[c.usageKey]
	if u == nil {
		u = &Usage{Chain: c.chain, Caller: mandate.CallerID(c.caller), Purpose: c.purpose, Audience: mandate.Audience(c.audience), First: time.UnixMilli(c.first).UTC()}
		if c.tenant != "" {
			if u.Tenant, err = mandate.ParseTenantID(c.tenant); err != nil {
				return err
			}
		}
		r.all[c.usageKey] = u
	}
	u.add(c, scopes)
	return nil
}

// read returns the scopes of what was counted, and learns the partner's name,
// from one of its records if they are not known yet.
func (r *reporting) read(ctx context.Context, c *counted) ([]mandate.Scope, error) {
	if scopes, known := r.scopes[c.granted]; known && r.names[c.chain] != "" {
		return scopes, nil
	}
	e, err := r.log.Entry(ctx, c.newest)
	if err != nil {
		return nil, err
	}
	if r.names[c.chain] == "" {
		r.names[c.chain] = e.Partner
	}
	if c.granted != 0 {
		r.scopes[c.granted] = e.Granted
	}
	return r.scopes[c.granted], nil
}

func (u *Usage) add(c *counted, scopes []mandate.Scope) {
	switch c.kind {
	case mandate.KindIssued:
		u.Issued += c.n
	case mandate.KindDenied:
		u.Denied += c.n
	case mandate.KindFailed:
		u.Failed += c.n
	case kindLost:
		u.Possibly += c.n
	}
	if first := time.UnixMilli(c.first).UTC(); first.Before(u.First) {
		u.First = first
	}
	if last := time.UnixMilli(c.last).UTC(); last.After(u.Last) {
		u.Last = last
	}
	for _, s := range scopes {
		if !slices.Contains(u.Scopes, s) {
			u.Scopes = append(u.Scopes, s)
		}
	}
}
