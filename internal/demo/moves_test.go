package demo

import (
	"os"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// variant reads a configuration that differs from the demonstration's.
func (d *Demo) variant(t *testing.T, name string, changes ...string) app.Config {
	t.Helper()
	text, err := os.ReadFile(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.File(name), []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := app.LoadConfig(d.File(name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serves starts the product with a configuration, asks for a token, rotates
// through it, and stops it again.
func (d *Demo) serves(t *testing.T, name string) {
	t.Helper()
	if err := os.Rename(d.File(name), d.File("mandate.yaml")); err != nil {
		t.Fatal(err)
	}
	d.again(t)
	if err := d.ask(t); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	d.stopProduct(t)
}

// A product moves from SQLite to PostgreSQL, its grants from there into Key
// Vault under a key of Key Vault's, and all of it back; it serves at each stop,
// and each move may be made twice.
func TestMoves(t *testing.T) {
	t.Parallel() // it waits for a vault's budget
	d, _ := begin(t, Config{})
	identities, admin := d.vaults(t)
	makeVaultKey(t, admin, "wrap")
	d.consent(t)
	if _, err := d.Operator.AddCaller(t.Context(), "billing"); err != nil {
		t.Fatal(err)
	}
	d.stopProduct(t)
	move := func(from, to app.Config) {
		t.Helper()
		for range 2 {
			if err := app.Move(t.Context(), from, to, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	lite := d.variant(t, "lite.yaml")
	database := "data: shared\ndatabase: {url: \"" + pgtest.Start(t).Database(t) + "\", replica: r}\naudit: {key_file: data/audit.key}\n"
	shared := d.variant(t, "shared.yaml", "data: data\n", database)
	move(lite, shared)
	d.serves(t, "shared.yaml")

	if _, err := app.NewKeyFile(d.File("keys/shared.key")); err != nil {
		t.Fatal(err)
	}
	vaulted := identities + "key: {key_vault: {" + d.vaultRef() + ", key: wrap}}\nold_keys: [{file: keys/mandate.key}]\nshared_key: {file: keys/shared.key}\n" +
		"grants: {key_vault: {" + d.vaultRef() + "}, acknowledge_shared_vault: true}\n"
	away := d.variant(t, "away.yaml", "key_file: keys/mandate.key\n", vaulted)
	move(shared, away)
	for _, f := range conform(t, away) {
		if !f.OK {
			t.Errorf("check: %s: %s", f.Subject, f.Message)
		}
	}
	d.serves(t, "away.yaml")

	home := d.variant(t, "home.yaml", "data: shared\n", "data: home\n", "database: {url", "# database: {url", "grants: {key_vault: {"+d.vaultRef()+"}, acknowledge", "grants: {database: true, former: [{key_vault: {"+d.vaultRef()+"}}], acknowledge")
	move(away, home)
	d.serves(t, "home.yaml")
	d.again(t)
	callers, err := d.Operator.Callers(t.Context())
	if err != nil || len(callers) != 1 || callers[0].ID != "billing" {
		t.Errorf("callers: %v, %v", callers, err)
	}
	st, err := d.Operator.Keys(t.Context())
	if err != nil || !strings.HasPrefix(st.Current, "https://") {
		t.Errorf("keys: %+v, %v", st, err)
	}
	// A key in Key Vault is rotated there, and everything follows.
	r, err := d.Operator.RotateKey(t.Context(), api.RotateRequest{})
	if err != nil || r.KeyID == st.Current {
		t.Fatalf("rotate: %v, %v", r, err)
	}
	if err := d.Operator.Rewrap(t.Context(), api.RewrapRequest{}, nil); err != nil {
		t.Error(err)
	}
	if st, err = d.Operator.Keys(t.Context()); err != nil || len(st.Keys) != 1 || st.Keys[0].ID != r.KeyID || st.Keys[0].Grants == 0 {
		t.Errorf("keys after a rotation: %+v, %v", st, err)
	}
}

func conform(t *testing.T, c app.Config) (all []app.Finding) {
	t.Helper()
	if err := app.CheckVaults(t.Context(), c, func(f app.Finding) { all = append(all, f) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// The checks of an operator's own places say of each what they found, and leave
// nothing behind.
func TestVaultCheck(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	d.consent(t)
	c, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := conform(t, c)
	if len(all) != 3 {
		t.Errorf("got %+v, want findings on key, database and what is stored", all)
	}
	for _, f := range all {
		if !f.OK {
			t.Errorf("%s: %s", f.Subject, f.Message)
		}
	}
	if err := contains(all[len(all)-1].Message, "not looked at: a server has the database open"); err != nil {
		t.Error(err)
	}
	if after := list(t, d.File("data")); strings.Contains(after, ".check-") {
		t.Errorf("left behind: %s", after)
	}
	d.stopProduct(t)
	if all = conform(t, c); contains(all[len(all)-1].Message, "opens in its place, and in no other") != nil {
		t.Errorf("while no server runs: %+v", all)
	}
}

func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
