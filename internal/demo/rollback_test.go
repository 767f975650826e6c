package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// keepFiles keeps a copy of the SQLite database of a product that does not run,
// and returns what puts it back.
func (d *Demo) keepFiles(t *testing.T) (putBack func()) {
	t.Helper()
	files := func() []string {
		all, err := filepath.Glob(d.File("data/mandate.db") + "*")
		if err != nil || len(all) == 0 {
			t.Fatalf("the database's files: %q, %v", all, err)
		}
		return all
	}
	kept := make(map[string][]byte)
	for _, path := range files() {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kept[path] = data
	}
	return func() {
		for _, path := range files() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		for path, data := range kept {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// keepTables keeps a copy of every row in PostgreSQL, and returns what puts
// them back.
func keepTables(t *testing.T, url string) (putBack func()) {
	t.Helper()
	const each = `DO $do$ DECLARE r record; BEGIN %s
		FOR r IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' LOOP EXECUTE format('%s', r.name); END LOOP; END $do$`
	pgtest.ExecIn(t, url, fmt.Sprintf(each, `CREATE SCHEMA kept;`, `CREATE TABLE kept.%1$I AS TABLE public.%1$I`))
	return func() {
		// Foreign keys and triggers are not looked at, as by pg_restore.
		pgtest.ExecIn(t, url, fmt.Sprintf(each, `SET LOCAL session_replication_role = replica;`,
			`DELETE FROM public.%1$I; INSERT INTO public.%1$I TABLE kept.%1$I`))
		pgtest.ExecIn(t, url, `DROP SCHEMA kept CASCADE`)
	}
}

// A database that went back as a whole, with a revocation that was made since,
// serves nothing, and the sentence says what to do; once that is accepted every
// grant is suspended, the epoch is later than ever, and what an operator
// resumes serves after a probe.
func TestDatabaseWriterRollBackProduct(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			d, _ := begin(t, Config{Idle: engine == "PostgreSQL"})
			keep := func() func() { return d.keepFiles(t) }
			if engine == "PostgreSQL" {
				url := d.share(t)
				keep = func() func() { return keepTables(t, url) }
				if err := d.serve(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			d.consent(t)
			if err := d.ask(t); err != nil {
				t.Fatal(err)
			}
			d.stopProduct(t)
			putBack := keep()
			d.again(t)
			if _, err := d.Operator.Revoke(t.Context(), api.RevokeRequest{Everything: true, Reason: "a laptop was stolen"}); err != nil {
				t.Fatal(err)
			}
			if err := d.ask(t); err == nil {
				t.Fatal("revoked, and served")
			}
			d.stopProduct(t)
			putBack()
			remembered, err := os.ReadFile(d.File("data/epoch"))
			if err != nil {
				t.Fatal(err)
			}
			var seen int64
			if _, err := fmt.Sscan(string(remembered), &seen); err != nil {
				t.Fatal(err)
			}

			// In PostgreSQL the audit log went back, too.
			says := []string{"this host has seen epoch " + fmt.Sprint(seen), "mandate restore --accept-rollback"}
			if err := d.startAgain(t, same); !errors.Is(err, database.ErrWentBack) || contains(err.Error(), says...) != nil {
				t.Fatalf("started on an older database: %v", err)
			}
			c, err := app.LoadConfig(d.File("mandate.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			out, err := app.AcceptRollback(t.Context(), c, "uid:1")
			if err != nil || out.Epoch <= seen || len(out.Suspended) != 1 || len(out.Partners) != 1 || out.KeyOnly || contains(out.Was, "epoch") != nil {
				t.Fatalf("accepted: %+v, %v; epoch %d was seen", out, err, seen)
			}
			d.again(t)
			var none *mandate.NoGrantError
			if err := d.ask(t); !errors.As(err, &none) || none.State != mandate.StateSuspended {
				t.Errorf("accepted, and not resumed: %v", err)
			}
			before := len(d.Emulator.TokenRequests())
			if _, err := d.Operator.Act(t.Context(), Partner, "resume", api.ActRequest{}); err != nil {
				t.Fatal(err)
			}
			if len(d.Emulator.TokenRequests()) == before {
				t.Error("resumed without a probe")
			}
			if err := d.ask(t); err != nil {
				t.Errorf("resumed: %v", err)
			}
		})
	}
}

// A host refuses a database that is in an earlier epoch than it remembers, by
// the file alone; the sentence has both numbers and the only way on, which
// leads past what was remembered.
func TestRememberedEpoch(t *testing.T) {
	t.Parallel()
	d := consented(t)
	d.stopProduct(t)
	text, err := os.ReadFile(d.File("data/epoch"))
	if err != nil {
		t.Fatal(err)
	}
	epoch, key, _ := strings.Cut(string(text), " ")
	if err := errors.Join(os.Remove(d.File("data/audit.checkpoint")), os.WriteFile(d.File("data/epoch"), []byte("1000 "+key), 0o600)); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := d.startAgain(t, same); !errors.Is(err, database.ErrWentBack) || contains(err.Error(), "in epoch "+epoch, "epoch 1000", "mandate restore --accept-rollback") != nil {
		t.Fatalf("started: %v", err)
	}
	c, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := app.AcceptRollback(t.Context(), c, "uid:1"); err != nil || out.Epoch <= 1000 {
		t.Fatalf("accepted: %+v, %v", out, err)
	}
	d.again(t)
}
