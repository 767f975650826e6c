package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// guardRetry is how often the key of the security state is asked for that could
// not be had.
const guardRetry = time.Second

// guardState verifies the security state, and that it is no older than this host
// remembers. Where the key that wraps its key is elsewhere, and cannot be
// asked at the moment, that is tried again while nothing is served; see
// [App.guardLater].
func (a *App) guardState(ctx context.Context, c *Config) error {
	m, err := c.remembered()
	if err != nil {
		return err
	}
	a.guarding = func(ctx context.Context) error { return guardAs(ctx, a.db, a.rings.grants, m) }
	err = a.guarding(ctx)
	if err == nil {
		a.guarding = nil
		return nil
	}
	if c.keyFile() != "" || errors.Is(err, database.ErrAltered) || errors.Is(err, database.ErrWentBack) || ctx.Err() != nil {
		return err
	}
	a.log.Error("nothing is handed out until the key can be had", "err", err)
	return nil
}

// guardAs verifies what is in the database, and holds it against what this host
// remembers.
func guardAs(ctx context.Context, db *database.DB, key vault.KeyWrapper, m memory) error {
	if err := m.notBefore(db); err != nil {
		return err
	}
	return db.Guard(ctx, database.GuardConfig{Key: key, Fingerprint: m.key})
}

// guardLater verifies the security state as soon as its key can be had.
func (a *App) guardLater(ctx context.Context) error {
	for a.guarding != nil {
		select {
		case <-time.After(guardRetry):
		case <-ctx.Done():
			return nil
		}
		err := a.guarding(ctx)
		switch {
		case err == nil:
			a.log.Info("the security state is verified; serving begins")
			return remember(a.epochs, a.db)
		case errors.Is(err, database.ErrAltered) || errors.Is(err, database.ErrWentBack):
			return err
		}
	}
	return nil
}

// guardExisting guards a database for a command beside the server, if it was
// guarded before.
func (a *App) guardExisting(ctx context.Context) error {
	id, err := a.db.KeyID(ctx)
	if err != nil || id == "" {
		return err
	}
	return a.db.Guard(ctx, database.GuardConfig{Key: a.rings.grants})
}

// guardAnew guards a database into which everything was just brought, with a
// new key. One that was guarded before keeps its key, from the beginning.
func (c *Config) guardAnew(ctx context.Context, db *database.DB, brought bool) error {
	id, err := db.KeyID(ctx)
	if err != nil || db.Guarded() || !brought && id == "" {
		return err
	}
	clouds, err := c.clouds()
	if err != nil {
		return err
	}
	a := &App{log: slog.New(slog.DiscardHandler), db: db}
	a.outside = newOutside(c, clouds, a.log)
	if _, err := a.vaultConfig(ctx, c); err != nil {
		return err
	}
	return db.Guard(ctx, database.GuardConfig{Key: a.rings.grants, Accept: id == ""})
}

// An Acceptance is what was accepted, for an operator to look at.
type Acceptance struct {
	Epoch int64 `json:"epoch"` // the new one

	// KeyOnly is set if everything was in order but for the key, which another
	// host has replaced: this one knows it now, and nothing else was done.
	KeyOnly bool `json:"key_only,omitempty"`

	Was      string             `json:"was"` // what was wrong
	Partners []string           `json:"partners"`
	Callers  []mandate.CallerID `json:"callers"`
	Policy   string             `json:"policy"` // version
	Lockdown *mandate.Lockdown  `json:"lockdown,omitempty"`

	// Suspended are the grants that served. Each is probed when it is resumed.
	Suspended []mandate.GrantKey `json:"suspended"`
}

// errInOrder: there is nothing to accept.
var errInOrder = errors.New("the security state is as this program left it, and not older than this host remembers: there is nothing to accept")

// AcceptRollback takes a database as it is, though it was altered or went back,
// while no server runs: with a new key, in an epoch that is later than any
// that this host remembers, and with every grant suspended. It is recorded
// before it is done.
func AcceptRollback(ctx context.Context, c Config, by string) (out Acceptance, err error) {
	m, err := c.remembered()
	if err != nil {
		return out, err
	}
	was, err := c.whatIsWrong(ctx, memory{epoch: m.epoch})
	if err != nil {
		return out, err
	}
	a, err := c.openAlone(ctx)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	go a.db.Run(ctx) // ends when it is closed
	if was == nil {
		return a.takeKey(ctx, &c, m)
	}
	out.Was = was.Error()
	if err := a.openAuditAsIs(ctx, &c); err != nil {
		return out, err
	}
	rec := mandate.Record{Kind: mandate.KindChanged, Caller: mandate.CallerID(by),
		Detail: "accept the security state of the database as it is, and suspend every grant", Reason: out.Was}
	if rec.Epoch, err = a.db.Epoch(); err != nil {
		return out, err
	}
	if _, err := a.audit.Record(ctx, rec); err != nil {
		return out, fmt.Errorf("record it: %w", err)
	}
	return out, a.accept(ctx, &c, m.epoch, &out)
}

// openAuditAsIs opens the audit log even if it went back together with the
// database. What this host remembers of it is then kept beside, as evidence:
// it is signed, and so are the witnesses' copies.
func (a *App) openAuditAsIs(ctx context.Context, c *Config) error {
	clouds, err := c.clouds()
	if err != nil {
		return err
	}
	emulated := clouds[c.Applications[0].cloud()].Custom
	err = a.openAudit(ctx, c, emulated, a.rings.grants)
	if !errors.Is(err, audit.ErrChanged) {
		return err
	}
	aside := c.checkpointFile() + time.Now().UTC().Format(".20060102T150405Z")
	if err := os.Rename(c.checkpointFile(), aside); err != nil {
		return err
	}
	if a.auditIndex != nil {
		if err := a.auditIndex.Close(); err != nil {
			return err
		}
	}
	return a.openAudit(ctx, c, emulated, a.rings.grants)
}

// openAlone opens database and keys of a server that does not run.
func (c *Config) openAlone(ctx context.Context) (_ *App, err error) {
	a := &App{log: slog.New(slog.DiscardHandler)}
	clouds, err := c.clouds()
	if err != nil {
		return nil, err
	}
	a.outside = newOutside(c, clouds, a.log)
	if a.db, err = c.openDatabase(ctx, a.log); err != nil {
		return nil, err
	}
	v, err := a.vaultConfig(ctx, c)
	if err == nil {
		a.vault, err = vault.New(v)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// whatIsWrong returns the reason for which a server would not start, or nil.
func (c *Config) whatIsWrong(ctx context.Context, m memory) (was, err error) {
	a, err := c.openAlone(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	was = guardAs(ctx, a.db, a.rings.grants, m)
	if was != nil && !errors.Is(was, database.ErrAltered) && !errors.Is(was, database.ErrWentBack) {
		return nil, was
	}
	return was, nil
}

// takeKey has this host know the key that is in use, where another host has
// replaced the one that it knew.
func (a *App) takeKey(ctx context.Context, c *Config, m memory) (out Acceptance, err error) {
	if err := a.db.Guard(ctx, database.GuardConfig{Key: a.rings.grants}); err != nil {
		return out, err
	}
	if m.key == "" || m.key == a.db.Fingerprint() {
		return out, errInOrder
	}
	out.KeyOnly, out.Was = true, "the key of the security state was replaced on another host"
	if out.Epoch, err = a.db.Epoch(); err != nil {
		return out, err
	}
	return out, remember(c.epochFile(), a.db)
}

func (a *App) accept(ctx context.Context, c *Config, seen int64, out *Acceptance) error {
	if err := a.db.Guard(ctx, database.GuardConfig{Key: a.rings.grants, Accept: true}); err != nil {
		return err
	}
	err := a.db.ChangeTo(ctx, seen+1, func(tx *database.Tx) (err error) {
		if out.Suspended, err = vault.SuspendAll(ctx, tx); err != nil {
			return err
		}
		if err := errors.Join(store.EndSessions(ctx, tx), store.EndApprovals(ctx, tx)); err != nil { // nobody can tell who has made them
			return err
		}
		for _, k := range out.Suspended {
			if err := store.MarkRestored(ctx, tx, store.Restored{Key: k, Served: true}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, a.db)
	if err != nil {
		return err
	}
	if err := out.describe(s); err != nil {
		return err
	}
	if out.Epoch, err = a.db.Epoch(); err != nil {
		return err
	}
	return remember(c.epochFile(), a.db)
}

// describe lists what counts from now on.
func (out *Acceptance) describe(s *store.Store) error {
	partners, err := s.Partners()
	if err != nil {
		return err
	}
	callers, err := s.Callers()
	if err != nil {
		return err
	}
	out.Partners, out.Callers = []string{}, []mandate.CallerID{}
	for _, p := range partners {
		out.Partners = append(out.Partners, p.Name)
	}
	for _, c := range callers {
		out.Callers = append(out.Callers, c.ID)
	}
	p, err := s.Policy()
	if err != nil {
		return err
	}
	if p != nil {
		out.Policy = p.Version
	}
	out.Lockdown, err = s.Lockdown()
	return err
}
