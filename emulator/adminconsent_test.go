package emulator_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// adminConsentURL is the address of the admin consent page, changed by pairs
// of names and values.
func adminConsentURL(e *emulator.Emulator, version int, tenant string, change ...string) string {
	path := map[int]string{1: "/adminconsent", 2: "/v2.0/adminconsent"}[version]
	q := url.Values{"client_id": {emulator.ApplicationID}, "redirect_uri": {redirect}, "state": {"a state"}}
	if version == 2 {
		q.Set("scope", "https://graph.microsoft.com/Directory.Read.All https://management.azure.com/user_impersonation")
	}
	set(q, change...)
	return e.Endpoints().Login + "/" + tenant + path + "?" + q.Encode()
}

func TestAdminConsent(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		version  int
		tenant   string
		who      person
		out      map[string]string // parameters of the callback; "AADSTS…" is a prefix
		consents []string          // of Graph, afterwards
	}{
		{1, "wingtip.example", person{upn: "owner@wingtip.example"}, map[string]string{"admin_consent": "True", "tenant": emulator.WingtipTenant}, []string{"User.Read", "Directory.Read.All", "DelegatedAdminRelationship.Read.All"}},
		{1, "common", person{upn: "owner@wingtip.example"}, map[string]string{"admin_consent": "True", "tenant": emulator.WingtipTenant}, []string{"User.Read", "Directory.Read.All", "DelegatedAdminRelationship.Read.All"}},
		{2, "wingtip.example", person{upn: "owner@wingtip.example"}, map[string]string{"admin_consent": "True", "tenant": emulator.WingtipTenant, "scope": "https://graph.microsoft.com/Directory.Read.All https://management.azure.com/user_impersonation"}, []string{"Directory.Read.All"}},
		{2, "organizations", person{upn: "owner@wingtip.example"}, map[string]string{"admin_consent": "True", "tenant": emulator.WingtipTenant, "scope": "https://graph.microsoft.com/Directory.Read.All https://management.azure.com/user_impersonation"}, []string{"Directory.Read.All"}},
		{1, "wingtip.example", person{upn: "owner@wingtip.example", decline: true}, map[string]string{"error": "permission_denied", "error_description": "The admin canceled the request"}, nil},
		{2, "wingtip.example", person{upn: "owner@wingtip.example", decline: true}, map[string]string{"admin_consent": "True", "error": "consent_required", "error_description": "AADSTS65004"}, nil},
		{1, "wingtip.example", person{upn: "ines@wingtip.example"}, map[string]string{"error": "permission_denied", "error_description": "The admin canceled the request"}, nil},
		{2, "wingtip.example", person{upn: "ines@wingtip.example"}, map[string]string{"admin_consent": "True", "error": "consent_required", "error_description": "AADSTS90094"}, nil},
	} {
		t.Run(fmt.Sprintf("v%d %s %s %v", row.version, row.tenant, row.who.upn, row.who.decline), func(t *testing.T) {
			reset(t, e)
			p := newWalker(t, e).signIn(adminConsentURL(e, row.version, row.tenant), row.who)
			if got, want := len(p.out), len(row.out)+1; got != want || p.out.Get("state") != "a state" {
				t.Errorf("got %v, want %d parameters and the state", p.out, want)
			}
			for name, want := range row.out {
				if got := p.out.Get(name); got != want && !(strings.HasPrefix(want, "AADSTS") && strings.HasPrefix(got, want)) {
					t.Errorf("got %s %q, want %q", name, got, want)
				}
			}
			checkConsents(t, e, row.consents)
		})
	}
}

// checkConsents checks what everyone in Wingtip's tenant has consented to, by
// what a user who was never asked gets there.
func checkConsents(t *testing.T, e *emulator.Emulator, want []string) {
	t.Helper()
	rt := consented(t, e, 2, "admin@fabrikam.example").str("refresh_token")
	a := token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "https://graph.microsoft.com/.default")
	if want == nil {
		refused(t, a, 400, 90099, "invalid_grant", "")
		return
	}
	if got := strings.Fields(fmt.Sprint(claims(t, a.str("access_token"))["scp"])); !slices.Equal(got, want) {
		t.Errorf("got scopes %q, want %q", got, want)
	}
}

func TestAdminConsentRefusals(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		version int
		tenant  string
		change  []string
		code    string
	}{
		{1, "nobody.example", nil, "90002"},
		{2, "common", nil, "50059"},
		{1, "common", []string{"client_id", ""}, "900144"},
		{2, "wingtip.example", []string{"client_id", "x"}, "700016"},
		{2, "wingtip.example", []string{"redirect_uri", "https://evil.example"}, "50011"},
	} {
		p := newWalker(t, e).get(adminConsentURL(e, row.version, row.tenant, row.change...))
		if m := code.FindStringSubmatch(p.body); p.id != "error" || m == nil || m[1] != row.code {
			t.Errorf("%+v: got page %q, %v", row, p.id, m)
		}
	}
	for scope, want := range map[string]string{"": "AADSTS900144", "Fly": "AADSTS70011", "https://nothing.example/x": "AADSTS500011"} {
		p := newWalker(t, e).get(adminConsentURL(e, 2, "wingtip.example", "scope", scope))
		if !strings.HasPrefix(p.out.Get("error_description"), want) || p.out.Get("state") != "a state" || p.out.Get("admin_consent") != "True" {
			t.Errorf("scope %q: got %v, want %s", scope, p.out, want)
		}
	}
}

// Who is no administrator cannot consent for everyone, whatever it is to.
func TestAdminConsentByUser(t *testing.T) {
	e := start(t)
	p := newWalker(t, e).signIn(adminConsentURL(e, 2, "wingtip.example", "scope", "https://management.azure.com/user_impersonation"), person{upn: "ines@wingtip.example"})
	if p.out.Has("tenant") || !strings.HasPrefix(p.out.Get("error_description"), "AADSTS90094") {
		t.Errorf("got %v", p.out)
	}
}
