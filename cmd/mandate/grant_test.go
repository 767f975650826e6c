package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// The grants of the small world: contoso's is active, with a candidate that
// waits; fabrikam never consented. What a ticket says decides how it ends.
func (w *smallWorld) Grants(ctx context.Context, _ mandate.TenantID) ([]mandate.Grant, error) {
	active, err := w.Head(ctx, contoso.Key)
	active.Due = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
	candidate := active
	candidate.Generation, candidate.State, candidate.UserName = 4, mandate.StateCandidate, "bob@contoso.test"
	candidate.Fallback = time.Date(2998, 1, 2, 0, 0, 0, 0, time.UTC)
	replaced := active
	replaced.Generation, replaced.State = 2, mandate.StateReplaced
	return []mandate.Grant{candidate, active, replaced}, err
}

func (w *smallWorld) Window() time.Duration { return 90 * 24 * time.Hour }

func (w *smallWorld) act(ctx context.Context, p mandate.Partner, by mandate.By, what string) (mandate.Receipt, error) {
	if err := outcomes[by.Ticket]; err != nil {
		return mandate.Receipt{}, err
	}
	return w.Record(ctx, mandate.Record{Kind: mandate.KindChanged, Caller: by.Caller, Ticket: by.Ticket, Partner: p.Name, Detail: what})
}

func (w *smallWorld) Suspend(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	return w.act(ctx, p, by, "suspend")
}

func (w *smallWorld) Resume(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.Receipt, error) {
	return w.act(ctx, p, by, "resume")
}

func (w *smallWorld) Rollback(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.Grant, mandate.Receipt, error) {
	r, err := w.act(ctx, p, by, "rollback")
	return mandate.Grant{}, r, err
}

func (w *smallWorld) Approve(ctx context.Context, p mandate.Partner, n int64, by mandate.By) (mandate.Grant, mandate.Receipt, error) {
	r, err := w.act(ctx, p, by, fmt.Sprint("approve ", n))
	return mandate.Grant{}, r, err
}

func (w *smallWorld) Discard(ctx context.Context, p mandate.Partner, n int64, by mandate.By) (mandate.Receipt, error) {
	return w.act(ctx, p, by, fmt.Sprint("discard ", n))
}

func (w *smallWorld) Withdraw(ctx context.Context, p mandate.Partner, end bool, by mandate.By) (mandate.Withdrawal, error) {
	r, err := w.act(ctx, p, by, fmt.Sprint("withdraw ", end))
	line := func(r mandate.Result) mandate.Line { return mandate.Line{Result: r, Text: "This is said."} }
	return mandate.Withdrawal{
		Generation: 3, Revoked: end, Record: r, Local: line(mandate.ResultDone), Upstream: line(mandate.ResultNotAsked),
		Tokens: line(mandate.ResultNotPermitted), Copies: line(mandate.ResultFailed), Alive: 2,
	}, err
}

// Import knows one refresh token that would do, and one that has no MFA.
func (w *smallWorld) Import(ctx context.Context, in mandate.Import) (mandate.Grant, mandate.Receipt, error) {
	switch in.Refresh.Reveal() {
	case "rt-nomfa":
		return mandate.Grant{}, mandate.Receipt{}, &mandate.Refusal{Reason: mandate.ReasonMFA, Detail: "the verdict is no"}
	case "rt-waits":
		return mandate.Grant{}, mandate.Receipt{}, &mandate.Refusal{Reason: mandate.ReasonWeaker, Detail: "it would replace the active one", Staged: 4}
	}
	r, err := w.act(ctx, in.Partner, in.By, "import from "+in.From)
	state := mandate.StateActive
	if in.DryRun {
		state = mandate.StateCandidate
	}
	return mandate.Grant{Generation: 5, State: state, Origin: mandate.OriginImport, UserName: "ada@contoso.test", Until: in.Until}, r, err
}

func (w *smallWorld) Secret(_ context.Context, _ string, k *api.KeyVaultSource, name string) (mandate.Secret, error) {
	if k.URL == "https://old.vault.test" && (k.Identity == "" || k.Identity == "reader") && name == tenant.String() {
		return mandate.NewSecret("rt-good"), nil
	}
	return mandate.Secret{}, fmt.Errorf("%w: no secret %s in %s", mandate.ErrNotFound, name, k.URL)
}

func (w *smallWorld) Forecast(context.Context) ([]mandate.Trouble, error) {
	return []mandate.Trouble{
		{Time: time.Now().Add(3*24*time.Hour + time.Hour), Kind: mandate.TroubleEnd, Partner: "contoso", What: "the grant ends", Move: mandate.MovePartner, Do: "renew it"},
		{Time: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC), Kind: mandate.TroubleCredential, What: "the credential ends", Move: mandate.MoveOperator, Do: "replace it"},
	}, nil
}

func TestDistance(t *testing.T) {
	now := time.Now()
	for want, at := range map[string]time.Time{
		"-": {}, "in 5d": now.Add(5*24*time.Hour + time.Minute), "in 46h": now.Add(46*time.Hour + time.Minute), "in 90d": now.Add(90*24*time.Hour - time.Minute), "in 2h": now.Add(95 * time.Minute), "in 3m": now.Add(3*time.Minute + time.Second),
		"3d ago": now.Add(-70 * time.Hour), "0m ago": now.Add(-time.Second), "in 89m": now.Add(89 * time.Minute),
	} {
		if got := distance(at, now); got != want {
			t.Errorf("%v: got %q, want %q", at, got, want)
		}
	}
}

// Every reason for which an import can be refused says whose move it is.
func TestRefusalHints(t *testing.T) {
	for _, r := range []mandate.Reason{
		mandate.ReasonTenant, mandate.ReasonUser, mandate.ReasonGuest, mandate.ReasonMFA, mandate.ReasonRole, mandate.ReasonRoleUnknown,
		mandate.ReasonAudience, mandate.ReasonConditional, mandate.ReasonApplication, mandate.ReasonUnavailable, mandate.ReasonSiteProblem,
	} {
		if hint(fmt.Errorf("x: %w", &mandate.Refusal{Reason: r})) == "" {
			t.Errorf("%s: no hint", r)
		}
	}
	if h := hint(&mandate.Refusal{Reason: mandate.ReasonAudience, Audience: "https://graph.test"}); !strings.Contains(h, "for https://graph.test") {
		t.Errorf("which API is refused: %q", h)
	}
	f := &mandate.Fault{Remedy: mandate.RemedyRenew}
	if h := hint(errors.Join(&mandate.Refusal{Reason: mandate.ReasonEntra, Fault: f})); !strings.Contains(h, "invite") {
		t.Errorf("a fault behind a refusal: %q", h)
	}
}
