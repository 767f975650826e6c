package store

import (
	"context"
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Tables returns what of the store belongs into a backup: all but sign-ins
// under way and a lockdown.
func Tables() []database.Table {
	return []database.Table{
		{Name: "partners", Order: "name", Columns: []string{"name", "cloud", "application", "partner", "display_name", "created"}},
		{Name: "callers", Order: "id, key_id", Columns: []string{"id", "key_id", "hash", "created", "expires"}},
		{Name: "caller_registry", Order: "id", Columns: []string{"id", "owner", "created", "binding"}},
		{Name: "caller_credentials", Order: "caller, id", Columns: []string{"caller", "id", "kind", "detail", "created", "expires"}},
		{Name: "revocations", Order: "id", Columns: []string{"id", "cloud", "application", "partner", "customer", "caller", "audience", "reason", "since", "revoked_by"}},
		{Name: "invitations", Order: "id", Columns: []string{"id", "hash", "partner", "user_name", "term", "created", "created_by", "expires", "used", "generation", "compromised"}},
		{Name: "partner_users", Order: "cloud, partner, object, role", Columns: []string{"cloud", "partner", "object", "role", "created", "created_by"}},
		{Name: "contacts", Order: "partner, address", Columns: []string{"partner", "address", "added", "added_by"}},
		{Name: "policy_versions", Order: "number", Columns: []string{"number", "version", "files", "applied", "applied_by"}},
	}
}

// AllTables returns what moves to another database: also which restored grants
// wait for their probe.
func AllTables() []database.Table {
	return append(Tables(), database.Table{Name: "restored", Order: "cloud, application, partner", Columns: []string{"cloud", "application", "partner", "served"}})
}

// unfinished is the reason for the lockdown while a restore is under way. One
// that was interrupted can be begun again.
const unfinished = "a restore from a backup is under way, or was interrupted"

// BeginRestore shuts an empty database before anything is put into it, and
// raises the epoch to one that is larger than epoch. If any of the tables has
// rows the error wraps [mandate.ErrExists].
func BeginRestore(ctx context.Context, db *database.DB, tables []database.Table, epoch int64, by mandate.Lockdown) error {
	by.Reason = unfinished
	err := db.ChangeTo(ctx, epoch+1, func(tx *database.Tx) error {
		var begun int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM lockdown WHERE reason = $1`, unfinished).Scan(&begun); err != nil {
			return err
		}
		for _, t := range tables {
			var rows int64
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM `+t.Name).Scan(&rows); err != nil {
				return err
			}
			if rows > 0 && begun == 0 {
				return fmt.Errorf("%w: %s in the database; a backup is restored into an empty one", mandate.ErrExists, t.Name)
			}
		}
		return setLock(ctx, tx, by)
	})
	return wrap("begin restore", unavailable(ctx, err))
}

// EndRestore says in the place of "under way" what was restored.
func EndRestore(ctx context.Context, db *database.DB, l mandate.Lockdown) error {
	return wrap("end restore", unavailable(ctx, db.Change(ctx, func(tx *database.Tx) error { return setLock(ctx, tx, l) })))
}

// MarkRestored notes that a grant waits for its probe.
func MarkRestored(ctx context.Context, tx *database.Tx, r Restored) error {
	served := int64(0)
	if r.Served {
		served = 1
	}
	_, err := tx.Exec(ctx, `INSERT INTO restored (cloud, application, partner, served) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		r.Key.Cloud, r.Key.Application.String(), r.Key.Partner.String(), served)
	return err
}

// Follow raises the epoch of one database to beyond that of another, which it
// takes the place of, and takes over a lockdown.
func Follow(ctx context.Context, from, to *database.DB, epoch int64) error {
	var s snapshot
	if err := from.View(ctx, func(tx *database.Tx) error { return s.readLockdown(ctx, tx) }); err != nil {
		return wrap("read lockdown", unavailable(ctx, err))
	}
	err := to.ChangeTo(ctx, epoch+1, func(tx *database.Tx) error {
		if s.lockdown == nil {
			return nil
		}
		return setLock(ctx, tx, *s.lockdown)
	})
	return wrap("raise epoch", unavailable(ctx, err))
}
