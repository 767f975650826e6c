package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/rotation"
	"github.com/mandate-sam/mandate/notify"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// openVaults opens what of a server keeps grants, in db if that is not nil.
func (c *Config) openVaults(ctx context.Context, db *database.DB) (_ *App, s *store.Store, err error) {
	a := &App{log: slog.New(slog.DiscardHandler), db: db}
	defer func() {
		if err != nil && db == nil {
			err = errors.Join(err, a.Close())
		}
	}()
	clouds, err := c.clouds()
	if err != nil {
		return nil, nil, err
	}
	a.outside = newOutside(c, clouds, a.log)
	if a.db == nil {
		if err := os.MkdirAll(c.file(c.Data), 0o700); err != nil {
			return nil, nil, err
		}
		if a.db, err = c.openDatabase(ctx, a.log); err != nil {
			return nil, nil, err
		}
	}
	v, err := a.vaultConfig(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	a.epochs = c.epochFile()
	if db == nil {
		if err = a.guardExisting(ctx); err != nil {
			return nil, nil, err
		}
	}
	if s, err = store.Open(ctx, a.db); err != nil {
		return nil, nil, err
	}
	v.HomeOf = c.Grants.homeOf(s)
	a.vault, err = vault.New(v)
	return a, s, err
}

// sameDatabase reports whether both configurations name one database.
func (c *Config) sameDatabase(o *Config) bool {
	if c.Database.URL != "" || o.Database.URL != "" {
		return c.Database.URL == o.Database.URL
	}
	return c.file(c.Data) == o.file(o.Data)
}

// Move brings everything that one configuration keeps to where another keeps
// it: to another database, other homes, other keys. What is there already is
// left alone, so it may be stopped at any time and begun again. No server may
// serve from either database, unless both configurations name the same one;
// where one was heard of lately, nothing is moved.
func Move(ctx context.Context, from, to Config, progress func(done, total int)) error {
	source, _, err := from.openVaults(ctx, nil)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	defer source.Close()
	var same *database.DB
	if from.sameDatabase(&to) {
		same = source.db
	}
	target, _, err := to.openVaults(ctx, same)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if same == nil {
		defer target.Close()
	}
	ctx, stop := context.WithCancel(ctx)
	var running errgroup.Group
	defer running.Wait()
	defer stop()
	for _, run := range []func(context.Context) error{source.db.Run, target.db.Run, source.outside.Run, target.outside.Run} {
		running.Go(func() error { return run(ctx) })
	}
	if same == nil {
		if err := from.unserved(ctx, source.db); err != nil {
			return fmt.Errorf("from: %w", err)
		}
		if err := to.unserved(ctx, target.db); err != nil {
			return fmt.Errorf("to: %w", err)
		}
		if err := moveStore(ctx, source.db, target.db); err != nil {
			return err
		}
	}
	if err := vault.Copy(ctx, source.vault, target.vault, progress); err != nil || target.db.Guarded() || !source.db.Guarded() {
		return err
	}
	if err := target.db.Guard(ctx, database.GuardConfig{Key: target.rings.grants}); err != nil {
		return err
	}
	return remember(target.epochs, target.db)
}

// unserved refuses a database that replicas may be serving from: what they do
// meanwhile, such as a withdrawal, would not be brought along. SQLite has a lock
// for that.
func (c *Config) unserved(ctx context.Context, db *database.DB) error {
	if c.Database.URL == "" {
		return nil
	}
	replicas, err := (&rotation.SQL{DB: db}).Heard(ctx)
	if err == nil && len(replicas) > 0 {
		err = fmt.Errorf("%d replica(s) may still serve from that database, heard of in the last two minutes: %s; stop them first: what they do meanwhile, such as a withdrawal, would not be brought along", len(replicas), strings.Join(replicas, ", "))
	}
	return err
}

// moveStore brings what the store has over, a lockdown too, and the epoch: what is decided in the target is later than what was decided before.
func moveStore(ctx context.Context, from, to *database.DB) error {
	f, err := os.CreateTemp("", "mandate-*") // 0600; it has hashes and names
	if err != nil {
		return err
	}
	defer f.Close()
	os.Remove(f.Name())
	tables := append(store.AllTables(), notify.Tables()...)
	header, err := from.Dump(ctx, tables, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	_, err = database.ReadDump(f, tables, func(name string, row map[string]any) error {
		for _, t := range tables {
			if t.Name == name {
				return moveRow(ctx, to, t, row)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return store.Follow(ctx, from, to, header.Epoch)
}

// changing returns how rows are added: a database that is guarded takes those of
// security state in changes only.
func changing(db *database.DB) func(context.Context, func(*database.Tx) error) error {
	if db.Guarded() {
		return db.Change
	}
	return db.Tx
}

// moveRow adds a row, or finds it there as it is.
func moveRow(ctx context.Context, to *database.DB, t database.Table, row map[string]any) error {
	return changing(to)(ctx, func(tx *database.Tx) error {
		added, err := tx.Insert(ctx, t, row)
		if err != nil || added {
			return err
		}
		same, err := tx.Has(ctx, t, row)
		if err == nil && !same {
			err = fmt.Errorf("the target has another row in %s in the place of %v: it is not empty, or was used meanwhile", t.Name, row[t.Columns[0]])
		}
		return err
	})
}
