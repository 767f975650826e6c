package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// ask asks for a token as the operator.
func (d *Demo) ask(t *testing.T) error {
	t.Helper()
	_, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
	return err
}

// A lockdown stops every token, in memory or not, and says whose move it is.
func TestLockdown(t *testing.T) {
	d, _ := begin(t, Config{})
	d.consent(t)
	if err := d.ask(t); err != nil {
		t.Fatal(err)
	}
	st, err := d.Operator.Lock(t.Context(), api.LockRequest{Reason: "a laptop was stolen"})
	if err != nil || !st.Locked || st.Alive == nil || *st.Alive == 0 || st.Until.IsZero() {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := d.ask(t); !errors.Is(err, mandate.ErrLocked) || contains(err.Error(), "a laptop was stolen", "mandate lockdown off", "uid:") != nil {
		t.Errorf("in a lockdown: %v", err)
	}
	if kinds, last := d.records(t); kinds[len(kinds)-1] != mandate.KindFailed || contains(last.Reason, "locked down") != nil {
		t.Errorf("recorded: %v, %+v", kinds, last)
	}
	if _, err := d.Operator.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.ask(t); err != nil {
		t.Error(err)
	}
}

// consent takes the partner's consent.
func (d *Demo) consent(t *testing.T) {
	t.Helper()
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Fatal(p.Text())
	}
}

// backUp makes a backup of the running product.
func (d *Demo) backUp(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "backup")
	var b bytes.Buffer
	if err := d.Operator.Backup(t.Context(), filepath.Dir(path), &b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// again starts the product anew.
func (d *Demo) again(t *testing.T) {
	t.Helper()
	<-d.Done // what stopProduct left
	if err := d.serve(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// restore brings a backup into the database of the configuration.
func (d *Demo) restore(t *testing.T, backup string, logs ...string) app.Restoration {
	t.Helper()
	c, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := app.Restore(t.Context(), c, backup, logs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A system that was restored serves nothing until its grants are probed and the
// lockdown is ended; and its epoch is larger than any that was seen. From
// SQLite to SQLite, and to PostgreSQL.
func TestRestore(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		d, _ := begin(t, Config{})
		d.consent(t)
		for _, id := range []string{"stays", "removed"} {
			if _, err := d.Operator.AddCaller(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		backup := d.backUp(t)
		if err := d.ask(t); err != nil {
			t.Fatal(err)
		}
		if err := d.Operator.RemoveCaller(t.Context(), "removed"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Operator.AddCaller(t.Context(), "later"); err != nil {
			t.Fatal(err)
		}
		d.stopProduct(t)
		_, last := lastRecord(t, d.File("data/audit"))
		change := "data: restored\n"
		if engine == "PostgreSQL" {
			change += "database: {url: \"" + pgtest.Start(t).Database(t) + "\", replica: r}\naudit: {key_file: data/audit.key}\n"
		}
		old := d.File("data/audit")
		replaceIn(t, d.File("mandate.yaml"), "data: data\n", change)
		r := d.restore(t, backup, old)
		if r.Epoch <= last.Epoch || r.Epoch <= r.Backup.Epoch || r.Partners != 1 || len(r.Grants) != 1 || !r.Grants[0].Suspended || contains(strings.Join(r.Since, "\n"), "add caller later") != nil {
			t.Errorf("%s: %+v, after epoch %d", engine, r, last.Epoch)
		}
		d.again(t)
		if all, err := d.Operator.Callers(t.Context()); err != nil || len(all) != 1 || all[0].ID != "stays" || r.Callers != 1 {
			t.Errorf("%s: callers %+v, %v", engine, all, err)
		}
		if err := d.ask(t); !errors.Is(err, mandate.ErrLocked) || contains(err.Error(), "restored from the backup") != nil {
			t.Errorf("%s: restored: %v", engine, err)
		}
		redeemed := len(d.Emulator.TokenRequests())
		if err := d.Operator.Release(t.Context(), func(g api.ReleasedGrant) { t.Log(g) }); err != nil {
			t.Errorf("%s: finish: %v", engine, err)
		}
		if len(d.Emulator.TokenRequests()) == redeemed {
			t.Errorf("%s: nothing was probed", engine)
		}
		if err := d.ask(t); !errors.Is(err, mandate.ErrLocked) {
			t.Errorf("%s: finished, and locked down: %v", engine, err)
		}
		if _, err := d.Operator.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.ask(t); err != nil {
			t.Errorf("%s: %v", engine, err)
		}
	}
}

// What was withdrawn after a backup was made does not come back with it.
func TestRestoreWithdrawn(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	d.consent(t)
	backup := d.backUp(t)
	if _, err := d.Operator.Withdraw(t.Context(), Partner, api.WithdrawRequest{}); err != nil {
		t.Fatal(err)
	}
	d.stopProduct(t)
	replaceIn(t, d.File("mandate.yaml"), "data: data\n", "data: restored\n")
	r := d.restore(t, backup, d.File("data/audit"))
	if len(r.Grants) != 1 || r.Grants[0].Suspended || contains(r.Grants[0].Text, "was withdrawn") != nil {
		t.Errorf("%+v", r)
	}
	c, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.Restore(t.Context(), c, backup, nil); !errors.Is(err, mandate.ErrExists) {
		t.Errorf("into a database that is not empty: %v", err)
	}
	d.again(t)
	if err := d.Operator.Release(t.Context(), func(g api.ReleasedGrant) { t.Errorf("released: %+v", g) }); err != nil {
		t.Error(err)
	}
	if _, err := d.Operator.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	var none *mandate.NoGrantError
	if err := d.ask(t); !errors.As(err, &none) || none.State != mandate.StateWithdrawn {
		t.Errorf("withdrawn and restored: %v", err)
	}
}

// A restored grant that Entra no longer takes stays suspended, whatever an
// operator says.
func TestRestoreProbe(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	d.consent(t)
	backup := d.backUp(t)
	d.stopProduct(t)
	replaceIn(t, d.File("mandate.yaml"), "data: data\n", "data: restored\n")
	d.restore(t, backup)
	if err := d.Emulator.Revoke(User); err != nil {
		t.Fatal(err)
	}
	d.again(t)
	if err := d.Operator.Release(t.Context(), func(api.ReleasedGrant) {}); err == nil {
		t.Error("a grant that Entra refuses passed")
	}
	if _, err := d.Operator.Act(t.Context(), Partner, "resume", api.ActRequest{}); err == nil {
		t.Error("a grant that Entra refuses was resumed")
	}
	if _, err := d.Operator.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	var none *mandate.NoGrantError
	if err := d.ask(t); !errors.As(err, &none) || none.State != mandate.StateSuspended {
		t.Errorf("got %v", err)
	}
}

// A backup has nothing in it that opens anything: no key, no certificate, no
// access token, no sign-in; and the refresh token is sealed.
func TestBackupCanaries(t *testing.T) {
	d, _ := begin(t, Config{})
	in, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.follow(t, in.Link, attempt{user: User})
	secret, err := d.Operator.AddCaller(t.Context(), "demo-service")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
	if err != nil {
		t.Fatal(err)
	}
	canaries := append(d.fileCanaries(t, Config{}), canary{"access token", tok.Access.Reveal(), ""}, canary{"caller's secret", secret.Reveal(), ""},
		canary{"invitation", in.Link[strings.LastIndex(in.Link, "/")+1:], ""})
	path := d.backUp(t)
	var invalid *mandate.InvalidError
	if err := d.Operator.Backup(t.Context(), d.File("keys"), new(bytes.Buffer)); !errors.As(err, &invalid) {
		t.Errorf("beside the key: %v", err)
	}
	d.stopProduct(t)
	g, err := d.openVault(t, d.File("keys/mandate.key")).Open(t.Context(), contosoKey(t))
	if err != nil {
		t.Fatal(err)
	}
	canaries = append(canaries, canary{"refresh token", g.Refresh.Reveal(), ""})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range canaries {
		if bytes.Contains(data, []byte(c.value)) {
			t.Errorf("the %s is in the backup", c.what)
		}
	}
	for _, table := range []string{"sign_ins", "turns"} {
		if bytes.Contains(data, []byte(`"`+table+`"`)) {
			t.Errorf("the table %s is in the backup", table)
		}
	}
	if err := contains(string(data), `"grants"`, g.UserName); err != nil {
		t.Error(err)
	}
}

// replaceIn changes a file.
func replaceIn(t *testing.T, path string, changes ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// lastRecord returns how many records an audit log has, and the last one.
func lastRecord(t *testing.T, path string) (n int, r mandate.Record) {
	t.Helper()
	for each, err := range audit.Offline(path) {
		if err != nil {
			t.Fatal(err)
		}
		n, r = n+1, each
	}
	return n, r
}
