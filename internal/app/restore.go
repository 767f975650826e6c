package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// A Restoration is the report on a restore.
type Restoration struct {
	Backup   database.DumpHeader `json:"backup"`
	Epoch    int64               `json:"epoch"`   // the new one
	Records  int64               `json:"records"` // of audit logs that were read
	Partners int                 `json:"partners"`
	Callers  int                 `json:"callers"`
	Grants   []RestoredGrant     `json:"grants"`

	// Since is what operators have changed since the backup was made, as the
	// audit logs tell it: none of it is in the backup.
	Since []string `json:"since"`
}

// A RestoredGrant is what became of one.
type RestoredGrant struct {
	Partner    mandate.TenantID `json:"partner"`
	UserName   string           `json:"user_name"`
	Generation int64            `json:"generation"`
	Suspended  bool             `json:"suspended"` // until it is probed; else it is gone
	Text       string           `json:"text"`
}

// Restore brings a backup into the empty database that the configuration
// names. Nothing is served from it: there is a lockdown, in an epoch that is
// larger than the backup's and than any in the audit logs, and every grant is
// suspended. What the logs say was withdrawn, or consented to by another user,
// after the backup was made does not come back. logs are read beside the audit
// log in the data directory.
func Restore(ctx context.Context, c Config, backup string, logs []string) (Restoration, error) {
	var r Restoration
	f, err := os.Open(backup)
	if err != nil {
		return r, err
	}
	defer f.Close()
	if r.Backup, err = database.CheckDump(f); err != nil {
		return r, fmt.Errorf("%s: %w", backup, err)
	}
	h, err := c.history(logs)
	if err != nil {
		return r, err
	}
	r.Records = h.records
	if err := os.MkdirAll(c.file(c.Data), 0o700); err != nil {
		return r, err
	}
	db, err := c.openDatabase(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return r, err
	}
	defer db.Close()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go db.Run(watching)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return r, err
	}
	remembered, err := c.remembered()
	if err != nil {
		return r, err
	}
	return r, r.load(ctx, &c, db, f, h, max(r.Backup.Epoch, h.epoch, remembered.epoch))
}

// restoreBatch is how many rows are brought with one commit.
const restoreBatch = 200

func (r *Restoration) load(ctx context.Context, c *Config, db *database.DB, f io.Reader, h *history, epoch int64) error {
	if err := c.guardAnew(ctx, db, false); err != nil {
		return err
	}
	tables := append(store.Tables(), vault.Grants())
	lock := mandate.Lockdown{Since: time.Now(), By: mandate.CallerID(fmt.Sprintf("uid:%d", os.Getuid()))}
	if err := store.BeginRestore(ctx, db, tables, epoch, lock); err != nil {
		return err
	}
	var err error
	if r.Epoch, err = db.Epoch(); err != nil {
		return err
	}
	l := &loader{Restoration: r, db: db, tables: tables, history: h, callers: make(map[string]bool)}
	if _, err := database.ReadDump(f, tables, func(table string, row map[string]any) error { return l.take(ctx, table, row) }); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	if err := c.guardAnew(ctx, db, true); err != nil {
		return err
	}
	lock.Reason = "restored from the backup of " + r.Backup.Created.Format("2006-01-02 15:04 MST")
	r.tellChanges(h)
	if err := store.EndRestore(ctx, db, lock); err != nil {
		return err
	}
	return remember(c.epochFile(), db)
}

// A loader brings rows into the database, many with one commit.
type loader struct {
	*Restoration
	db      *database.DB
	tables  []database.Table
	history *history
	pending []pendingRow
	callers map[string]bool
}

type pendingRow struct {
	table  database.Table
	row    map[string]any
	marked *store.Restored
}

func (l *loader) take(ctx context.Context, table string, row map[string]any) error {
	p := pendingRow{row: row}
	for _, t := range l.tables {
		if t.Name == table {
			p.table = t
		}
	}
	switch table {
	case "partners":
		l.Partners++
	case "callers", "caller_registry", "caller_credentials":
		if l.history.ends(table, row, l.Backup.Created) {
			return nil
		}
		l.callers[callerOf(table, row)] = true
		l.Callers = len(l.callers)
	case "invitations":
		closeInvitation(row)
	case "grants":
		var err error
		if p.marked, err = l.grant(row); err != nil {
			return err
		}
	}
	l.pending = append(l.pending, p)
	if len(l.pending) < restoreBatch {
		return nil
	}
	return l.flush(ctx)
}

// closeInvitation ends an invitation that was open: it may have been used
// since, and nothing tells.
func closeInvitation(row map[string]any) {
	if now, until := time.Now().UnixMilli(), row["expires"]; row["used"] == nil {
		if end, ok := until.(int64); ok && end > now {
			row["expires"] = now
		}
	}
}

func (l *loader) flush(ctx context.Context) error {
	err := changing(l.db)(ctx, func(tx *database.Tx) error {
		for _, p := range l.pending {
			if _, err := tx.Insert(ctx, p.table, p.row); err != nil {
				return fmt.Errorf("%s: %w", p.table.Name, err)
			}
			if p.marked != nil {
				if err := store.MarkRestored(ctx, tx, *p.marked); err != nil {
					return err
				}
			}
		}
		return nil
	})
	l.pending = nil
	return err
}

// grant judges one generation, and says how it goes into the database.
func (l *loader) grant(row map[string]any) (*store.Restored, error) {
	g, err := vault.Revive(row, l.Epoch)
	if err != nil {
		return nil, err
	}
	out := RestoredGrant{Partner: g.Key.Partner, UserName: g.UserName, Generation: g.Generation}
	live := g.State == mandate.StateActive || g.State == mandate.StateSuspended
	switch state, why := l.history.judge(&g); {
	case g.State == mandate.StateReplaced || g.State == mandate.StateDiscarded || g.State == mandate.StateWithdrawn:
		return nil, nil
	case why != "":
		vault.Destroy(row, state)
		out.Text = why
	case g.State == mandate.StateFallback:
		out.Text = "the fall-back of a later generation; destroyed"
	case g.State == mandate.StateCandidate:
		out.Text = "waits for an operator's decision, as it did"
	default:
		out.Suspended, out.Text = true, "suspended until it is probed"
		if g.State == mandate.StateSuspended {
			out.Text = "was suspended, and stays so"
		}
	}
	l.Grants = append(l.Grants, out)
	if !live || !out.Suspended {
		return nil, nil
	}
	return &store.Restored{Key: g.Key, Served: g.State == mandate.StateActive}, nil
}

// A history is what audit logs tell of the time since a backup.
type history struct {
	records int64
	epoch   int64 // the highest in any record
	ended   map[mandate.GrantKey][]mandate.Record
	changes []mandate.Record
}

// history reads the audit log in the data directory, if there is one, and
// others.
func (c *Config) history(logs []string) (*history, error) {
	h := &history{ended: make(map[mandate.GrantKey][]mandate.Record)}
	own := filepath.Join(c.file(c.Data), "audit")
	if err := h.read(own); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, path := range logs {
		if err := h.read(path); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// read reads an audit log: the directory of one, or an export.
func (h *history) read(path string) error {
	for r, err := range audit.Offline(path) {
		if err != nil {
			return err
		}
		h.note(r)
	}
	return nil
}

func (h *history) note(r mandate.Record) {
	h.records++
	h.epoch = max(h.epoch, r.Epoch)
	switch {
	case r.Withdraws() || r.Kind == mandate.KindConsented && r.Grant != nil:
		h.ended[*r.Grant] = append(h.ended[*r.Grant], r)
	}
	if r.Kind == mandate.KindChanged || r.Kind == mandate.KindConsented {
		h.changes = append(h.changes, r)
	}
}

// judge says why a generation must not come back, or "". What happened to a
// generation that is later than this one's, or before this one came to be what
// it is, does not count.
func (h *history) judge(g *vault.Revived) (mandate.State, string) {
	for _, r := range h.ended[g.Key] {
		before := r.Epoch < g.Since
		switch {
		case r.Withdraws() && (r.Generation >= g.Generation || r.Generation == 0 && !before):
			return mandate.StateWithdrawn, "was withdrawn on " + r.Time.UTC().Format("2006-01-02 15:04 MST") + ", after the backup; it stays withdrawn"
		case r.Kind == mandate.KindConsented && r.Generation > g.Generation && (r.User == nil || r.User.Object.String() != g.User):
			return mandate.StateReplaced, fmt.Sprintf("generation %d, of another user, came after the backup and is not in it; the partner must consent again", r.Generation)
		}
	}
	return "", ""
}

// callerOf returns the caller that a row is of.
func callerOf(table string, row map[string]any) string {
	column := "id"
	if table == "caller_credentials" {
		column = "caller"
	}
	id, _ := row[column].(string)
	return id
}

// sameTime is how much earlier than a backup a change may have been recorded
// that was made after it.
const sameTime = time.Minute

// ends reports whether a caller's row must not come back, and shortens the
// life of one that ends later.
func (h *history) ends(table string, row map[string]any, backup time.Time) bool {
	for _, r := range h.changes {
		e, ok := r.EndsCaller()
		if !ok || e.Caller != callerOf(table, row) || r.Time.Before(backup.Add(-sameTime)) {
			continue
		}
		switch {
		case e.Credential == "" && !e.Secrets, e.Secrets && table == "callers":
			return true
		case e.Credential != "" && (row["key_id"] == e.Credential || table == "caller_credentials" && row["id"] == e.Credential):
			if until, ok := row["expires"].(int64); !ok || until > e.At.UnixMilli() {
				row["expires"] = e.At.UnixMilli()
			}
		}
	}
	return false
}

// maxChanges bounds how many changes are told, the last ones.
const maxChanges = 200

// tellChanges lists what was changed after the backup.
func (r *Restoration) tellChanges(h *history) {
	r.Since = []string{}
	for _, c := range h.changes {
		if c.Time.Before(r.Backup.Created) {
			continue
		}
		what := c.Detail
		if c.Kind == mandate.KindConsented {
			what = fmt.Sprintf("a consent, generation %d", c.Generation)
		}
		r.Since = append(r.Since, fmt.Sprintf("%s  %s  %s %s", c.Time.UTC().Format(time.DateTime), c.Caller, c.Partner, what))
	}
	r.Since = r.Since[max(0, len(r.Since)-maxChanges):]
}
