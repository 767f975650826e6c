package demo

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/footprint"
)

// Of three APIs that were consented to, one is used by a token, one by a call,
// and the report proposes to do without the third.
func TestAuditUsageProposesSmallerManifest(t *testing.T) {
	t.Parallel()
	d := consented(t)
	if _, err := d.token(t.Context(), "graph"); err != nil {
		t.Fatal(err)
	}
	call := api.CallRequest{Partner: Partner, Audience: "partnercenter", Method: "GET", Path: "/v1/customers/" + emulator.AdatumTenant, Purpose: Purpose}
	if a, err := d.Operator.Call(t.Context(), call); err != nil || a.Status != 200 {
		t.Fatalf("got %+v, %v", a, err)
	}
	for _, days := range []string{"30", "90"} {
		r, err := d.Operator.Usage(t.Context(), Partner, url.Values{"days": {days}})
		if err != nil {
			t.Fatal(err)
		}
		verdicts := make(map[string]string)
		for _, a := range r.Audiences {
			verdicts[a.API] = a.Verdict
			for _, s := range a.Scopes {
				verdicts[a.API+" "+s.Scope] = s.Verdict
			}
		}
		for name, want := range map[string]string{
			"partnercenter": footprint.Keep, "graph": footprint.Keep, "arm": footprint.Drop, "arm user_impersonation": footprint.Drop,
			"partnercenter user_impersonation": footprint.Keep, "graph Directory.Read.All": footprint.Keep,
		} {
			if verdicts[name] != want {
				t.Errorf("%s days: %s: got %q, want %q", days, name, verdicts[name], want)
			}
		}
		if !strings.HasPrefix(r.Manifest, "audiences: [partnercenter, graph]\npermissions:\n  - {api: partnercenter, scope: user_impersonation}\n") || strings.Contains(r.Manifest, "arm") {
			t.Errorf("proposed %s", r.Manifest)
		}
		if len(r.Required) != 2 || r.Required[0].Resource != emulator.PartnerCenter || len(r.Unnamed) != 0 {
			t.Errorf("required %+v, unnamed %+v", r.Required, r.Unnamed)
		}
		called := slices.ContainsFunc(r.Audiences[0].Paths, func(p footprint.Path) bool { return p.Path == "/v1/customers/{id}" && p.Calls == 1 })
		if !called {
			t.Errorf("called %+v", r.Audiences[0].Paths)
		}
	}
	// In a tenant where nothing was done, nothing was needed.
	r, err := d.Operator.Usage(t.Context(), Partner, url.Values{"customer": {emulator.LitwareTenant}})
	if err != nil || len(r.Audiences) != 3 || len(r.Proposed) != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}
