package demo

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/vault"
)

func contosoKey(t *testing.T) mandate.GrantKey {
	t.Helper()
	app, err := mandate.ParseAppID(emulator.ApplicationID)
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := mandate.ParseTenantID(emulator.ContosoTenant)
	if err != nil {
		t.Fatal(err)
	}
	return mandate.GrantKey{Cloud: "emulator", Application: app, Partner: tenant}
}

// openVault opens the vault of a product that is not running, with the key in
// keyFile.
func (d *Demo) openVault(t *testing.T, keyFile string) *vault.SQL {
	t.Helper()
	key, err := vault.OpenKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	db, err := database.Open(t.Context(), database.Config{
		File: d.File("data/mandate.db"), Schemas: app.Schemas(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	v, err := vault.New(vault.Config{DB: db, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// stopProduct stops the product and leaves the emulator.
func (d *Demo) stopProduct(t *testing.T) {
	t.Helper()
	d.stop()
	if err := <-d.Done; err != nil {
		t.Error(err)
	}
	d.Done <- nil // for Close
}

// A canary is a secret and where it may be.
type canary struct {
	what, value string
	in          string // the one file that has it; "" for none
}

// No secret is in a log, a page, the audit log or any file but its own, after
// successes and failures of every kind.
func TestCanaries(t *testing.T) {
	for _, cfg := range []Config{{}, {Secret: true, Version: "v1"}} {
		d, log := begin(t, cfg)
		var seen strings.Builder // what people and programs were shown
		in, err := d.Invite(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		canaries := []canary{{"invitation", in.Link[strings.LastIndex(in.Link, "/")+1:], ""}}
		fail := func(r fault.Refusal) {
			d.Emulator.Dial(func(dials *emulator.Dials) { dials.Refusals = []fault.Refusal{r} })
		}
		fail(fault.Refusal{Code: 53003, Grant: "refresh_token"})
		seen.WriteString(d.follow(t, in.Link, attempt{user: User}).Text())
		fail(fault.Refusal{Code: 7000222, Grant: "authorization_code"})
		seen.WriteString(d.follow(t, in.Link, attempt{user: User}).Text())
		d.Emulator.Dial(func(dials *emulator.Dials) { dials.Refusals = nil })
		seen.WriteString(d.follow(t, in.Link, attempt{user: User}).Text())

		secret, err := d.Operator.AddCaller(t.Context(), "demo-service")
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, canary{"caller's secret", secret.Reveal(), ""})
		service, err := api.NewClient(d.API, d.Emulator.Client(), "demo-service", secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, audience := range []string{"graph", "partnercenter", "arm"} {
			tok, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
			if err != nil {
				t.Fatal(err)
			}
			canaries = append(canaries, canary{"access token for " + audience, tok.Access.Reveal(), ""})
			canaries = append(canaries, canary{"its signature", tok.Access.Reveal()[strings.LastIndex(tok.Access.Reveal(), ".")+1:], ""})
		}
		d.Emulator.Delegate(emulator.ContosoTenant, emulator.WingtipTenant) // where the application is not consented
		for _, tenant := range []string{emulator.WingtipTenant, emulator.TailspinTenant, emulator.AdatumTenant} {
			if _, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Tenant: tenant, Audience: "graph", Purpose: Purpose}); err != nil {
				seen.WriteString(err.Error())
			}
		}
		for _, path := range []string{"/v1/customers", "/v1/customers/nobody", "https://evil.example/v1/customers"} {
			a, err := d.Operator.Call(t.Context(), api.CallRequest{Partner: Partner, Audience: "partnercenter", Method: "GET", Path: path, Purpose: Purpose})
			if err != nil {
				seen.WriteString(err.Error())
			} else {
				seen.Write(a.Body)
			}
		}
		wrong, err := api.NewClient(d.API, d.Emulator.Client(), "demo-service", mandate.NewSecret(secret.Reveal()+"x"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wrong.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose}); err == nil {
			t.Error("a wrong secret was accepted")
		} else {
			seen.WriteString(err.Error())
		}

		seen.WriteString(exports(t, d.Operator))
		shown, cookies := d.tour(t, d.Socket)
		seen.WriteString(shown)
		canaries = append(canaries, cookies...)
		d.stopProduct(t)
		g, err := d.openVault(t, d.File("keys/mandate.key")).Open(t.Context(), contosoKey(t))
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, canary{"refresh token", g.Refresh.Reveal(), ""})
		canaries = append(canaries, d.fileCanaries(t, cfg)...)
		d.search(t, canaries, log.String(), seen.String())
	}
}

// fileCanaries are the secrets that the product was given in files.
func (d *Demo) fileCanaries(t *testing.T, cfg Config) []canary {
	t.Helper()
	line := func(name string, n int) canary {
		data, err := os.ReadFile(d.File(name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if n < 0 {
			n += len(lines)
		}
		value := ""
		for _, word := range strings.Fields(lines[n]) { // the longest is the secret
			if len(word) > len(value) {
				value = word
			}
		}
		return canary{"line of " + name, value, name}
	}
	out := []canary{line("application.pem", -3), line("server.key", 1), line("keys/mandate.key", -2)}
	if cfg.Secret {
		out = append(out, line("application.secret", 0))
	}
	return out
}

// search looks for canaries in every file below the directory, in the log and
// in what was shown.
func (d *Demo) search(t *testing.T, canaries []canary, log, seen string) {
	t.Helper()
	texts := d.files(t)
	texts["(log)"], texts["(pages and answers)"] = []byte(log), []byte(seen)
	for _, name := range []string{"data/mandate.db", "data/audit/00000000000000000000.log", "keys/mandate.key"} {
		if len(texts[name]) == 0 {
			t.Errorf("there is no %s to search", name)
		}
	}
	hunt(t, canaries, texts)
}

// files returns every file below the directory.
func (d *Demo) files(t *testing.T) map[string][]byte {
	t.Helper()
	texts := make(map[string][]byte)
	err := filepath.WalkDir(d.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(d.Dir, path)
		if err != nil {
			return err
		}
		texts[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// hunt fails for a canary that is where it may not be.
func hunt(t *testing.T, canaries []canary, texts map[string][]byte) {
	t.Helper()
	for _, c := range canaries {
		if len(c.value) < 16 {
			t.Errorf("the canary of %s is %d bytes long: a bad canary", c.what, len(c.value))
		}
		for name, data := range texts {
			if name != c.in && bytes.Contains(data, []byte(c.value)) {
				t.Errorf("%s is in %s", c.what, name)
			}
		}
		if c.in != "" && !bytes.Contains(texts[c.in], []byte(c.value)) {
			t.Errorf("%s is not in %s, so nothing was tested", c.what, c.in)
		}
	}
}

// exports returns the audit log in every form.
func exports(t *testing.T, operator *api.Client) string {
	t.Helper()
	var b strings.Builder
	for _, q := range []url.Values{
		{"format": {"jsonl"}}, {"format": {"jsonl"}, "partner": {Partner}}, {"format": {"csv"}}, {"format": {"ocsf"}}, {"format": {"keys"}, "partner": {Partner}},
	} {
		before := b.Len()
		if err := operator.ExportAudit(t.Context(), &b, q); err != nil || b.Len() == before {
			t.Fatalf("export %v: %d bytes, %v", q, b.Len()-before, err)
		}
	}
	records, err := operator.Audit(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		b.Write(r)
	}
	return b.String()
}

// tour goes through the pages of the partner's people, and a renewal, and then
// reads what the product at socket tells Prometheus. It returns all that was
// shown, and the cookies, which only the browser has. The session goes on, so
// that there is one in the database.
func (d *Demo) tour(t *testing.T, socket string) (shown string, cookies []canary) {
	t.Helper()
	var seen strings.Builder
	site, err := url.Parse(d.Portal)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBrowser(d.Emulator.Client().Transport)
	v := &visitor{t: t, d: d, b: b, user: User}
	keep := func(want ...string) {
		if v.reads(want...); html.Render(&seen, v.page.root) != nil {
			t.Fatal("a page cannot be written")
		}
		for _, c := range b.http.Jar.Cookies(site) {
			if cookie := (canary{"cookie " + c.Name, c.Value, ""}); !slices.Contains(cookies, cookie) {
				cookies = append(cookies, cookie)
			}
		}
	}
	v.open("/partner").submit("tenant", emulator.ContosoTenant)
	keep()
	v.microsoft()
	keep("Active", User)
	for _, path := range []string{"/partner/usage", "/partner/usage?customer=" + emulator.AdatumTenant} {
		v.open(path)
		keep("Azure Resource Manager")
	}
	v.open("/partner/withdraw").submit("confirm", "no")
	keep("Nothing was changed")
	seen.Write(v.download(t.Context()))
	v.open("/partner/renew").submit("confirm", Partner)
	keep()
	v.microsoft()
	keep("Consent stored and active")
	if len(cookies) < 3 { // of a sign-in, of the session, of a renewal
		t.Errorf("the site set %d cookies", len(cookies))
	}
	seen.Write(metrics(t, socket))
	return seen.String(), cookies
}

// metrics returns what the product at socket tells Prometheus.
func metrics(t *testing.T, socket string) []byte {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	res, err := c.Get("http://mandate/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Contains(body, []byte("mandate_ready 1")) {
		t.Fatalf("%.100s, %v", body, err)
	}
	return body
}

// The same with PostgreSQL, where replicas share sealed tokens, and where the
// audit log is: nothing of it is in any table, column, log, page or export.
func TestCanariesPostgreSQL(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Idle: true})
	replaceIn(t, d.File("mandate.yaml"), "level: warn", "level: debug")
	f := fleetOf(t, d, 1)
	operator := f.replicas[0].client
	secret, err := operator.AddCaller(t.Context(), "demo-service")
	if err != nil {
		t.Fatal(err)
	}
	service, err := api.NewClient(f.API, f.Emulator.Client(), "demo-service", secret)
	if err != nil {
		t.Fatal(err)
	}
	canaries := append(f.fileCanaries(t, Config{}), canary{"caller's secret", secret.Reveal(), ""})
	for _, audience := range []string{"graph", "partnercenter", "arm"} {
		tok, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, canary{"access token for " + audience, tok.Access.Reveal(), ""})
	}
	if _, err := service.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: "nothing"}); err == nil {
		t.Error("a purpose that no rule names was allowed")
	}
	shown, cookies := f.tour(t, f.File("0.sock"))
	canaries = append(canaries, cookies...)
	f.inVault(t, func(v *vault.SQL) error {
		g, err := v.Open(t.Context(), contosoKey(t))
		canaries = append(canaries, canary{"refresh token", g.Refresh.Reveal(), ""})
		return err
	})
	texts := f.files(t)
	texts["(exports)"], texts["(pages and metrics)"], texts["(log)"] = []byte(exports(t, operator)), []byte(shown), []byte(f.replicas[0].log.String())
	for name, data := range everyTable(t, f.url) {
		texts["(table "+name+")"] = data
	}
	for _, name := range []string{"table audit_entries", "table audit_keys", "table grants", "table partner_sessions", "table sign_ins", "table turns", "log"} {
		if len(texts["("+name+")"]) == 0 {
			t.Errorf("there is nothing in the %s to search", name)
		}
	}
	hunt(t, canaries, texts)
}

// everyTable returns what is in a database, byte for byte.
func everyTable(t *testing.T, url string) map[string][]byte {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var names []string
	for row := range rowsOf(t, db, `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'`) {
		names = append(names, string(row[0]))
	}
	out := make(map[string][]byte)
	for _, name := range names {
		for row := range rowsOf(t, db, `SELECT * FROM "`+name+`"`) {
			out[name] = append(out[name], bytes.Join(row, []byte("\n"))...)
		}
	}
	return out
}

// rowsOf returns the rows of a query, as bytes.
func rowsOf(t *testing.T, db *sql.DB, query string) iter.Seq[[][]byte] {
	return func(yield func([][]byte) bool) {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		columns, err := rows.Columns()
		for err == nil && rows.Next() {
			cells, into := make([][]byte, len(columns)), make([]any, len(columns))
			for i := range cells {
				into[i] = &cells[i]
			}
			if err = rows.Scan(into...); err == nil && !yield(cells) {
				return
			}
		}
		if err = errors.Join(err, rows.Err()); err != nil {
			t.Fatal(err)
		}
	}
}

// The database file without the key file yields nothing.
func TestStolenDatabase(t *testing.T) {
	d, _ := begin(t, Config{})
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Fatal(p.Text())
	}
	d.stopProduct(t)
	thief := filepath.Join(t.TempDir(), "thief")
	if err := os.Mkdir(thief, 0o700); err != nil {
		t.Fatal(err)
	}
	v := d.openVault(t, filepath.Join(thief, "key")) // a key of the thief's own
	if _, err := v.Head(t.Context(), contosoKey(t)); err != nil {
		t.Errorf("what is not secret: %v", err)
	}
	if g, err := v.Open(t.Context(), contosoKey(t)); err == nil || !g.Refresh.IsZero() || contains(err.Error(), "key file") != nil {
		t.Errorf("opened with another key: %v", err)
	}
}
