package demo

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/policy"
)

// Of two callers with a partner each, neither gets anything of the other's,
// by its name or by its tenant id, though the server serves both.
func TestConfusedDeputyPartnerOfAnotherCaller(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	if _, err := d.Operator.Invite(ctx, api.InviteRequest{Name: "fabrikam", Tenant: emulator.FabrikamTenant, User: "admin@fabrikam.example"}); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	clients := map[string]*api.Client{}
	for caller, partner := range map[string]string{"one": Partner, "two": "fabrikam"} {
		fmt.Fprintf(&text, `@id("for-%s") @until("2100-01-01") @scopes("consented") @customers("all")
permit (principal == Caller::%q, action, resource in Partner::%q) when { context.audience == Audience::"graph" && context.purpose == Purpose::"demo" };
`, caller, caller, partner)
		a, err := d.Operator.RegisterCaller(ctx, api.CallerRequest{ID: caller})
		if err != nil {
			t.Fatal(err)
		}
		if clients[caller], err = api.NewClient(d.API, d.Emulator.Client(), caller, mandate.NewSecret(a.Secret)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.apply(t, policy.File{Name: "two.cedar", Text: text.String()}); err != nil {
		t.Fatal(err)
	}
	ask := func(caller, partner string) error {
		_, err := clients[caller].Token(ctx, api.TokenRequest{Partner: partner, Audience: "graph", Purpose: Purpose})
		return err
	}
	if err := ask("one", Partner); err != nil {
		t.Fatalf("one's own partner: %v", err)
	}
	for _, tt := range [][2]string{{"one", "fabrikam"}, {"one", emulator.FabrikamTenant}, {"two", Partner}, {"two", emulator.ContosoTenant}} {
		d.denied(t, tt[0]+" with "+tt[1], func() error { return ask(tt[0], tt[1]) })
	}
}

// Claims that ask for a long life change nothing, and those that only vary run
// out: a caller has ten a minute, and what a cache has is there for the others.
func TestConfusedDeputyClaims(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ask := func(claims string) (mandate.Token, error) {
		return d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose, Claims: claims})
	}
	if _, err := ask(""); err != nil {
		t.Fatal(err)
	}
	asked := len(d.Emulator.TokenRequests())
	for _, claims := range []string{
		`{"access_token":{"xms_cc":{"values":["cp1"]}}}`, `{"access_token":{"xms_cc":{"values":["CP1","protapp"],"essential":true},"exp":{"value":"4102444800"}}}`,
		`{"id_token":{"x":null},"access_token":{"lifetime":{"value":"28h"}}}`,
	} {
		tok, err := ask(claims)
		if life := time.Until(tok.Expires); err != nil || life > 90*time.Minute {
			t.Errorf("%s: a token for %v, %v", claims, life, err)
		}
	}
	if n := len(d.Emulator.TokenRequests()) - asked; n != 0 {
		t.Errorf("Entra was asked %d times for what was there", n)
	}
	var err error
	tries := 0
	for ; err == nil && tries < 30; tries++ {
		_, err = ask(fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, 1_700_000_000+tries))
	}
	if !errors.Is(err, mandate.ErrRateLimited) || tries > 11 {
		t.Errorf("claims that vary: after %d tries got %v", tries, err)
	}
	if _, last := d.records(t); last.Kind != mandate.KindFailed || !strings.Contains(last.Reason, "claims challenges") {
		t.Errorf("recorded %+v", last)
	}
	if _, err := ask(""); err != nil {
		t.Errorf("without claims: %v", err)
	}
}
