package audit

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A Query says which records are looked for. Empty fields do not matter.
type Query struct {
	Chain       string // of a partner; see [Chain]
	Kind        string
	Caller      string
	Tenant      string
	Audience    string
	Purpose     string
	Request     string
	Fingerprint string
	UTI         string
	Correlation string
	Ticket      string
	Person      string // object id
	From, To    time.Time
	Limit       int   // zero means 100
	Before      int64 // index; only records before it, if it is not zero
}

// Search returns records, the newest first.
func (l *Log) Search(ctx context.Context, q Query) ([]Entry, error) {
	if err := l.index.near(ctx); err != nil {
		return nil, err
	}
	found, err := l.index.find(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%w: search: %w", mandate.ErrUnavailable, err)
	}
	out := make([]Entry, 0, len(found))
	for _, i := range found {
		e, err := l.Entry(ctx, i)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Each returns the records that a query finds, the newest first, all of them
// whatever the limit: what pages and reports are made of.
func (l *Log) Each(ctx context.Context, q Query) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for q.Limit = 1000; ; {
			page, err := l.Search(ctx, q)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				q.Before = e.Index
			}
			if len(page) < q.Limit || q.Before == 0 {
				return
			}
		}
	}
}

// Entry returns one record.
func (l *Log) Entry(ctx context.Context, index int64) (Entry, error) {
	for e, err := range l.entries(ctx, index, index+1) {
		return e, err
	}
	return Entry{}, fmt.Errorf("%w: record %d", mandate.ErrNotFound, index)
}

// slack is how far the times of records are out of order at most.
const slack = time.Minute

func (x *index) find(ctx context.Context, q Query) (out []int64, err error) {
	query, args, err := x.query(ctx, q)
	if err != nil || query == "" {
		return nil, err
	}
	rows, err := x.db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int64
		if err := rows.Scan(&i); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}

// A condition is that a column has one of some values.
type condition struct {
	column string
	values []any
}

// sql returns the condition with placeholders from n on. In another form,
// which means the same, no index serves it.
func (c condition) sql(n int, indexed bool) string {
	column := c.column
	switch {
	case indexed:
	case column == "ticket" || column == "person":
		column += " + 0"
	default:
		column += " || ''"
	}
	return column + " IN (" + placeholders(n, len(c.values)) + ")"
}

// query returns the statement for q, or "" if nothing can be found.
func (x *index) query(ctx context.Context, q Query) (string, []any, error) {
	conditions, err := x.conditions(ctx, q)
	if err != nil || conditions == nil {
		return "", nil, err
	}
	best, err := x.rarest(ctx, conditions)
	if err != nil {
		return "", nil, err
	}
	var where []string
	var args []any
	for i, c := range conditions {
		where = append(where, c.sql(len(args)+1, i == best))
		args = append(args, c.values...)
	}
	add := func(condition string, values ...int64) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where = append(where, condition)
	}
	// Times and indexes grow together, give or take what records wait for each
	// other: a time is a range of indexes, which every index here ends with.
	// Before a record that is older than the time by the slack all are older
	// than the time, and behind one that is newer by that all are newer.
	if !q.From.IsZero() {
		add("idx > coalesce((SELECT idx FROM audit_index WHERE at < ? ORDER BY at DESC LIMIT 1), -1) AND at + 0 >= ?", q.From.Add(-slack).UnixMilli(), q.From.UnixMilli())
	}
	if !q.To.IsZero() {
		add("idx < coalesce((SELECT idx FROM audit_index WHERE at > ? ORDER BY at LIMIT 1), ?) AND at + 0 < ?", q.To.Add(slack).UnixMilli(), math.MaxInt64, q.To.UnixMilli())
	}
	if q.Before > 0 {
		add("idx < ?", q.Before)
	}
	b := "SELECT idx FROM audit_index"
	if len(where) > 0 {
		b += " WHERE " + strings.Join(where, " AND ")
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	return b + " ORDER BY idx DESC LIMIT " + strconv.Itoa(limit), args, nil
}

// conditions returns what q says but for times, or nil if nothing can be found.
func (x *index) conditions(ctx context.Context, q Query) ([]condition, error) {
	out := []condition{}
	for _, f := range []struct{ column, value string }{
		// Of several that are common the first is looked up.
		{"request", q.Request}, {"fingerprint", q.Fingerprint}, {"uti", q.UTI}, {"correlation", q.Correlation}, {"tenant", q.Tenant},
		{"chain", q.Chain}, {"caller", q.Caller}, {"purpose", q.Purpose}, {"audience", q.Audience}, {"kind", q.Kind},
	} {
		switch {
		case f.value == "":
		case !database.ValidText(f.value):
			return nil, nil
		default:
			out = append(out, condition{f.column, []any{f.value}})
		}
	}
	for _, f := range []struct{ column, value string }{{"ticket", q.Ticket}, {"person", q.Person}} {
		if f.value == "" {
			continue
		}
		tags, err := x.tags(ctx, q, f.column, f.value)
		if err != nil || len(tags) == 0 {
			return nil, err
		}
		out = append(out, condition{f.column, tags})
	}
	return out, nil
}

// rarest returns which of the conditions the fewest records fit, as far as
// that is told by counting a few thousand: that one's index is used. Databases
// guess it from averages, and no kind of record, caller or partner is average.
func (x *index) rarest(ctx context.Context, all []condition) (best int, err error) {
	const enough = 5000
	least := int64(math.MaxInt64)
	for i, c := range all {
		if len(all) == 1 {
			break
		}
		var n int64
		query := "SELECT count(*) FROM (SELECT 1 FROM audit_index WHERE " + c.sql(1, true) + " LIMIT " + strconv.Itoa(enough) + ") AS found"
		if err := x.db.QueryRow(ctx, query, c.values...).Scan(&n); err != nil {
			return 0, err
		}
		if n < least {
			best, least = i, n
		}
	}
	return best, nil
}

// tags returns what a ticket or a person is found by: one number for every key
// that may have encrypted it.
func (x *index) tags(ctx context.Context, q Query, kind, text string) (out []any, err error) {
	from, to := "", "9999-99"
	if !q.From.IsZero() {
		from = monthOf(q.From)
	}
	if !q.To.IsZero() {
		to = monthOf(q.To)
	}
	names, err := x.log.keys.months(ctx, q.Chain, q.Chain == "", from, to)
	if err != nil {
		return nil, err
	}
	const most = 20_000
	if len(names) > most {
		return nil, fmt.Errorf("%w: name a partner or a time: there are %d keys of personal data to look with", mandate.ErrInvalid, len(names))
	}
	for _, n := range names {
		k, err := x.log.keys.get(ctx, n.chain, n.month, false)
		if err != nil {
			continue // erased meanwhile
		}
		out = append(out, k.tag(kind, text))
	}
	return out, nil
}

// chain returns the indexes of a chain's records, oldest first.
func (x *index) chain(ctx context.Context, chain string, size int64) iter.Seq2[int64, error] {
	const page = 1000
	return func(yield func(int64, error) bool) {
		if err := x.settled(ctx); err != nil {
			yield(0, err)
			return
		}
		for next := int64(0); ; {
			found, err := x.chainPage(ctx, chain, next, size, page)
			if err != nil {
				yield(0, err)
				return
			}
			for _, i := range found {
				if !yield(i, nil) {
					return
				}
				next = i + 1
			}
			if len(found) < page {
				return
			}
		}
	}
}

func (x *index) chainPage(ctx context.Context, chain string, from, to, n int64) (out []int64, err error) {
	rows, err := x.db.Query(ctx, `SELECT idx FROM audit_index WHERE chain = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4`, chain, from, to, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int64
		if err := rows.Scan(&i); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}
