package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/vault"
)

// consented starts a demonstration whose partner has consented.
func consented(t *testing.T) *Demo {
	t.Helper()
	d, _ := begin(t, Config{})
	if page := d.attempt(t, attempt{invited: User, user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	return d
}

func (d *Demo) token(ctx context.Context, audience string) (mandate.Token, error) {
	return d.Operator.Token(ctx, api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
}

// The application's expired credential changes no grant: everything works
// again as soon as the credential does.
func TestTrap01ExpiredCredentialChangesNoGrant(t *testing.T) {
	t.Parallel()
	d := consented(t)
	before, err := d.Operator.Partner(t.Context(), Partner)
	if err != nil {
		t.Fatal(err)
	}
	d.Emulator.Dial(func(d *emulator.Dials) { d.ExpiredCredentials = []string{emulator.ApplicationID} })
	asked := len(d.Emulator.TokenRequests())
	for range 50 {
		_, err := d.token(t.Context(), "graph")
		var f *mandate.Fault
		if !errors.As(err, &f) || f.Domain != mandate.DomainApplication || f.Remedy != mandate.RemedyCredential || f.CorrelationID == "" {
			t.Fatalf("got %v, %+v", err, f)
		}
	}
	if n := len(d.Emulator.TokenRequests()) - asked; n != 1 {
		t.Errorf("50 requests asked Entra %d times", n)
	}
	after, err := d.Operator.Partner(t.Context(), Partner)
	if err != nil || after.Grant == nil || after.Grant.State != mandate.StateActive || after.Grant.Generation != before.Grant.Generation {
		t.Errorf("the grant is %+v, %v", after.Grant, err)
	}
	d.Emulator.Dial(func(d *emulator.Dials) { d.ExpiredCredentials = nil })
	within(t, 15*time.Second, "service", func() bool { _, err := d.token(t.Context(), "graph"); return err == nil })
}

// A second user of the tenant takes nothing over silently, and while nobody has
// decided the first one's grant serves.
func TestTrap11SecondUserOverwritesNothing(t *testing.T) {
	t.Parallel()
	d := consented(t)
	first, err := d.token(t.Context(), "graph")
	if err != nil {
		t.Fatal(err)
	}
	if page := d.attempt(t, attempt{user: "admin2@contoso.example"}); contains(page.Text(), "Consent stored and active") == nil {
		t.Fatal("another administrator took the partner over")
	}
	tok, err := d.token(t.Context(), "graph")
	if err != nil || tok.Access.Reveal() != first.Access.Reveal() || tok.Generation != 1 {
		t.Errorf("then: generation %d, %v", tok.Generation, err)
	}
	p, err := d.Operator.Partner(t.Context(), Partner)
	if err != nil || p.Grant.UserName != User {
		t.Errorf("the grant is of %+v, %v", p.Grant, err)
	}
}

// The server that exchanges the code verifies the state: an answer of one
// browser's sign-in is worth nothing in another, or twice.
func TestTrap12StateIsVerifiedByTheServer(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	in, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := len(d.Emulator.TokenRequests())
	hc := &http.Client{Transport: d.Emulator.Client().Transport}
	for _, form := range []url.Values{
		{"code": {"stolen"}, "state": {"made-up"}}, {"code": {"stolen"}}, {"code": {"stolen"}, "state": {""}}, {},
	} {
		resp, err := hc.PostForm(d.Portal+"/consent/callback/emulator", form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if n := len(d.Emulator.TokenRequests()); n != asked {
		t.Errorf("a code without its state was redeemed: %d requests", n-asked)
	}
	if page := d.follow(t, in.Link, attempt{user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Errorf("the invitation afterwards: %q", page.Text())
	}
}

// What Microsoft said reaches whoever must act: code, text, correlation id.
func TestTrap16ErrorBodyIsKept(t *testing.T) {
	t.Parallel()
	d := consented(t)
	d.Emulator.Dial(func(d *emulator.Dials) {
		d.Refusals = []fault.Refusal{{Code: 53003, Grant: "refresh_token"}}
	})
	_, err := d.token(t.Context(), "graph")
	var f *mandate.Fault
	if !errors.As(err, &f) || f.Code() != 53003 || f.CorrelationID == "" || f.TraceID == "" || !strings.Contains(f.Description, "AADSTS53003") {
		t.Fatalf("got %v: %+v", err, f)
	}
	if _, last := d.records(t); last.Correlation != f.CorrelationID || !strings.Contains(last.Reason, "53003") {
		t.Errorf("the record says %q with correlation id %q", last.Reason, last.Correlation)
	}
}

// Who is late, and has lost the turn to another, neither frees that one's turn
// nor overwrites what that one stored (traps 4 and 5).
func TestTrap04LateOwnerFreesNothing(t *testing.T)      { lateOwner(t) }
func TestTrap05LateOwnerOverwritesNothing(t *testing.T) { lateOwner(t) }

func lateOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	f.inVault(t, func(v *vault.SQL) error {
		ctx := t.Context()
		g, err := v.Open(ctx, contosoKey(t))
		if err != nil {
			return err
		}
		epoch := f.epoch(t)
		want := mandate.Wanted{Key: mandate.TokenKey{Grant: g.Key, Generation: g.Generation, Tenant: g.Key.Partner, Audience: "https://late.example"}, Since: g.Since}
		late, _, err := v.Take(ctx, want)
		if err != nil {
			return err
		}
		f.exec(t, "UPDATE turns SET lease = 0")
		next, _, err := v.Take(ctx, want)
		if err != nil || next.Fence <= late.Fence || next.Owner == late.Owner {
			return fmt.Errorf("the next owner has %+v after %+v, %w", next, late, err)
		}
		if err := v.Release(ctx, late); err != nil {
			return err
		}
		if err := v.Extend(ctx, late); !errors.Is(err, mandate.ErrSuperseded) {
			return fmt.Errorf("the late one extended its turn: %w", err)
		}
		if err := v.Extend(ctx, next); err != nil {
			return fmt.Errorf("the late one freed the next one's turn: %w", err)
		}
		keep := mandate.Keep{Grant: g, Epoch: epoch, Turn: next, Next: mandate.NewSecret("newer")}
		if err := v.Keep(ctx, keep); err != nil {
			return err
		}
		keep.Turn, keep.Next = late, mandate.NewSecret("older")
		if err := v.Keep(ctx, keep); err == nil {
			return errors.New("the late one overwrote what was stored")
		}
		got, err := v.Open(ctx, g.Key)
		if err != nil || got.Refresh.Reveal() != "newer" {
			return fmt.Errorf("stored is %q, %w", got.Refresh.Reveal(), err)
		}
		return nil
	})
}

// exec executes a statement in the replicas' database, as somebody else would.
func (f *fleet) exec(t *testing.T, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) epoch(t *testing.T) (n int64) {
	t.Helper()
	db, err := sql.Open("pgx", f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT epoch FROM head").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Every token that replicas share is sealed, for the first audience, the second
// and a customer's tenant: none is anywhere in the database in the clear.
func TestTrap06SecondAudienceIsSealedToo(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	var canaries []string
	for _, ask := range []struct{ audience, tenant string }{
		{"graph", ""}, {"arm", ""}, {"partnercenter", ""}, {"graph", emulator.AdatumTenant},
	} {
		tok, err := f.replicas[0].ask(t.Context(), ask.audience, ask.tenant)
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, tok.Access.Reveal())
	}
	f.inVault(t, func(v *vault.SQL) error {
		g, err := v.Open(t.Context(), contosoKey(t))
		canaries = append(canaries, g.Refresh.Reveal())
		return err
	})
	text := f.dump(t)
	if !strings.Contains(text, emulator.ContosoTenant) {
		t.Fatal("the dump is empty")
	}
	for i, c := range canaries {
		for _, part := range []string{c, c[len(c)/2:], c[:len(c)/2], fmt.Sprintf("%x", c)} {
			if strings.Contains(text, part) {
				t.Errorf("token %d is in the database", i)
			}
		}
	}
}

// dump returns every row of every table as text.
func (f *fleet) dump(t *testing.T) string {
	t.Helper()
	db, err := sql.Open("pgx", f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	names, err := db.QueryContext(t.Context(), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	var b strings.Builder
	for _, name := range tables {
		rows, err := db.QueryContext(t.Context(), `SELECT to_jsonb(x)::text FROM "`+name+`" x`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			b.WriteString(line + "\n")
		}
		rows.Close()
	}
	return b.String()
}
