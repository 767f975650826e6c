package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/mandate-sam/mandate"
)

// readTimeout bounds what is read for somebody who gave no context.
const readTimeout = 30 * time.Second

// Last returns the last n records as JSON, oldest first; fewer if there are
// fewer.
func (l *Log) Last(n int) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	size := l.Count()
	var out []json.RawMessage
	for e, err := range l.entries(ctx, max(0, size-int64(n)), size) {
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode record: %w", err)
		}
		out = append(out, b)
	}
	return out, nil
}

// lines returns the stored lines from index from to before index to.
func (l *Log) lines(ctx context.Context, from, to int64) iter.Seq2[*line, error] {
	return func(yield func(*line, error) bool) {
		for from < to {
			some, err := l.store.read(ctx, from, to-from)
			if err == nil && len(some) == 0 {
				err = fmt.Errorf("record %d is missing", from)
			}
			if err != nil {
				yield(nil, fmt.Errorf("read audit log: %w", err))
				return
			}
			for i := range some {
				if some[i].index != from {
					yield(nil, fmt.Errorf("read audit log: record %d is missing", from))
					return
				}
				if !yield(&some[i], nil) {
					return
				}
				from++
			}
		}
	}
}

func (l *Log) entries(ctx context.Context, from, to int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for v, err := range l.lines(ctx, from, to) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			e, err := l.entry(ctx, v)
			if err != nil {
				err = fmt.Errorf("read audit log: record %d: %w", v.index, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Count returns how many records there are. Those of other replicas are
// counted about a second late.
func (l *Log) Count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Wait returns when there are more than count records, or with ctx's error.
func (l *Log) Wait(ctx context.Context, count int64) error {
	for {
		l.mu.Lock()
		grown, size := l.grown, l.size
		l.mu.Unlock()
		if size > count {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Alive implements [mandate.Issued].
func (l *Log) Alive(ctx context.Context, k mandate.GrantKey, now time.Time) (n int, until time.Time, err error) {
	if err := l.index.near(ctx); err != nil {
		return 0, time.Time{}, err
	}
	var last int64
	err = l.index.db.QueryRow(ctx, `SELECT count(DISTINCT fingerprint), CAST(coalesce(max(handed), 0) AS BIGINT) FROM audit_index
		WHERE chain = $1 AND handed > $2 AND handed > 0 AND application = $3`,
		Chain(k.Cloud, k.Partner), now.UnixMilli(), k.Application.String()).Scan(&n, &last)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
	}
	if n > 0 {
		until = time.UnixMilli(last).UTC()
	}
	return n, until, nil
}

// alive counts tokens that live longer than $1.
const alive = `SELECT count(DISTINCT fingerprint), CAST(coalesce(max(handed), 0) AS BIGINT) FROM audit_index
	WHERE handed > $1 AND handed > 0 AND (chain = $2 OR $2 = '') AND (application = $3 OR $3 = '') AND (tenant = $4 OR $4 = '')
		AND (caller = $5 OR $5 = '') AND (audience = $6 OR $6 = '')`

// AliveWithin returns how many tokens within a reach were handed out that live
// longer than now, and when the last of them expires.
func (l *Log) AliveWithin(ctx context.Context, r mandate.Reach, now time.Time) (n int, until time.Time, err error) {
	if err := l.index.near(ctx); err != nil {
		return 0, time.Time{}, err
	}
	chain, application, tenant := "", "", ""
	if r.Partner != (mandate.GrantKey{}) {
		chain, application = Chain(r.Partner.Cloud, r.Partner.Partner), r.Partner.Application.String()
	}
	if !r.Customer.IsZero() {
		tenant = r.Customer.String()
	}
	var last int64
	err = l.index.db.QueryRow(ctx, alive,
		now.UnixMilli(), chain, application, tenant, string(r.Caller), string(r.Audience)).Scan(&n, &last)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
	}
	if n > 0 {
		until = time.UnixMilli(last).UTC()
	}
	return n, until, nil
}

// Drop removes the content of the records that are older, as far as the log
// is kept in units that are all older, and returns of how many. Their hashes
// stay, so that the rest can still be verified.
func (l *Log) Drop(ctx context.Context, before time.Time) (int64, error) {
	n, err := l.store.drop(ctx, before)
	if err != nil {
		return n, fmt.Errorf("drop: %w", err)
	}
	if err := l.dropIndexed(ctx); err != nil {
		return n, fmt.Errorf("drop: %w", err)
	}
	return n, nil
}

// dropIndexed takes what was dropped, which is the oldest, out of the index:
// files lose the content of fewer records than are old enough.
func (l *Log) dropIndexed(ctx context.Context) (err error) {
	end := sort.Search(int(l.Count()), func(i int) bool {
		lines, failed := l.store.read(ctx, int64(i), 1)
		err = errors.Join(err, failed)
		return err != nil || len(lines) == 0 || !lines[0].dropped
	})
	if err == nil {
		_, err = l.index.db.Exec(ctx, `UPDATE audit_index SET kind = '', application = '', caller = '', tenant = '', audience = '', purpose = '', request = '',
			fingerprint = '', uti = '', correlation = '', handed = 0, granted = 0, ticket = NULL, person = NULL WHERE idx < $1 AND kind <> ''`, int64(end))
	}
	return err
}

// Backwards returns the records, the newest first, without those that are
// added meanwhile. The last pair has an error if the rest cannot be read.
func (l *Log) Backwards(ctx context.Context) iter.Seq2[Entry, error] {
	const page = 500
	return func(yield func(Entry, error) bool) {
		for end := l.Count(); end > 0; end = max(0, end-page) {
			var some []Entry
			for e, err := range l.entries(ctx, max(0, end-page), end) {
				if err != nil {
					yield(Entry{}, err)
					return
				}
				some = append(some, e)
			}
			for _, e := range slices.Backward(some) {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
