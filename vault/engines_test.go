package vault

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// onBoth runs a test on an empty database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, cfg database.Config)) {
	t.Run("SQLite", func(t *testing.T) {
		test(t, database.Config{File: filepath.Join(t.TempDir(), "mandate.db"), Schemas: []database.Schema{Schema()}})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		test(t, database.Config{URL: pgtest.Shared(t).Database(t), Schemas: []database.Schema{Schema()}})
	})
}

// openDB opens a database, and closes it when the test ends.
func openDB(t *testing.T, cfg database.Config) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	if cfg.URL != "" {
		go func() { ran <- db.Run(t.Context()) }()
	}
	t.Cleanup(func() {
		db.Close()
		if cfg.URL != "" {
			<-ran
		}
	})
	return db
}

// replicas returns vaults in one database with the same keys: two replicas on
// PostgreSQL, and one on SQLite, which has no more.
func replicas(t *testing.T, cfg database.Config) []*SQL {
	t.Helper()
	keys := openKeys(t, filepath.Join(t.TempDir(), "keys"))
	all := []*SQL{newVault(t, guardDB(t, openDB(t, cfg), keys), keys)}
	if cfg.URL != "" {
		all = append(all, newVault(t, guardDB(t, openDB(t, cfg), keys), keys))
	}
	return all
}

// guardDB guards a database. At the end everything in it must verify: whatever
// the test did to guarded rows it did by changes.
func guardDB(t *testing.T, db *database.DB, keys *KeyFile) *database.DB {
	t.Helper()
	if err := db.Guard(t.Context(), database.GuardConfig{Key: keys}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := db.View(ctx, func(tx *database.Tx) error { return db.Verify(ctx, tx) }); err != nil {
			t.Errorf("the security state at the end: %v", err)
		}
	})
	return db
}

func TestConformance(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		v := replicas(t, cfg)[0]
		if err := Check(t.Context(), subject(v), contoso); err != nil {
			t.Error(err)
		}
		if err := Check(t.Context(), subject(v), contoso); err == nil {
			t.Error("Check passed where there was a grant already")
		}
	})
}

// patient is an epoch that is asked again while the database cannot be heard,
// which on a busy machine says nothing about what is tested.
type patient struct{ db *database.DB }

func (p patient) Epoch() (int64, error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		e, err := p.db.Epoch()
		if !errors.Is(err, database.ErrCutOff) || time.Since(began) > time.Minute {
			return e, err
		}
	}
}
