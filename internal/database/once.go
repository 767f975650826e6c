package database

import "context"

// WritesInWith reports whether a statement may have others in front that
// write, as in WITH a AS (UPDATE … RETURNING …) SELECT … FROM a. Where it may,
// what would be a transaction of several statements can be one, and take one
// exchange with the server. All parts see what was committed before it began,
// and an UPDATE looks at its own row again, but not at others, after it has
// waited for it.
func (d *DB) WritesInWith() bool { return d.pg != nil }

// Returning executes one statement that writes and returns one row, which it
// scans into dest. When it returns nil what was written survives a crash.
func (d *DB) Returning(ctx context.Context, dest []any, query string, args ...any) error {
	if d.pg == nil {
		return d.share(ctx, func(tx *Tx) error { return tx.QueryRow(ctx, query, args...).Scan(dest...) })
	}
	return d.again(ctx, func() error {
		ctx, cancel := withLimit(ctx, d.limit)
		defer cancel()
		return d.writer.QueryRowContext(ctx, query, args...).Scan(dest...)
	})
}

// ExecSoon is [DB.Exec] of an INSERT, UPDATE or DELETE without RETURNING that
// need not survive a crash, and so does not wait for the disk. It is never
// stored in part, nor without what was committed before it.
func (d *DB) ExecSoon(ctx context.Context, query string, args ...any) (n int64, err error) {
	if d.pg == nil {
		return d.Exec(ctx, query, args...)
	}
	query = `WITH soon AS (` + query + ` RETURNING 1) SELECT count(*), set_config('synchronous_commit', 'off', true) FROM soon`
	err = d.Returning(ctx, []any{&n, new(any)}, query, args...)
	return n, err
}
