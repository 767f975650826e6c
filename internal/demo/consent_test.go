package demo

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
)

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
}

// The whole way, on both generations of Entra's endpoints and with both kinds
// of credential.
func TestWalk(t *testing.T) {
	for _, cfg := range []Config{{}, {Version: "v1"}, {Secret: true}, {Version: "v1", Secret: true}} {
		name := cfg.Version + map[bool]string{true: " secret", false: " certificate"}[cfg.Secret]
		t.Run(strings.TrimSpace(name), func(t *testing.T) {
			t.Parallel()
			d, _ := begin(t, cfg)
			w := Walk{Demo: d, Progress: quiet{t}}
			if err := w.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := w.Result
			if !r.OK || r.Generation != 1 || !r.MFA || len(r.Audiences) != 3 || r.Customers != 3 || r.Users != 9 {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// Every way in which a consent can fail ends on its own page, stores no grant
// and is recorded.
func TestRefusals(t *testing.T) {
	admin := attempt{invited: User, user: User}
	refuse := func(code int, resource string) func(*emulator.Dials) {
		return func(d *emulator.Dials) {
			d.Refusals = []fault.Refusal{{Code: code, Resource: resource, Grant: "refresh_token"}}
		}
	}
	code := func(code int) func(*emulator.Dials) {
		return func(d *emulator.Dials) {
			d.Refusals = []fault.Refusal{{Code: code, Grant: "authorization_code"}}
		}
	}
	idToken := func(tok fault.IDToken) func(*emulator.Dials) {
		return func(d *emulator.Dials) { d.IDToken = tok }
	}
	verdict := func(v string) func(*emulator.Dials) {
		return func(d *emulator.Dials) { d.MFAVerdict = v }
	}
	anyone := func(user string) attempt { return attempt{user: user} }
	for _, tt := range []struct {
		name   string
		who    attempt
		dial   func(*emulator.Dials)
		reason mandate.Reason
	}{
		{"declined", attempt{invited: User, user: User, decline: true}, nil, mandate.ReasonDeclined},
		{"administrator needed", anyone("helpdesk@contoso.example"), nil, mandate.ReasonAdmin},
		{"another user", attempt{invited: User, user: "admin2@contoso.example"}, nil, mandate.ReasonUser},
		{"another tenant", admin, idToken(fault.IDToken{TenantID: emulator.FabrikamTenant}), mandate.ReasonTenant},
		{"guest", anyone("guest@adventure-works.example"), nil, mandate.ReasonGuest},
		{"no MFA", anyone("nomfa@contoso.example"), nil, mandate.ReasonMFA},
		{"no agent", anyone("tech@contoso.example"), nil, mandate.ReasonRole},
		{"verdict absent", admin, verdict("absent"), mandate.ReasonMFA},
		{"verdict in the body", admin, verdict("body"), mandate.ReasonMFA},
		{"verdict contradicted", admin, verdict("contradict"), mandate.ReasonMFA},
		{"verdict garbage", admin, verdict("garbage"), mandate.ReasonMFA},
		{"MFA enforced and amr absent", admin, func(d *emulator.Dials) { d.AMRAbsent, d.EnforceMFA = true, true }, mandate.ReasonMFA},
		{"MFA wanted at redemption", admin, refuse(50076, "https://management.azure.com"), mandate.ReasonMFA},
		{"audience not consented", admin, refuse(65001, "https://management.azure.com"), mandate.ReasonAudience},
		{"conditional access", admin, refuse(53003, "https://graph.microsoft.com"), mandate.ReasonConditional},
		{"credential expired", admin, func(d *emulator.Dials) { d.ExpiredCredentials = []string{emulator.ApplicationID} }, mandate.ReasonApplication},
		{"code used before", admin, code(54005), mandate.ReasonEntra},
		{"Entra down", admin, func(d *emulator.Dials) {
			d.Throttles = []fault.Throttle{{Service: "login", Status: 503, Times: 1}}
		}, mandate.ReasonUnavailable},
		{"Partner Center busy", admin, func(d *emulator.Dials) {
			d.Throttles = []fault.Throttle{{Service: "partnercenter", Times: 1, RetryAfter: 7}}
		}, mandate.ReasonUnavailable},
		{"Graph down", admin, func(d *emulator.Dials) {
			d.Throttles = []fault.Throttle{{Service: "graph", Status: 503, Times: 1}}
		}, mandate.ReasonRoleUnknown},
		{"ID token for another application", admin, idToken(fault.IDToken{Audience: emulator.Graph}), mandate.ReasonToken},
		{"ID token with another nonce", admin, idToken(fault.IDToken{Nonce: "x"}), mandate.ReasonToken},
		{"ID token expired", admin, idToken(fault.IDToken{Expired: true}), mandate.ReasonToken},
		{"ID token badly signed", admin, idToken(fault.IDToken{BadSig: true}), mandate.ReasonToken},
		{"ID token of an unknown key", admin, idToken(fault.IDToken{UnknownID: true}), mandate.ReasonToken},
		{"ID token of another issuer", admin, idToken(fault.IDToken{Issuer: "https://evil.example"}), mandate.ReasonToken},
		{"home elsewhere", admin, idToken(fault.IDToken{IDP: "https://sts.windows.net/" + emulator.GuestHomeTenant + "/"}), mandate.ReasonGuest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, _ := begin(t, Config{})
			if tt.dial != nil {
				d.Emulator.Dial(tt.dial)
			}
			page := d.attempt(t, tt.who)
			if page.Status != 200 || page.find("h1", "") == nil || strings.Contains(page.Text(), "Consent stored") {
				t.Errorf("status %d, page %q", page.Status, page.Text())
			}
			t.Logf("    page %q", page.Title())
			kinds, last := d.records(t)
			if last.Kind != mandate.KindRefused || !strings.HasPrefix(last.Reason, "consent refused: "+string(tt.reason)) {
				t.Errorf("the last record is %s: %s, want a refusal for %s", last.Kind, last.Reason, tt.reason)
			}
			if slices.Contains(kinds, mandate.KindConsented) {
				t.Errorf("records %v", kinds)
			}
			p, err := d.Operator.Partner(t.Context(), Partner)
			if err != nil || p.Grant != nil {
				t.Errorf("partner %+v, %v, want no grant", p, err)
			}
		})
	}
}

// The unsigned ID token of old v1 documentation is refused with advice.
func TestUnsignedIDToken(t *testing.T) {
	d, _ := begin(t, Config{Version: "v1"})
	d.Emulator.Dial(func(dials *emulator.Dials) { dials.IDToken.Unsigned = true })
	d.attempt(t, attempt{invited: User, user: User})
	if _, last := d.records(t); last.Kind != mandate.KindRefused || contains(last.Reason, "bad_token", "v2") != nil {
		t.Errorf("record %s: %s", last.Kind, last.Reason)
	}
}

// A refused attempt leaves the invitation open; a successful one uses it up.
func TestInvitationLife(t *testing.T) {
	d, _ := begin(t, Config{})
	in, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := d.follow(t, in.Link, attempt{user: User, decline: true}); contains(p.Text(), "declin") != nil && contains(p.Text(), "Cancel") != nil {
		t.Errorf("after declining: %q", p.Text())
	}
	if p := d.follow(t, in.Link, attempt{user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Errorf("after accepting: %q", p.Text())
	}
	if p := d.follow(t, in.Link, attempt{user: User}); contains(p.Text(), "used") != nil {
		t.Errorf("a used invitation: %q", p.Text())
	}
}

// A sign-in that Entra's own page stopped is told of on the invitation.
func TestNotFinished(t *testing.T) {
	d, _ := begin(t, Config{})
	app, _ := d.Emulator.Application(emulator.ApplicationID)
	app.RedirectURIs = []string{"https://127.0.0.1:1/elsewhere"}
	if err := d.Emulator.Register(app); err != nil {
		t.Fatal(err)
	}
	in, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBrowser(d.Emulator.Client().Transport)
	p, err := b.Open(t.Context(), in.Link)
	if err == nil {
		p, err = b.Submit(t.Context(), p, "", "", "")
	}
	if err != nil || contains(p.Text(), "50011") != nil {
		t.Fatalf("Entra's page: %v %q", err, p.Text())
	}
	if p, err = b.Open(t.Context(), in.Link); err != nil || contains(p.Text(), "not finished", "AADSTS50011") != nil {
		t.Errorf("the invitation then: %v, %q", err, p.Text())
	}
}

// After a renewal by the same user the earlier generation's tokens are gone.
func TestTrap02ReconsentServesNoOldTokens(t *testing.T) {
	d, _ := begin(t, Config{})
	tokens := make(map[string]bool)
	for generation := int64(1); generation <= 2; generation++ {
		if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
			t.Fatalf("consent %d: %q", generation, p.Text())
		}
		tok, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
		if err != nil || tok.Generation != generation {
			t.Fatalf("token %+v, %v", tok, err)
		}
		tokens[tok.Access.Reveal()] = true
	}
	if len(tokens) != 2 {
		t.Error("the second consent served the first one's token")
	}
	// Another administrator may not take the partner over by itself.
	d.attempt(t, attempt{user: "admin2@contoso.example"})
	if _, last := d.records(t); contains(last.Reason, string(mandate.ReasonOtherUser)) != nil {
		t.Errorf("another user's consent: %s %s", last.Kind, last.Reason)
	}
}

// What a program meets that asks for what it may not have.
func TestTokenErrors(t *testing.T) {
	d, _ := begin(t, Config{})
	ask := func(change func(*api.TokenRequest)) error {
		r := api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose}
		change(&r)
		_, err := d.Operator.Token(t.Context(), r)
		return err
	}
	if err := ask(func(*api.TokenRequest) {}); contains(err.Error(), "contoso") != nil {
		t.Errorf("unknown partner: %v", err)
	}
	if _, err := d.Invite(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ask(func(*api.TokenRequest) {}); contains(err.Error(), "has not consented") != nil {
		t.Errorf("no consent: %v", err)
	}
	d.attempt(t, attempt{invited: User, user: User})
	d.Emulator.Delegate(emulator.ContosoTenant, emulator.WingtipTenant)
	for name, tt := range map[string]struct {
		change func(*api.TokenRequest)
		want   []string
	}{
		"purpose":                  {func(r *api.TokenRequest) { r.Purpose = "curiosity" }, []string{"no rule allows it", "demo-operator", "purpose"}},
		"audience":                 {func(r *api.TokenRequest) { r.Audience = "mail" }, []string{"audience", "graph"}},
		"customer without consent": {func(r *api.TokenRequest) { r.Tenant = emulator.WingtipTenant }, []string{"customer", "correlation id"}},
		"another partner's":        {func(r *api.TokenRequest) { r.Tenant = emulator.TailspinTenant }, []string{"has no relationship", "Partner Center"}},
	} {
		err := ask(tt.change)
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if err := contains(err.Error(), tt.want...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A fault of one customer's leaves the others and the grant alone.
	if err := ask(func(r *api.TokenRequest) { r.Tenant = emulator.AdatumTenant }); err != nil {
		t.Errorf("another customer: %v", err)
	}
}

// Lifetimes are short in the emulator, so that expiry is real: the token is
// redeemed again, and each redemption's refresh token replaces the last.
func TestExpiry(t *testing.T) {
	d, _ := begin(t, Config{})
	d.attempt(t, attempt{invited: User, user: User})
	d.Emulator.Dial(func(dials *emulator.Dials) { dials.AccessTokenLifetime = 61 * time.Second })
	seen := make(map[string]bool)
	deadline := time.Now().Add(10 * time.Second)
	for len(seen) < 3 && time.Now().Before(deadline) {
		asked := time.Now() // how long the answer is under way says nothing of the token
		tok, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "arm", Purpose: Purpose})
		if err != nil {
			t.Fatal(err)
		}
		if left := tok.Expires.Sub(asked); left <= 59*time.Second {
			t.Fatalf("a token with %v left was handed out", left)
		}
		seen[tok.Access.Reveal()] = true
		time.Sleep(50 * time.Millisecond)
	}
	if len(seen) < 3 {
		t.Errorf("%d tokens in ten seconds of one-second usefulness", len(seen))
	}
	var last int
	for _, r := range d.Emulator.TokenRequests() {
		if r.Grant == "refresh_token" && r.Answered > 0 {
			if last > 0 && r.Presented != last {
				t.Errorf("refresh token %d was presented, the last answer had %d", r.Presented, last)
			}
			last = r.Answered
		}
	}
}

// A partner can be named by a domain: what it stands for today is shown.
func TestInviteByDomain(t *testing.T) {
	d, _ := begin(t, Config{})
	in := api.InviteRequest{Name: "fabrikam", Tenant: "Fabrikam.example", User: "admin@fabrikam.example"}
	out, err := d.Operator.Invite(t.Context(), in)
	if err != nil || out.Partner.Tenant.String() != emulator.FabrikamTenant || out.Partner.Created.IsZero() {
		t.Errorf("got %+v, %v", out, err)
	}
	in.Tenant = "nobody.example"
	if _, err := d.Operator.Invite(t.Context(), in); err == nil || contains(err.Error(), "tenant", "nobody.example") != nil {
		t.Errorf("got %v", err)
	}
}

// A walk that cannot be finished names the step.
func TestWalkFails(t *testing.T) {
	d, _ := begin(t, Config{})
	d.Emulator.Dial(func(dials *emulator.Dials) { dials.MFAVerdict = "false" })
	w := Walk{Demo: d, Progress: quiet{t}}
	err := w.Run(t.Context())
	if err == nil || w.Result.OK || w.Result.Failed != "the partner gets a receipt" || w.Result.Error == "" {
		t.Errorf("got %v, %+v", err, w.Result)
	}
}
