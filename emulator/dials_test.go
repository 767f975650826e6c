package emulator_test

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// refresh redeems a refresh token for Graph.
func refresh(t *testing.T, e *emulator.Emulator, version int, tenant, rt string) answer {
	t.Helper()
	if version == 1 {
		return token(t, e, 1, tenant, "refresh_token", "refresh_token", rt, "resource", "https://graph.microsoft.com")
	}
	return token(t, e, 2, tenant, "refresh_token", "refresh_token", rt, "scope", "User.Read")
}

// Every code of the table can be ordered, and has its shape in both versions.
func TestEveryErrorByDial(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, row := range emulator.Errors() {
		e.Dial(func(d *emulator.Dials) { d.Refusals = []emulator.Refusal{{Code: row.Code}} })
		refused(t, refresh(t, e, 1, "contoso.example", rt), row.Status, row.Code, row.V1, row.Suberror)
		refused(t, refresh(t, e, 2, "contoso.example", rt), row.Status, row.Code, row.V2, row.Suberror)
	}
}

func TestRefusals(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		name    string
		refusal emulator.Refusal
		tenant  string
		want    []int // codes of successive requests for Graph
	}{
		{"always", emulator.Refusal{Code: 53003}, "contoso.example", []int{53003, 53003, 53003}},
		{"twice", emulator.Refusal{Code: 53003, Times: 2}, "contoso.example", []int{53003, 53003, 0}},
		{"resource by another name", emulator.Refusal{Code: 50076, Resource: emulator.Graph}, "contoso.example", []int{50076}},
		{"other resource", emulator.Refusal{Code: 50076, Resource: emulator.ARM}, "contoso.example", []int{0}},
		{"tenant", emulator.Refusal{Code: 530034, Tenant: emulator.AdatumTenant}, "adatum.example", []int{530034}},
		{"other tenant", emulator.Refusal{Code: 530034, Tenant: emulator.AdatumTenant}, "contoso.example", []int{0}},
		{"user", emulator.Refusal{Code: 50057, User: "admin@contoso.example"}, "contoso.example", []int{50057}},
		{"other user", emulator.Refusal{Code: 50057, User: "sales@contoso.example"}, "contoso.example", []int{0}},
		{"other grant", emulator.Refusal{Code: 70008, Grant: "authorization_code"}, "contoso.example", []int{0}},
		{"other client", emulator.Refusal{Code: 70008, Client: emulator.CPVTenant}, "contoso.example", []int{0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			reset(t, e)
			rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
			e.Dial(func(d *emulator.Dials) { d.Refusals = []emulator.Refusal{row.refusal} })
			for i, want := range row.want {
				if got := refresh(t, e, 2, row.tenant, rt).code(); got != want {
					t.Errorf("request %d: got %d, want %d", i+1, got, want)
				}
			}
		})
	}
}

// Conditional access sends a claims challenge along.
func TestClaimsChallenge(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for own, want := range map[string]string{"": "capolids", `{"access_token":{"mine":null}}`: "mine"} {
		e.Dial(func(d *emulator.Dials) { d.Refusals = []emulator.Refusal{{Code: 53003, Claims: own}} })
		a := refresh(t, e, 1, "contoso.example", rt)
		if a.str("error") != "interaction_required" || !strings.Contains(a.str("claims"), want) {
			t.Errorf("got %v, want claims with %q", a.raw, want)
		}
	}
}

// A resource that wants MFA refuses a sign-in that was made without, and no
// later redemption can add it.
func TestMFAIsInherited(t *testing.T) {
	e := start(t)
	e.Dial(func(d *emulator.Dials) {
		d.MFADemanded = map[string]bool{emulator.ContosoTenant: false}
		d.MFAResources = []string{"https://graph.microsoft.com/"}
	})
	for upn, want := range map[string]int{"nomfa@contoso.example": 50079, "admin@contoso.example": 50076} {
		rt := consented(t, e, 2, upn).str("refresh_token")
		refused(t, refresh(t, e, 1, "contoso.example", rt), 400, want, "interaction_required", "basic_action")
		refused(t, refresh(t, e, 2, "contoso.example", rt), 400, want, "invalid_grant", "basic_action")
		if got := claims(t, token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", rt, "resource", emulator.ARM).str("access_token"))["amr"]; len(got.([]any)) != 1 {
			t.Errorf("%s: got amr %v, want pwd alone", upn, got)
		}
	}
	e.Dial(func(d *emulator.Dials) { d.MFARegistered = map[string]bool{"nomfa@contoso.example": true} })
	rt := consented(t, e, 2, "nomfa@contoso.example", "amr_values", "mfa").str("refresh_token")
	if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
		t.Errorf("after MFA: %v", a.raw)
	}
}

// A claims challenge for an authentication context is met by MFA only.
func TestAuthenticationContext(t *testing.T) {
	e := start(t)
	const challenge = `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	weak := consented(t, e, 2, "nomfa@contoso.example").str("refresh_token")
	a := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", weak, "scope", "User.Read", "claims", challenge)
	refused(t, a, 400, 50079, "invalid_grant", "basic_action")
	strong := consented(t, e, 2, "admin@contoso.example", "claims", challenge)
	if acrs, _ := claims(t, strong.str("access_token"))["acrs"].([]any); len(acrs) != 2 || acrs[1] != "c1" {
		t.Errorf("got acrs %v, want c1 among them", acrs)
	}
}

func TestExpiredCredential(t *testing.T) {
	e := start(t)
	e.Dial(func(d *emulator.Dials) { d.ExpiredCredentials = []string{emulator.ApplicationID} })
	refused(t, refresh(t, e, 2, "contoso.example", "x"), 401, 7000222, "invalid_client", "")
}

func TestThrottle(t *testing.T) {
	e := start(t)
	a := consented(t, e, 2, "admin@contoso.example")
	ep := e.Endpoints()
	e.Dial(func(d *emulator.Dials) {
		d.Throttles = []emulator.Throttle{
			{Service: "login", Times: 2, RetryAfter: 7}, {Service: "login", Status: 503},
			{Service: "partnercenter"}, {Service: "graph", Status: 503, RetryAfter: 1}, {Service: "arm"},
		}
	})
	rt := a.str("refresh_token")
	first := refresh(t, e, 2, "contoso.example", rt)
	refused(t, first, 429, 90055, "temporarily_unavailable", "")
	if got := first.header.Get("Retry-After"); got != "7" {
		t.Errorf("got Retry-After %q, want 7", got)
	}
	refresh(t, e, 2, "contoso.example", rt)
	refused(t, refresh(t, e, 2, "contoso.example", rt), 503, 90033, "temporarily_unavailable", "")
	if got := refresh(t, e, 2, "contoso.example", rt); got.status != 200 {
		t.Errorf("after the weather: %v", got.raw)
	}
	for u, want := range map[string]int{ep.PartnerCenter + "/v1/customers": 429, ep.Graph + "/v1.0/me": 503, ep.ARM + "/subscriptions?api-version=1": 429} {
		if c := call(t, e, u, a.str("access_token")); c.status != want {
			t.Errorf("%s: got %d, want %d", u, c.status, want)
		}
		if c := call(t, e, u, a.str("access_token")); c.status == want {
			t.Errorf("%s: the second request got %d as well", u, c.status)
		}
	}
}

func TestLifetimes(t *testing.T) {
	e := start(t)
	a := consented(t, e, 2, "admin@contoso.example")
	e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime, d.CodeLifetime = time.Nanosecond, time.Nanosecond })
	b := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", a.str("refresh_token"), "scope", "https://api.partnercenter.microsoft.com/.default")
	if b.raw["expires_in"] != 0.0 {
		t.Errorf("got expires_in %v, want 0", b.raw["expires_in"])
	}
	if c := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", b.str("access_token")); c.status != 401 {
		t.Errorf("an expired token got %d", c.status)
	}
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
	refused(t, token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect), 400, 70008, "invalid_grant", "bad_token")
}

// A held answer has happened: it is in the log and in the ledger.
func TestHold(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 1, "admin@contoso.example").str("refresh_token")
	gate := make(chan struct{})
	e.Dial(func(d *emulator.Dials) { d.Hold = gate })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { refresh(t, e, 1, "contoso.example", rt) })
	}
	gate <- struct{}{} // one answer goes, and only then can this return
	if n := len(e.TokenRequests()); n < 2 {
		t.Errorf("got %d requests in the log, want at least 2", n)
	}
	close(gate)
	wg.Wait()
	if n := len(e.RefreshTokens()); n != 4 {
		t.Errorf("got %d refresh tokens, want 4", n)
	}
	e.Dial(func(d *emulator.Dials) { d.Hold = nil })
	e.Hold()
	e.Hold()
	wg.Go(func() { refresh(t, e, 1, "contoso.example", rt) })
	e.Release()
	e.Release()
	wg.Wait()
}

// Neither a held nor a slow answer outlives the emulator, or is mistaken for
// an empty success.
func TestCloseCutsOff(t *testing.T) {
	for name, dial := range map[string]func(*emulator.Dials){
		"held": func(d *emulator.Dials) { d.Hold = make(chan struct{}) },
		"slow": func(d *emulator.Dials) { d.TokenLatency = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{}, 1)
			e, err := emulator.Open(emulator.Config{Log: slog.New(signal{slog.DiscardHandler, arrived})})
			if err != nil {
				t.Fatal(err)
			}
			e.Dial(dial)
			failed := make(chan error)
			go func() {
				res, err := e.Client().PostForm(e.Endpoints().Login+"/common/oauth2/token", url.Values{"grant_type": {"x"}})
				if err == nil {
					res.Body.Close()
				}
				failed <- err
			}()
			<-arrived
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if err := <-failed; err == nil {
				t.Error("the client got an answer, want a broken connection")
			}
			if err := e.Close(); err != nil {
				t.Errorf("closing twice: %v", err)
			}
		})
	}
}

// signal says on a channel that something was logged.
type signal struct {
	slog.Handler
	c chan<- struct{}
}

func (s signal) Enabled(context.Context, slog.Level) bool { return true }

func (s signal) Handle(context.Context, slog.Record) error {
	select {
	case s.c <- struct{}{}:
	default:
	}
	return nil
}
