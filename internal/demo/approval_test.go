package demo

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/policy"
)

// open returns a client of nobody, of the API at a URL.
func (d *Demo) open(t *testing.T, url string) *api.Client {
	t.Helper()
	open, err := api.NewOpenClient(url, d.Emulator.Client())
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// signedIn returns a client of somebody who has signed in.
func (d *Demo) signedIn(t *testing.T, redirect string, came <-chan url.Values, user string) *api.Client {
	t.Helper()
	return d.open(t, d.API).WithSession(d.session(t, redirect, came, user))
}

// session signs somebody in.
func (d *Demo) session(t *testing.T, redirect string, came <-chan url.Values, user string) mandate.Secret {
	t.Helper()
	open := d.open(t, d.API)
	idToken, err := d.signInAs(t, open, redirect, came, user)
	if err != nil {
		t.Fatal(err)
	}
	in, err := open.FinishSignIn(t.Context(), idToken)
	if err != nil {
		t.Fatal(err)
	}
	return mandate.NewSecret(in.Session)
}

// A caller whose rule demands a second person gets a token when somebody other
// than its owner has said yes, after a restart, too; for nothing else, and not
// when that was taken back. An operator's act waits for another's yes, and uses
// it up.
func TestApprovalByASecondPerson(t *testing.T) {
	const nora, dev = "admin@northwind.example", "dev@northwind.example"
	d, redirect, came := beginPeopled(t, fmt.Sprintf(`{object: %s, roles: [security]}, {object: %s, roles: [security]}]
  second_person: [caller rotate, policy apply`, objectOf(t, nora), objectOf(t, dev)))
	d.consent(t)
	ctx := t.Context()
	one, two := d.signedIn(t, redirect, came, nora), d.signedIn(t, redirect, came, dev)
	registered, err := one.RegisterCaller(ctx, api.CallerRequest{ID: "reports"})
	if err != nil {
		t.Fatal(err)
	}
	st, err := one.Policy(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rule := policy.File{Name: "demo.cedar", Text: `@id("two-persons") @until("2100-01-01") @scopes("consented") @customers("all") @approval("1h")
permit (principal == Caller::"reports", action, resource in Partner::"contoso")
when { context.audience == Audience::"graph" && context.purpose == Purpose::"demo" };
@id("nobody-rolls-back")
forbid (principal, action == Action::"administer", resource) when { context.act == "grant rollback" };`}
	apply := api.ApplyRequest{Files: []policy.File{rule}, After: st.Number}

	// An act: the same person, and the same act, are not enough by themselves.
	asked := func(err error) string {
		t.Helper()
		var denied *mandate.DeniedError
		if !errors.As(err, &denied) || denied.Decision.Approval == "" {
			t.Fatalf("got %v, want that a second person is asked", err)
		}
		return denied.Decision.Approval
	}
	_, err = one.ApplyPolicy(ctx, apply)
	id := asked(err)
	if _, err := one.GiveApproval(ctx, id); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("one's own act: %v", err)
	}
	if _, err := d.Operator.BreakGlass("no time").GiveApproval(ctx, id); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("a host account: %v", err)
	}
	if a, err := two.Approval(ctx, id); err != nil || a.Act != "policy apply" || !strings.Contains(a.Detail, policy.Source(apply.Files).Version()) {
		t.Errorf("shown: %+v, %v", a, err)
	}
	if _, err := two.GiveApproval(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := two.ApplyPolicy(ctx, apply); asked(err) == id {
		t.Error("the yes to another's act was used")
	}
	if _, err := one.ApplyPolicy(ctx, apply); err != nil {
		t.Fatal(err)
	}
	if _, err := one.RotateCaller(ctx, "reports", api.RotateCallerRequest{}); asked(err) == "" {
		t.Error("nobody is asked")
	}
	if _, err := one.Act(ctx, "contoso", "rollback", api.ActRequest{}); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "nobody-rolls-back") {
		t.Errorf("what a rule forbids: %v", err)
	}

	// A request.
	token := func(ticket string) error {
		caller, err := api.NewClient(d.API, d.Emulator.Client(), "reports", mandate.NewSecret(registered.Secret))
		if err == nil {
			_, err = caller.Token(ctx, api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose, Ticket: ticket})
		}
		return err
	}
	id = asked(token("INC-1"))
	if again := asked(token("INC-1")); again != id {
		t.Errorf("asked twice: %s and %s", id, again)
	}
	if _, err := one.GiveApproval(ctx, id); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("the owner's yes: %v", err)
	}
	if _, err := two.GiveApproval(ctx, id); err != nil {
		t.Fatal(err)
	}
	if err := token("INC-1"); err != nil {
		t.Errorf("with the yes: %v", err)
	}
	if _, last := d.records(t); last.Kind != mandate.KindIssued || last.Approval != id {
		t.Errorf("recorded %+v", last)
	}
	if other := asked(token("INC-2")); other == id {
		t.Error("the yes is for another ticket, too")
	}
	d.stopProduct(t)
	d.again(t)
	if err := token("INC-1"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := d.Operator.WithdrawApproval(ctx, id); err != nil {
		t.Fatal(err)
	}
	again := asked(token("INC-1"))
	if again == id {
		t.Error("the yes that was taken back counts")
	}

	// What comes out of a database that was put right by hand is asked again:
	// nobody can tell who has agreed to it.
	if _, err := two.GiveApproval(ctx, again); err != nil {
		t.Fatal(err)
	}
	d.stopProduct(t)
	text, err := os.ReadFile(d.File("data/epoch"))
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(text), " ")
	if err := os.WriteFile(d.File("data/epoch"), []byte("1000 "+key), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := app.LoadConfig(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.AcceptRollback(ctx, c, "uid:1"); err != nil {
		t.Fatal(err)
	}
	d.again(t)
	if all, err := d.Operator.Approvals(ctx); err != nil || len(all) != 0 {
		t.Errorf("after the rollback was accepted: %+v, %v", all, err)
	}
}
