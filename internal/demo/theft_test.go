package demo

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

var writeTheft = flag.Bool("theft", false, "write the table of the theft drill into SECURITY.md")

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// artefacts are what can be stolen, by what people call it: files by name.
type artefacts map[string]map[string][]byte

// The names of artefacts, in the order of the table.
var thefts = []string{"database", "key file", "application certificate", "configuration", "backup", "logs", "audit log"}

// runs makes a system that has been used: consents, a fall-back, callers,
// tokens, calls, failures, a backup.
func (d *Demo) runs(t *testing.T) (backup string) {
	t.Helper()
	for range 2 { // the second leaves a fall-back
		d.consent(t)
	}
	secret, err := d.Operator.AddCaller(t.Context(), "demo-service")
	if err != nil {
		t.Fatal(err)
	}
	service, err := api.NewClient(d.API, d.Emulator.Client(), "demo-service", secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, audience := range []string{"graph", "partnercenter", "arm"} {
		if _, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: "nothing"}); err == nil {
		t.Error("a purpose that no rule names was allowed")
	}
	if _, err := d.Operator.Call(t.Context(), api.CallRequest{Partner: Partner, Audience: "partnercenter", Method: "GET", Path: "/v1/customers", Purpose: Purpose}); err != nil {
		t.Fatal(err)
	}
	return d.backUp(t)
}

// steal takes everything from a running system.
func (d *Demo) steal(t *testing.T, log, backup string) (artefacts, map[string][]byte) {
	t.Helper()
	whole := map[string][]byte{"log": []byte(log)}
	err := filepath.WalkDir(d.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(d.Dir, path)
		if err == nil {
			whole[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if whole["backup"], err = os.ReadFile(backup); err != nil {
		t.Fatal(err)
	}
	all := make(artefacts)
	for kind, names := range map[string][]string{
		"database": {"data/mandate.db", "data/mandate.db-wal", "data/mandate.db-shm"}, "key file": {"keys/mandate.key"},
		"application certificate": {"application.pem"}, "configuration": {"mandate.yaml", "rules.yaml", "ca.pem", "server.pem"},
		"backup": {"backup"}, "logs": {"log"}, "audit log": {"data/audit/00000000000000000000.log"},
	} {
		all[kind] = make(map[string][]byte)
		for _, n := range names {
			if data, ok := whole[n]; ok {
				all[kind][n] = data
			}
		}
	}
	return all, whole
}

// An outcome is what a thief has, and what is to be done about it.
type outcome struct{ gets, until, recover string }

// outcomes, from the worst.
var (
	everything = outcome{"**every grant**: the refresh tokens open, and redeem with the application's credential", "until the credential is replaced; access tokens that were redeemed before, for some 90 minutes more",
		"replace the application's credential in Entra and here; `mandate key rotate --compromised`; have every grant renewed"}
	liveTokens = outcome{"the access tokens that replicas share, and refresh tokens in the clear, which redeem for nobody without the application's credential", "the access tokens until they expire, some 90 minutes at most; the refresh tokens 90 days after each was last redeemed, if the credential is stolen later",
		"nothing takes the access tokens back; `mandate key rotate --compromised`, which lists the grants to renew; replace the application's credential"}
	clearTokens = outcome{"refresh tokens in the clear, which redeem for nobody without the application's credential", "90 days after each was last redeemed, if the credential is stolen later",
		"`mandate key rotate --compromised`, which lists the grants to renew; replace the application's credential"}
	asApplication = outcome{"what Microsoft gives the application by itself, without any partner's token (app-only): a partner's customers and their orders at Partner Center, and names of tenants and subscriptions at ARM; no user, nothing of Graph or Key Vault", "until the credential is replaced; an access token for some 90 minutes more",
		"replace the application's credential; the grants stay. Level 2 keeps it where it cannot be copied"}
	aKey = outcome{"a key, and nothing that it opens", "for as long as there are copies of the database and backups that it opens",
		"`mandate key rotate --compromised`; destroy the backups that the key opens"}
	sealedTokens = outcome{"names of partners, users and callers; hashes; sealed tokens, none of which opens", "as long as the key is kept apart", "nothing must be changed; names are out"}
	facts        = outcome{"names, times, addresses; no secret", "–", "nothing must be changed; names are out"}
)

// outcome says which of them a loot is.
func (l *loot) outcome() outcome {
	switch {
	case len(l.delegated) > 0 && len(l.appOnly) > 0:
		return everything
	case len(l.delegated) > 0:
		return liveTokens
	case l.opened > 0 || l.found > 0:
		return clearTokens
	case len(l.appOnly) > 0:
		return asApplication
	case l.keys > 0:
		return aKey
	case l.sealed > 0:
		return sealedTokens
	}
	return facts
}

// combinations are the singles and pairs of what there is to steal.
func combinations(all artefacts) [][]string {
	var out [][]string
	for i, a := range thefts {
		if len(all[a]) == 0 {
			continue
		}
		out = append(out, []string{a})
		for _, b := range thefts[i+1:] {
			if len(all[b]) > 0 {
				out = append(out, []string{a, b})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b []string) int { return len(a) - len(b) })
	return out
}

// A row of the table: who all have the same outcome.
type theftRow struct {
	outcome
	who []string
}

// drill attacks with every single, every pair, and the whole directory.
func (d *Demo) drill(t *testing.T, level int, all artefacts, whole map[string][]byte) (rows []theftRow) {
	t.Helper()
	by := make(map[outcome][]string)
	for _, c := range combinations(all) {
		files := make(map[string][]byte)
		for _, a := range c {
			maps.Copy(files, all[a])
		}
		l := d.attack(t, files)
		// Only what replicas share is usable by itself, while it lives.
		live := level == replicated && slices.Contains(c, "key file") && slices.Contains(c, "database")
		if live != (len(l.delegated) > 0) || live != (l.shared > 0) {
			t.Errorf("%s alone: %v answered as a partner's user; %d shared tokens", strings.Join(c, " and "), l.delegated, l.shared)
		}
		if certificate := slices.Contains(c, "application certificate") && level != 2; certificate != (len(l.appOnly) > 0) {
			t.Errorf("level %d, %s alone: %v answered the application", level, strings.Join(c, " and "), l.appOnly)
		}
		if l.found > 0 {
			t.Errorf("%s: %d secrets in the clear", strings.Join(c, " and "), l.found)
		}
		// That sealed tokens open takes their key; what is claimed is just that.
		hasKey, hasSealed := slices.Contains(c, "key file"), slices.Contains(c, "database") || slices.Contains(c, "backup")
		if (l.opened > 0) != (hasKey && hasSealed) {
			t.Errorf("%s: %d sealed tokens open", strings.Join(c, " and "), l.opened)
		}
		if hasSealed && !hasKey && l.sealed == 0 {
			t.Errorf("%s: there is no sealed token to open, so nothing was tried", strings.Join(c, " and "))
		}
		by[l.outcome()] = append(by[l.outcome()], strings.Join(c, " + "))
	}
	l := d.attack(t, whole)
	t.Logf("the whole directory: %+v", l)
	if level == 2 && (l.opened > 0 || len(l.delegated) > 0 || len(l.appOnly) > 0 || l.found > 0) {
		t.Errorf("level 2: the whole directory gives %+v", l)
	}
	by[l.outcome()] = append(by[l.outcome()], "**the whole directory, with backup and logs**")
	for _, o := range []outcome{everything, liveTokens, asApplication, clearTokens, aKey, sealedTokens, facts} {
		if len(by[o]) > 0 {
			rows = append(rows, theftRow{o, by[o]})
		}
	}
	return rows
}

// Whatever of a running system is stolen, it gives what SECURITY.md says. No
// one artefact and no pair gives the use of a grant, and none without the key
// opens one. What is not ours to prevent at level 1, where key and credential
// lie beside the data, is that Microsoft serves the application by itself. At
// level 2, where both are in Key Vault, the whole directory gives nothing.
func TestTheft(t *testing.T) {
	var table strings.Builder
	for _, level := range []int{1, replicated, 2} {
		d, log := begin(t, Config{Idle: true})
		url := ""
		switch level {
		case 2:
			d.raise(t)
		case replicated:
			url = d.share(t)
		}
		if err := d.serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		backup := d.runs(t)
		all, whole := d.steal(t, log.String(), backup)
		if url != "" {
			whole["pg_dump"] = dumpPostgres(t, url)
			all["database"] = map[string][]byte{"pg_dump": whole["pg_dump"]}
		}
		for _, a := range thefts {
			// At level 2 there is no key file, and what replicas log is in the
			// database that they share.
			if len(all[a]) == 0 && !(level == 2 && a == "key file") && !(level == replicated && a == "audit log") {
				t.Errorf("level %d: there is no %s to steal", level, a)
			}
		}
		rows := d.drill(t, level, all, whole)
		writeRows(&table, level, rows)
		worst := rows[0].outcome
		if level != 2 && worst != everything {
			t.Errorf("level 1: the whole directory gives %q: the attacker does not know its trade", worst.gets)
		}
	}
	fmt.Print(table.String())
	documented(t, table.String())
}

// replicated is level 1 where replicas share a database.
const replicated = 10

// share brings a demonstration that is idle to PostgreSQL, where access tokens
// are shared, too. It returns the database's URL.
func (d *Demo) share(t *testing.T) (url string) {
	t.Helper()
	if _, err := app.NewKeyFile(d.File("keys/mandate.key")); err != nil {
		t.Fatal(err)
	}
	url = pgtest.Start(t).Database(t)
	if err := audit.WriteKey(d.File("keys/audit.key"), "demo/audit"); err != nil {
		t.Fatal(err)
	}
	replaceIn(t, d.File("mandate.yaml"), "data: data\n", "data: data\ndatabase: {url: \""+url+"\", replica: r}\naudit: {key_file: keys/audit.key}\n")
	return url
}

// dumpPostgres is pg_dump, in our own format: every table that has anything of
// a grant's in it.
func dumpPostgres(t *testing.T, url string) []byte {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{URL: url, Schemas: app.Schemas()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f, err := os.CreateTemp(t.TempDir(), "dump")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := db.Dump(t.Context(), append(store.Tables(), vault.Grants(), turnsTable), f); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var levels = map[int]string{
	1:          "Level 1, embedded: key file and certificate lie beside the data",
	replicated: "Level 1, with replicas that share PostgreSQL: the database is a copy of it, and the backup has no shared tokens",
	2:          "Level 2: the key that wraps and the application's key are in Key Vault, and the server's identity there is the machine's (no credential in the directory)",
}

func writeRows(b *strings.Builder, level int, rows []theftRow) {
	fmt.Fprintf(b, "%s:\n\n| stolen | gives | for how long | how to recover |\n|---|---|---|---|\n", levels[level])
	for _, r := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", strings.Join(r.who, "; "), r.gets, r.until, r.recover)
	}
	b.WriteString("\n")
}

const (
	theftBegin = "<!-- what TestTheft found; go test ./internal/demo -run 'TestTheft$' -theft writes it -->\n\n"
	theftEnd   = "<!-- end of what TestTheft found -->\n"
)

// documented holds SECURITY.md against what happened.
func documented(t *testing.T, table string) {
	t.Helper()
	const path = "../../SECURITY.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), theftBegin)
	old, after, ok2 := strings.Cut(rest, theftEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	if old == table {
		return
	}
	if !*writeTheft {
		t.Errorf("%s says something else than what happened:\n%s", path, old)
		return
	}
	if err := os.WriteFile(path, []byte(before+theftBegin+table+theftEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
