package demo

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mandate-sam/mandate/emulator"
)

// A panel is the emulator's page of dials in a real browser.
type panel struct {
	*window
	e *emulator.Emulator
}

func openPanel(t *testing.T) *panel {
	t.Helper()
	e, err := emulator.Open(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	p := &panel{openWindow(t, e.CA().SPKI()), e}
	p.do(chromedp.Navigate(e.Endpoints().Admin))
	p.said("Ready")
	return p
}

// said waits until the page says that.
func (p *panel) said(text string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(`//p[@id="status" and starts-with(text(), "` + text + `")]`))
}

// unfold opens everything that is folded.
func (p *panel) unfold() {
	p.t.Helper()
	ask(p.window, chromedp.Evaluate[bool](`document.querySelectorAll("details").forEach(d => d.open = true), true`))
}

// set types into a field, or chooses, and waits for the page to have done it.
func (p *panel) set(id, value string) {
	p.t.Helper()
	name, _ := json.Marshal(id)
	text, _ := json.Marshal(value)
	ask(p.window, chromedp.Evaluate[bool](fmt.Sprintf(
		`(e => { document.getElementById("status").textContent = ""; e.focus(); if (e.type === "checkbox") e.click(); else { e.value = %s; e.dispatchEvent(new Event("change", {bubbles: true})); } return true; })(document.getElementById(%s))`, text, name)))
	p.do(chromedp.WaitVisible(`//p[@id="status" and string-length(text()) > 0]`))
}

// Every control that a tester wants works without a word of JSON.
func TestDialsInBrowser(t *testing.T) {
	p := openPanel(t)
	p.look("dials")
	p.unfold()
	p.look("dials-unfolded")

	admin, _ := p.e.User("nomfa@contoso.example")
	for _, tt := range []struct {
		id, value string
		is        func(d emulator.Dials) bool
	}{
		{"dial-mfa_verdict", "contradict", func(d emulator.Dials) bool { return d.MFAVerdict == "contradict" }},
		{"dial-enforce_mfa", "", func(d emulator.Dials) bool { return d.EnforceMFA }},
		{"dial-amr_absent", "", func(d emulator.Dials) bool { return d.AMRAbsent }},
		{"dial-auth_time", "old", func(d emulator.Dials) bool { return d.AuthTime == "old" }},
		{"dial-id_token-unsigned", "", func(d emulator.Dials) bool { return d.IDToken.Unsigned }},
		{"dial-id_token-issuer", "https://elsewhere.example/", func(d emulator.Dials) bool { return d.IDToken.Unsigned && d.IDToken.Issuer != "" }},
		{"dial-scopes_as_asked", "", func(d emulator.Dials) bool { return d.ScopesAsAsked }},
		{"dial-access_token_lifetime", "61s", func(d emulator.Dials) bool { return d.AccessTokenLifetime == 61*time.Second }},
		{"dial-access_token_lifetime", "", func(d emulator.Dials) bool { return d.AccessTokenLifetime == 0 }},
		{"dial-token_latency", "1ms", func(d emulator.Dials) bool { return d.TokenLatency == time.Millisecond }},
		{"dial-clock_offset", "72h", func(d emulator.Dials) bool { return d.ClockOffset == 72*time.Hour }},
		{"dial-replication_delay", "2s", func(d emulator.Dials) bool { return d.ReplicationDelay == 2*time.Second }},
		{"dial-sign_in-refresh_window_seconds", "5", func(d emulator.Dials) bool { return d.SignIn.RefreshWindowSeconds == 5 }},
		{"dial-key_vault-budgets-secrets", "3", func(d emulator.Dials) bool { return d.KeyVault.Budgets["secrets"] == 3 }},
		{"dial-key_vault-budgets-keys", "4", func(d emulator.Dials) bool { return len(d.KeyVault.Budgets) == 2 }},
		{"dial-key_vault-budgets-secrets", "", func(d emulator.Dials) bool {
			_, ok := d.KeyVault.Budgets["secrets"]
			return !ok && len(d.KeyVault.Budgets) == 1
		}},
		{"dial-latency_millis-graph", "7", func(d emulator.Dials) bool { return d.LatencyMillis["graph"] == 7 }},
		{"dial-latency_millis-arm", "1", func(d emulator.Dials) bool { return len(d.LatencyMillis) == 2 }},
		{"dial-latency_millis-graph", "", func(d emulator.Dials) bool { return len(d.LatencyMillis) == 1 && d.LatencyMillis["arm"] == 1 }},
		{"demand-" + emulator.ContosoTenant, "", func(d emulator.Dials) bool { v, ok := d.MFADemanded[emulator.ContosoTenant]; return ok && !v }},
		{"factor-" + admin.ID, "", func(d emulator.Dials) bool { return d.MFARegistered["nomfa@contoso.example"] }},
	} {
		if p.set(tt.id, tt.value); !tt.is(p.e.Dials()) {
			t.Errorf("%s set to %q: the page says %q, the dials are %+v", tt.id, tt.value, ask(p.window, chromedp.Text("#status")), p.e.Dials())
		}
	}
	p.look("dials-set")
	p.do(chromedp.Click("#zero"))
	p.said("All dials are at zero")
	if d := p.e.Dials(); d.EnforceMFA || len(d.MFADemanded) > 0 || d.ClockOffset != 0 {
		t.Errorf("after all to zero: %+v", d)
	}
}

// Lists grow and shrink by an element at a time, which is sent when it says
// enough.
func TestListsInBrowser(t *testing.T) {
	p := openPanel(t)
	p.unfold()
	p.do(chromedp.Click("#dial-refusals-add"))
	p.set("dial-refusals-0-tenant", emulator.AdatumTenant)
	p.said("Refusals: Code is still missing")
	p.set("dial-refusals-0-code", "53003")
	p.said("Refusals changed")
	p.set("dial-refusals-0-times", "2")
	if r := p.e.Dials().Refusals; len(r) != 1 || r[0] != (emulator.Refusal{Code: 53003, Tenant: emulator.AdatumTenant, Times: 2}) {
		t.Errorf("refusals: %+v", r)
	}
	p.do(chromedp.Click("#dial-outage-add"))
	p.set("dial-outage-0", "arm")
	if o := p.e.Dials().Outage; len(o) != 1 || o[0] != "arm" {
		t.Errorf("outage: %q", o)
	}
	p.do(chromedp.Click("#dial-throttles-add"))
	p.set("dial-throttles-0-service", "graph")
	p.said("Throttles changed")
	p.set("dial-throttles-0-status", "503")
	p.set("dial-throttles-0-times", "3")
	p.do(chromedp.Click("#dial-expired_credentials-add"))
	p.set("dial-expired_credentials-0", emulator.ApplicationID)
	p.do(chromedp.Click("#dial-key_vault-outage-add"))
	p.set("dial-key_vault-outage-0", "*")
	d := p.e.Dials()
	if len(d.Throttles) != 1 || d.Throttles[0].Service != "graph" || d.Throttles[0].Status != 503 || d.Throttles[0].Times != 3 || len(d.ExpiredCredentials) != 1 || len(d.KeyVault.Outage) != 1 {
		t.Errorf("got %+v", d)
	}
	p.look("dials-lists")
	p.set("dial-refusals-0-code", "many")
	p.said("Code is a number")
	p.set("dial-throttles-0-status", "200")
	p.said("Throttles changed: read dials")
	if got := ask(p.window, chromedp.Evaluate[string](`document.getElementById("dial-throttles-0-status").value`)); got != "503" {
		t.Errorf("a position that was refused is still shown: %q", got)
	}
	p.do(chromedp.Click("#dial-refusals-0-remove"))
	p.said("Refusals changed")
	if n := len(p.e.Dials().Refusals); n != 0 {
		t.Errorf("%d refusals are left", n)
	}
}

// What is not a dial: consents, revocations, holding, forgetting. The buttons
// are reached and pressed by keyboard.
func TestActionsInBrowser(t *testing.T) {
	p := openPanel(t)
	p.press("Hold token answers")
	p.said("Token answers are held back")
	if p.e.Dials().Hold == nil {
		t.Error("nothing is held")
	}
	p.press("Let them go")
	p.said("Token answers go out")
	p.press("Forget everything")
	p.said("Everything is forgotten")

	p.do(chromedp.SendKeys("#consent-tenant", "wingtip.example"))
	p.press("Give")
	p.said("Consent is given")
	p.do(chromedp.Click("#consent-remove"))
	p.said("Consent is taken back")
	p.do(chromedp.SetValue("#consent-tenant", "nowhere.example"), chromedp.Click("#consent-give"))
	p.said("Consent is given: consent: unknown tenant")

	p.do(chromedp.SendKeys("#search", "fabrikam"), chromedp.WaitVisible(`//p[@id="tenants-count" and starts-with(text(), "1 of 8")]`))
	p.unfold()
	u, _ := p.e.User("admin@fabrikam.example")
	p.do(chromedp.Click("#revoke-" + u.ID))
	p.said("Revoked the tokens of admin@fabrikam.example")
	if u, _ = p.e.User(u.UPN); u.ValidFrom.IsZero() {
		t.Error("nothing was revoked")
	}
	p.do(chromedp.Click("#password-" + u.ID))
	p.said("Changed the password of admin@fabrikam.example")
	if u, _ = p.e.User(u.UPN); u.PasswordChanged.IsZero() {
		t.Error("no password was changed")
	}
}
