package audit

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
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
// whatever the limit: what pages and exports are made of.
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

// find returns the indexes of the records that a query finds, the newest first.
func (x *index) find(ctx context.Context, q Query) (out []int64, err error) {
	f, err := x.lookup(ctx, q)
	if err != nil || f == nil {
		return nil, err
	}
	begin, most := x.few, x.look
	if f.rare {
		begin, most = math.MaxInt64, math.MaxInt64
	}
	limit := cmp.Or(max(q.Limit, 0), 100)
	for args := range f.ranges(begin, most) {
		if out, err = x.collect(ctx, out, f.newest(limit-len(out)), args); err != nil || len(out) == limit {
			return out, err
		}
	}
	return out, nil
}

// collect appends the indexes that a statement returns.
func (x *index) collect(ctx context.Context, out []int64, query string, args []any) ([]int64, error) {
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

// A lookup finds records in a range of indexes.
type lookup struct {
	where string // the records; its last two arguments are the range
	query string // their indexes; it has the same arguments
	order string // of the records, in a form that an index serves or none
	args  []any  // but for the range
	first int64  // no record before it fits,
	end   int64  // nor one from here on
	rare  bool   // looking through all of the range is as little work as reading what is found
}

// ranges returns the arguments for ranges of indexes which are the whole of
// it, the newest first: of so many indexes, then twice as many, up to the most.
func (f *lookup) ranges(step, most int64) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for end := f.end; end > f.first; {
			first := f.first
			if end-first > step {
				first = end - step
			}
			if !yield(append(slices.Clone(f.args), first, end)) {
				return
			}
			if end = first; step < most {
				step = min(2*step, most)
			}
		}
	}
}

// newest returns the statement for the indexes of the newest records.
func (f *lookup) newest(limit int) string {
	return f.query + " ORDER BY " + f.order + " DESC LIMIT " + strconv.Itoa(limit)
}

// lookup returns how the records of q are found, or nil if there are none.
func (x *index) lookup(ctx context.Context, q Query) (*lookup, error) {
	conditions, err := x.conditions(ctx, q)
	if err != nil || conditions == nil {
		return nil, err
	}
	return x.lookFor(ctx, q, conditions)
}

// lookFor is lookup for the times of q alone, and conditions.
func (x *index) lookFor(ctx context.Context, q Query, conditions []condition) (*lookup, error) {
	best, rare, err := x.rarest(ctx, conditions)
	if err != nil {
		return nil, err
	}
	f := &lookup{rare: rare, order: "idx"}
	if f.first, f.end, err = x.span(ctx, q); err != nil {
		return nil, err
	}
	looked, others := "", []string{} // each up in its index
	for i, c := range conditions {
		n := len(f.args) + 1
		f.args = append(f.args, c.values...)
		f.where += c.sql(n, i == best) + " AND "
		if i == best {
			looked = c.sql(n, true)
		} else {
			others = append(others, c.sql(n, true))
		}
	}
	times := ""
	if !q.From.IsZero() {
		f.args = append(f.args, q.From.UnixMilli())
		times += fmt.Sprintf("at + 0 >= $%d AND ", len(f.args))
	}
	if !q.To.IsZero() {
		f.args = append(f.args, q.To.UnixMilli())
		times += fmt.Sprintf("at + 0 < $%d AND ", len(f.args))
	}
	if rare && len(conditions) > 0 && len(conditions[best].values) > 1 {
		// No index has this order for several values, and the one that has it
		// for all records must not seem worth a try.
		f.order = "idx + 0"
	}
	within := fmt.Sprintf("%[1]s >= $%[2]d AND %[1]s < $%[3]d", f.order, len(f.args)+1, len(f.args)+2)
	f.where += times + within
	f.query = "SELECT idx FROM audit_index WHERE " + f.where
	if !rare {
		// So many records fit one thing and not the others that it is better not
		// to read them: the indexes have all of this.
		f.query = "SELECT idx FROM audit_index WHERE " + looked + " AND " + times + within
		for _, c := range others {
			f.query += " INTERSECT SELECT idx FROM audit_index WHERE " + c + " AND " + within
		}
	}
	return f, nil
}

// slack is how far the times of records are out of order at most.
const slack = time.Minute

// spanned are the index behind the last record that is older than $1, and that
// of the first one that is newer than $2.
const spanned = `SELECT coalesce((SELECT idx FROM audit_index WHERE at < $1 ORDER BY at DESC LIMIT 1), -1) + 1,
	coalesce((SELECT idx FROM audit_index WHERE at > $2 ORDER BY at LIMIT 1), (SELECT max(idx) FROM audit_index) + 1, 0)`

// span returns the range of indexes that has the times of q. Times and indexes
// grow together, give or take what records wait for each other. Before a
// record that is older than the time by the slack all are older than the time,
// and behind one that is newer by that all are newer.
func (x *index) span(ctx context.Context, q Query) (first, end int64, err error) {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !q.From.IsZero() {
		from = q.From.Add(-slack).UnixMilli()
	}
	if !q.To.IsZero() {
		to = q.To.Add(slack).UnixMilli()
	}
	err = x.db.QueryRow(ctx, spanned, from, to).Scan(&first, &end)
	if q.Before > 0 {
		end = min(end, q.Before)
	}
	return first, end, err
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

// rarest returns which of the conditions the fewest records fit: that one's
// index is used. Databases guess it from averages, and no kind of record,
// caller or partner is average. A few thousand are counted, and of conditions
// that more records fit it is the one for which these go back the furthest;
// rare is false then, if there are others to hold the records against.
func (x *index) rarest(ctx context.Context, all []condition) (best int, rare bool, err error) {
	least, oldest := int64(math.MaxInt64), int64(0)
	for i, c := range all {
		if len(all) == 1 {
			break
		}
		order := " ORDER BY idx DESC"
		if len(c.values) > 1 {
			order = "" // which would be that of each value
		}
		var n, last int64
		query := "SELECT count(*), coalesce(min(idx), 0) FROM (SELECT idx FROM audit_index WHERE " + c.sql(1, true) + order + " LIMIT " + strconv.FormatInt(x.few, 10) + ") AS found"
		if err := x.db.QueryRow(ctx, query, c.values...).Scan(&n, &last); err != nil {
			return 0, false, err
		}
		if n < least || n == least && last < oldest {
			best, least, oldest = i, n, last
		}
	}
	return best, len(all) < 2 || least < x.few, nil
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
	return x.collect(ctx, nil, `SELECT idx FROM audit_index WHERE chain = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4`, []any{chain, from, to, n})
}
