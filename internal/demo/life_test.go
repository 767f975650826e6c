package demo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

const secondUser = "admin2@contoso.example"

// userOf returns the UPN of whom an access token was issued to.
func userOf(t *testing.T, tok mandate.Token) string {
	t.Helper()
	parts := strings.Split(tok.Access.Reveal(), ".")
	if len(parts) != 3 {
		t.Fatal("the access token is no JWT")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		UPN string `json:"upn"`
	}
	unmarshal(t, claims, &c)
	return c.UPN
}

// A suspended grant serves nothing from the moment that the command returns,
// and nothing of before when it serves again.
func TestSuspendDropsTokensAtOnce(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	first, err := d.token(ctx, "graph")
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Operator.Act(ctx, Partner, "suspend", api.ActRequest{Ticket: "INC-7"})
	if err != nil || a.Partner.Grant.State != mandate.StateSuspended {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := d.token(ctx, "graph"); !errors.Is(err, mandate.ErrNoGrant) || contains(err.Error(), "suspended") != nil {
		t.Errorf("while suspended: %v", err)
	}
	// The partner cannot undo that by itself.
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Proven, and waiting", "suspended") != nil {
		t.Errorf("a consent meanwhile: %q", p.Text())
	}
	if _, err := d.token(ctx, "graph"); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("after a consent meanwhile: %v", err)
	}
	if _, err := d.Operator.Act(ctx, Partner, "resume", api.ActRequest{}); err != nil {
		t.Fatal(err)
	}
	again, err := d.token(ctx, "graph")
	if err != nil || again.Access.Reveal() == first.Access.Reveal() || again.Generation != 1 {
		t.Errorf("after resuming: %+v, %v", again, err)
	}
	if _, err := d.Operator.Act(ctx, Partner, "resume", api.ActRequest{}); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("resuming what serves: %v", err)
	}
}

// Another user's consent replaces nothing until an operator says so, and then
// no token of the user before is served (traps 2 and 11).
func TestApproveAnotherUser(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	old, err := d.token(ctx, "graph")
	if err != nil || userOf(t, old) != User {
		t.Fatalf("%+v, %v", old, err)
	}
	if p := d.attempt(t, attempt{user: secondUser}); contains(p.Text(), "Proven, and waiting") != nil {
		t.Fatalf("the second user's page: %q", p.Text())
	}
	if kinds, last := d.records(t); last.Kind != mandate.KindStaged || last.Generation != 2 {
		t.Errorf("records %v, the last %+v", kinds, last)
	}
	if tok, err := d.token(ctx, "graph"); err != nil || tok.Access.Reveal() != old.Access.Reveal() {
		t.Errorf("while it waits: %v, or another token", err)
	}
	troubles, err := d.Operator.Forecast(ctx)
	if err != nil || !slices.ContainsFunc(troubles, func(f mandate.Trouble) bool {
		return f.Kind == mandate.TroubleCandidate && f.Move == mandate.MoveOperator
	}) {
		t.Errorf("forecast while it waits: %+v, %v", troubles, err)
	}
	all, err := d.Operator.Grants(ctx)
	if err != nil || len(all) != 1 || all[0].Candidate == nil || all[0].Candidate.UserName != secondUser || all[0].Grant.UserName != User {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := d.Operator.Decide(ctx, Partner, "approve", api.DecideRequest{Generation: 3}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("another generation than the one that waits: %v", err)
	}
	a, err := d.Operator.Decide(ctx, Partner, "approve", api.DecideRequest{Generation: 2, Ticket: "CHG-1"})
	if err != nil || a.Partner.Grant.UserName != secondUser || a.Partner.Candidate != nil || a.Partner.Fallback != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	// The invitation is still open, and nobody has to use it any more.
	troubles, err = d.Operator.Forecast(ctx)
	if err != nil || slices.ContainsFunc(troubles, func(f mandate.Trouble) bool {
		return f.Kind == mandate.TroubleInvitation || f.Kind == mandate.TroubleCandidate
	}) {
		t.Errorf("forecast %+v, %v", troubles, err)
	}
	for range 3 {
		tok, err := d.token(ctx, "graph")
		if err != nil || userOf(t, tok) != secondUser || tok.Generation != 2 {
			t.Fatalf("after approval: %s's, %+v, %v", userOf(t, tok), tok, err)
		}
	}
}

// What was lost since a consent was proven is noticed before it is activated.
func TestApproveProvesAgain(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	d.attempt(t, attempt{user: secondUser})
	d.Emulator.Dial(func(d *emulator.Dials) { d.MFAVerdict = "absent" })
	var r *mandate.Refusal
	if _, err := d.Operator.Decide(ctx, Partner, "approve", api.DecideRequest{Generation: 2}); !errors.As(err, &r) || r.Reason != mandate.ReasonMFA {
		t.Errorf("got %v", err)
	}
	if tok, err := d.token(ctx, "graph"); err != nil || userOf(t, tok) != User {
		t.Errorf("%v", err)
	}
	a, err := d.Operator.Decide(ctx, Partner, "discard", api.DecideRequest{Generation: 2})
	if err != nil || a.Partner.Candidate != nil {
		t.Errorf("%+v, %v", a, err)
	}
	h, err := d.Operator.History(ctx, Partner)
	if err != nil || len(h.Generations) != 2 || h.Generations[0].State != mandate.StateDiscarded {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestRollbackToTheGenerationBefore(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Fatal(p.Text())
	}
	newer, err := d.token(ctx, "graph")
	if err != nil || newer.Generation != 2 {
		t.Fatalf("%+v, %v", newer, err)
	}
	a, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{})
	if err != nil || a.Partner.Grant.Generation != 1 || a.Partner.Fallback != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	if tok, err := d.token(ctx, "graph"); err != nil || tok.Generation != 1 || tok.Access.Reveal() == newer.Access.Reveal() {
		t.Errorf("%+v, %v", tok, err)
	}
	if _, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{}); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	// Nothing that was suspended stands in for anything.
	d.attempt(t, attempt{invited: User, user: User})
	for _, act := range []string{"suspend", "resume"} {
		if _, err := d.Operator.Act(ctx, Partner, act, api.ActRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{}); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("past a suspension: %v", err)
	}
}

// What a renewal after the user's account was compromised replaces is gone at
// once: whoever had the account may have what came of it.
func TestCompromisedRenewalHasNoFallback(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	in, err := d.Operator.Invite(ctx, api.InviteRequest{Name: Partner, Tenant: emulator.ContosoTenant, User: User, Compromised: true})
	if err != nil {
		t.Fatal(err)
	}
	if p := d.follow(t, in.Link, attempt{user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Fatal(p.Text())
	}
	p, err := d.Operator.Partner(ctx, Partner)
	if err != nil || p.Grant.Generation != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{}); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("rolled back: %v", err)
	}
	if tok, err := d.token(ctx, "graph"); err != nil || tok.Generation != 2 {
		t.Errorf("%+v, %v", tok, err)
	}
}

// permit gives the application one more permission on Graph, which the next
// consent includes.
func (d *Demo) permit(t *testing.T, scope string) {
	t.Helper()
	a, _ := d.Emulator.Application(emulator.ApplicationID)
	for i := range a.Access {
		if a.Access[i].Resource == emulator.Graph {
			a.Access[i].Scopes = append(slices.Clone(a.Access[i].Scopes), scope)
		}
	}
	if err := d.Emulator.Register(a); err != nil {
		t.Fatal(err)
	}
}

// The report says "revoked" only after Entra refused the token.
func TestWithdrawReportsWhatIsTrue(t *testing.T) {
	for name, tt := range map[string]struct {
		permit   bool
		ask      bool
		upstream mandate.Result
		revoked  bool
	}{
		"not asked":     {true, false, mandate.ResultNotAsked, false},
		"ended":         {true, true, mandate.ResultDone, true},
		"not permitted": {false, true, mandate.ResultNotPermitted, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := begin(t, Config{})
			ctx := t.Context()
			if tt.permit {
				d.permit(t, "Directory.AccessAsUser.All")
			}
			if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
				t.Fatal(p.Text())
			}
			if _, err := d.token(ctx, "graph"); err != nil {
				t.Fatal(err)
			}
			out, err := d.Operator.Withdraw(ctx, Partner, api.WithdrawRequest{EndSessions: tt.ask})
			if err != nil {
				t.Fatal(err)
			}
			r := out.Report
			if r.Local.Result != mandate.ResultDone || r.Upstream.Result != tt.upstream || r.Revoked != tt.revoked || r.Alive != 1 || r.Tokens.Result != mandate.ResultNotPermitted || r.UserName != User {
				t.Errorf("report %+v", r)
			}
			text, _ := json.Marshal(out)
			if _, last := d.records(t); strings.Contains(string(text), "it is revoked") != tt.revoked || strings.Contains(last.Detail, "revoked") != tt.revoked {
				t.Errorf("revoked is %v, and the report says %s, the record %q", tt.revoked, text, last.Detail)
			}
			t.Logf("upstream: %s", r.Upstream.Text)
			t.Logf("copies: %s", r.Copies.Text)
			alive := slices.ContainsFunc(d.Emulator.RefreshTokens(), func(rt emulator.RefreshToken) bool { return !rt.Revoked })
			if alive == tt.revoked {
				t.Errorf("Entra takes some refresh token: %v, and the report says revoked: %v", alive, tt.revoked)
			}
			if _, err := d.token(ctx, "graph"); !errors.Is(err, mandate.ErrNoGrant) {
				t.Errorf("a token afterwards: %v", err)
			}
			if _, err := d.Operator.Withdraw(ctx, Partner, api.WithdrawRequest{}); !errors.Is(err, mandate.ErrNoGrant) {
				t.Errorf("twice: %v", err)
			}
		})
	}
}

// What breaks next, and the metrics, over the operator's socket and at the door
// that is configured for them.
func TestForecastAndMetrics(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Idle: true, Secret: true})
	ctx := t.Context()
	config, err := os.ReadFile(d.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), "secret: application.secret", "secret: application.secret, secret_expires: "+time.Now().AddDate(0, 1, 0).Format(time.DateOnly), 1)
	if err := os.WriteFile(d.File("mandate.yaml"), []byte(text+"metrics: {listen: \"127.0.0.1:0\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.serve(context.WithoutCancel(ctx)); err != nil {
		t.Fatal(err)
	}
	d.attempt(t, attempt{invited: User, user: User})
	if _, err := d.token(ctx, "graph"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Invite(ctx); err != nil {
		t.Fatal(err)
	}
	all, err := d.Operator.Forecast(ctx)
	var kinds []string
	for _, f := range all {
		kinds = append(kinds, f.Kind)
	}
	// The invitation lasts three days, the secret a month, the grant a year.
	if want := []string{mandate.TroubleInvitation, mandate.TroubleCredential, mandate.TroubleEnd}; err != nil || !slices.Equal(kinds, want) {
		t.Errorf("forecast %v, %v, want %v", kinds, err, want)
	}
	overSocket := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
	}}}
	for url, c := range map[string]*http.Client{"http://mandate/metrics": &overSocket, "http://" + d.app.Address("metrics").String() + "/metrics": http.DefaultClient} {
		res, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		for _, want := range []string{"mandate_ready 1", `mandate_grants{state="active"} 1`, `mandate_token_requests_total{outcome="issued"} 1`, `mandate_grant_end_timestamp_seconds{partner="contoso"}`} {
			if !strings.Contains(string(body), want) {
				t.Errorf("%s lacks %s:\n%.2000s", url, want, body)
			}
		}
	}
}
