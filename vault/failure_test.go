package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// A breakage makes the database fail in the middle of a transaction, until it
// is mended.
type breakage struct{ name, table, sqlite, postgres string }

var breakages = []breakage{
	{
		"at every insert", "grants",
		`CREATE TRIGGER broken BEFORE INSERT ON grants BEGIN SELECT RAISE(ABORT, 'broken'); END`,
		`CREATE TRIGGER broken BEFORE INSERT ON grants FOR EACH ROW EXECUTE FUNCTION broken()`,
	},
	{
		"at the second insert", "grants",
		`CREATE TRIGGER broken BEFORE INSERT ON grants WHEN NEW.generation > 1 BEGIN SELECT RAISE(ABORT, 'broken'); END`,
		`CREATE TRIGGER broken BEFORE INSERT ON grants FOR EACH ROW WHEN (NEW.generation > 1) EXECUTE FUNCTION broken()`,
	},
	{
		"when the epoch is raised", "head", // which every change of state does
		`CREATE TRIGGER broken BEFORE UPDATE ON head BEGIN SELECT RAISE(ABORT, 'broken'); END`,
		`CREATE TRIGGER broken BEFORE UPDATE ON head FOR EACH ROW EXECUTE FUNCTION broken()`,
	},
	{
		"at the commit", "grants", "",
		`CREATE CONSTRAINT TRIGGER broken AFTER INSERT OR UPDATE OR DELETE ON grants DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION broken()`,
	},
}

// apply breaks the database, and returns what mends it; nil if that database
// cannot be broken so.
func (b breakage) apply(t *testing.T, v *SQL, url string) (mend func()) {
	t.Helper()
	exec := func(statement string) {
		t.Helper()
		if url != "" {
			pgtest.ExecIn(t, url, statement)
		} else if _, err := v.db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	statement, mending := b.sqlite, "DROP TRIGGER broken"
	if url != "" {
		statement, mending = b.postgres, mending+" ON "+b.table
		exec(`CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''broken''; END'`)
	}
	if statement == "" {
		return nil
	}
	exec(statement)
	return func() { t.Helper(); exec(mending) }
}

// Nothing that fails loses a grant: wherever in the middle of a change the
// database or a home fails, all that was stored is as it was, and the same
// change succeeds afterwards.
func TestFailuresLoseNoGrant(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		h := &fakeHome{}
		away := withHome(t, cfg, h)
		v, err := New(Config{DB: away.db, Key: away.key, SharedKey: away.shared, Homes: away.homes})
		if err != nil {
			t.Fatal(err)
		}
		populate(t, v)
		later := newVault(t, openDB(t, sqlite(t)), away.key.(*KeyFile)) // a copy that went on by itself
		if err := Copy(ctx, v, later, nil); err != nil {
			t.Fatal(err)
		}
		activate(t, later, candidate(later.db, partner(0), 4, "renewed elsewhere"))
		waiting := check{key: partner(3)}
		for _, change := range []struct {
			name string
			do   func() error
		}{
			{"copy from another database", func() error { return Copy(ctx, later, v, nil) }},
			{"activate the next", func() error { return v.Activate(ctx, candidate(v.db, partner(0), 5, "renewed")) }},
			{"stage", func() error { return v.Stage(ctx, waiting.staged(4, "staged again")) }},
			{"activate a candidate", func() error { return v.Activate(ctx, candidate(v.db, partner(3), 4, "approved")) }},
			{"copy to a home", func() error { return Copy(ctx, away, away, nil) }},
			{"copy back", func() error { return Copy(ctx, v, v, nil) }},
		} {
			before := everything(t, v)
			for _, b := range breakages {
				mend := b.apply(t, v, cfg.URL)
				if mend == nil {
					continue
				}
				if err := change.do(); err == nil {
					t.Errorf("%s: no error though the database fails %s", change.name, b.name)
				}
				mend()
				same(t, everything(t, newVaultLike(t, v)), before)
			}
			h.fail(errBusy)
			err := change.do()
			h.fail(nil)
			if err != nil {
				same(t, everything(t, newVaultLike(t, v)), before)
				err = change.do()
			}
			if err != nil {
				t.Errorf("%s, when all is well: %v", change.name, err)
			}
		}
		if g, err := newVaultLike(t, v).Open(ctx, partner(0)); err != nil || g.Refresh.Reveal() != "renewed" {
			t.Errorf("in the end: %q, %v", g.Refresh.Reveal(), err)
		}
	})
}

// fail has every call fail from now on, or none if err is nil.
func (h *fakeHome) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = err
}

// down is a keeper of keys that does not answer.
type down struct{}

func (down) Wrap(context.Context, []byte) (string, []byte, error) {
	return "", nil, fmt.Errorf("no answer: %w", mandate.ErrUnavailable)
}

func (down) Unwrap(context.Context, string, []byte) ([]byte, error) {
	return nil, fmt.Errorf("no answer: %w", mandate.ErrUnavailable)
}

// A keeper of keys that does not answer is a fault that passes, so that it is
// left alone for a while; a grant that does not open is none.
func TestKeeperDown(t *testing.T) {
	ctx := t.Context()
	v := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	g := activate(t, v, candidate(v.db, contoso, 1, "refresh"))
	other, err := New(Config{DB: v.db, Key: down{}})
	if err != nil {
		t.Fatal(err)
	}
	_, opened := other.Open(ctx, contoso)
	for name, err := range map[string]error{"Open": opened, "Keep": rotate(ctx, other, g, "next")} {
		var f *mandate.Fault
		if !errors.As(err, &f) || f.Domain != mandate.DomainTransient || f.Remedy != mandate.RemedyRetry || !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := other.Activate(ctx, candidate(v.db, contoso, 2, "next")); !errors.Is(err, mandate.ErrUnavailable) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("Activate: %v", err)
	}
	strange := newVault(t, v.db, openKeys(t, t.TempDir()+"/keys"))
	if _, err := strange.Open(ctx, contoso); err == nil || errors.Is(err, mandate.ErrUpstream) {
		t.Errorf("with a key that is another's: %v", err)
	}
	if g, err := newVaultLike(t, v).Open(ctx, contoso); err != nil || g.Refresh.Reveal() != "refresh" {
		t.Errorf("and then: %v", err)
	}
}
