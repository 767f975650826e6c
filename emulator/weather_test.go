package emulator_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// serviceURLs are something to ask of every service but the token endpoint.
func serviceURLs(e *emulator.Emulator) map[string]string {
	ep := e.Endpoints()
	return map[string]string{
		"partnercenter": ep.PartnerCenter + "/v1/customers", "graph": ep.Graph + "/v1.0/me",
		"arm": ep.ARM + "/subscriptions?api-version=2022-12-01", "keyvault": ep.KeyVault + "/secrets?api-version=7.4",
	}
}

// An outage lasts until it is over, and hits the service that it names.
func TestOutage(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	status := func() map[string]int {
		all := map[string]int{"login": refresh(t, e, 2, "contoso.example", rt).status}
		for name, u := range serviceURLs(e) {
			all[name] = call(t, e, u, "").status
		}
		return all
	}
	for _, service := range []string{"login", "partnercenter", "graph", "arm", "keyvault"} {
		e.Dial(func(d *emulator.Dials) { d.Outage = []string{service} })
		for range 3 {
			for name, got := range status() {
				if (got == 503) != (name == service) {
					t.Errorf("outage of %s: %s got %d", service, name, got)
				}
			}
		}
	}
	e.Dial(func(d *emulator.Dials) { d.Outage = nil })
	for name, got := range status() {
		if got == 503 {
			t.Errorf("after the outage: %s got %d", name, got)
		}
	}
	for body, want := range map[string]int{
		`{"outage":["graph"]}`: 200, `{"outage":["cafeteria"]}`: 400, `{"latency_millis":{"graph":0}}`: 200,
		`{"latency_millis":{"graph":-1}}`: 400, `{"latency_millis":{"lunch":1}}`: 400, `{"sign_in":{"used_refresh_seconds":-1}}`: 400, `{"secret_lifetime":"-1s"}`: 400,
	} {
		if got, text := admin(t, e, "PATCH", "/emulator/dials", body); got != want {
			t.Errorf("%s: got %d %s", body, got, text)
		}
	}
}

// A slow service keeps its clients waiting, and the others do not.
func TestLatency(t *testing.T) {
	e := start(t)
	vault, err := e.AddVault("another")
	if err != nil {
		t.Fatal(err)
	}
	urls := serviceURLs(e)
	urls["login"] = e.Endpoints().Login + "/common/discovery/keys"
	answers := func(u string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", u, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.Client().Do(req)
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	}
	for service, u := range urls {
		e.Dial(func(d *emulator.Dials) { d.LatencyMillis = map[string]int{service: 3600_000} })
		if answers(u) {
			t.Errorf("%s answered, though it takes an hour", service)
		}
		if got := answers(vault + "/secrets"); got != (service != "keyvault") {
			t.Errorf("%s is slow; another vault answered: %v", service, got)
		}
		e.Dial(func(d *emulator.Dials) { d.LatencyMillis = map[string]int{service: 1} })
		if call(t, e, u, "").status == 0 {
			t.Errorf("%s does not answer", service)
		}
	}
}

// A refresh token that was exchanged for another dies a while later, if the
// dial says so. Entra leaves it alive, and so does the emulator without.
func TestUsedRefreshToken(t *testing.T) {
	e := start(t)
	old := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	exchangeToken := func(rt, scope string) answer {
		return token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", scope)
	}
	e.Dial(func(d *emulator.Dials) { d.SignIn.UsedRefreshSeconds = 10 })
	next := exchangeToken(old, "User.Read offline_access").str("refresh_token")
	advance(e, 9*time.Second)
	if a := exchangeToken(old, "User.Read offline_access"); a.status != 200 {
		t.Errorf("soon after: got %v", a.raw)
	}
	advance(e, time.Second)
	refused(t, exchangeToken(old, "User.Read"), 400, 70000, "invalid_grant", "bad_token")
	if a := exchangeToken(next, "User.Read"); a.status != 200 {
		t.Errorf("the new one: got %v", a.raw)
	}
	e.Dial(func(d *emulator.Dials) { d.SignIn.UsedRefreshSeconds = 0 })
	if a := exchangeToken(old, "User.Read"); a.status != 200 {
		t.Errorf("without the dial: got %v", a.raw)
	}
}

// The lifetime of secrets can be shorter than anybody asks for.
func TestSecretLifetime(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	for _, life := range []time.Duration{time.Minute, time.Second} {
		e.Dial(func(d *emulator.Dials) { d.SecretLifetime = life })
		for _, body := range []string{`{}`, `{"passwordCredential":{"endDateTime":"2199-01-01T00:00:00Z"}}`} {
			a := exchange(t, e, "POST", partnerAppURL(e)+"/addPassword", tok, body)
			secret := a.str("secretText")
			if a := own(t, e, secret); a.status != 200 && life > time.Second {
				t.Errorf("%v, %s: at once: got %v", life, body, a.raw)
			}
			advance(e, life)
			refused(t, own(t, e, secret), 401, 7000222, "invalid_client", "")
		}
	}
}
