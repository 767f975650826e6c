package emulator_test

import (
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// Who gets a token where, and what those who do not are told.
func TestDelegatedAdministration(t *testing.T) {
	e := start(t)
	tokens := map[string]string{}
	for _, upn := range []string{"admin@contoso.example", "sales@contoso.example", "tech@contoso.example", "nomfa@contoso.example", "admin@fabrikam.example", guest} {
		tokens[upn] = consented(t, e, 2, upn).str("refresh_token")
	}
	for _, row := range []struct {
		upn, tenant, scope string
		code               int
		sub                string
	}{
		{"admin@contoso.example", "contoso.example", "User.Read", 0, ""},
		{"admin@contoso.example", "common", "User.Read", 0, ""},
		{"admin@contoso.example", "adatum.example", "User.Read", 0, ""},
		{"admin@contoso.example", "litware.example", "https://management.azure.com/.default", 0, ""},
		{"admin@contoso.example", "proseware.example", "https://api.partnercenter.microsoft.com/.default", 0, ""},
		{"admin@contoso.example", "adatum.example", "https://vault.azure.net/.default", 65001, "consent_required"},
		{"admin@contoso.example", "adatum.example", "User.ReadWrite.All", 65001, "consent_required"},
		{"admin@contoso.example", "tailspin.example", "User.Read", 50020, ""},
		{"admin@contoso.example", "fabrikam.example", "User.Read", 50020, ""},
		{"admin@contoso.example", "northwind.example", "User.Read", 50020, ""},
		{"nomfa@contoso.example", "adatum.example", "User.Read", 0, ""},
		{"sales@contoso.example", "adatum.example", "User.Read", 50020, ""},
		{"tech@contoso.example", "adatum.example", "User.Read", 50020, ""},
		{guest, "adatum.example", "User.Read", 50020, ""},
		{"admin@fabrikam.example", "litware.example", "User.Read", 0, ""},
		{"admin@fabrikam.example", "wingtip.example", "User.Read", 90099, ""},
		{"admin@fabrikam.example", "adatum.example", "User.Read", 50020, ""},
	} {
		t.Run(row.upn+" in "+row.tenant+" for "+row.scope, func(t *testing.T) {
			a := token(t, e, 2, row.tenant, "refresh_token", "refresh_token", tokens[row.upn], "scope", row.scope)
			if row.code != 0 {
				refused(t, a, 400, row.code, "invalid_grant", row.sub)
			} else if a.status != 200 {
				t.Errorf("got %v", a.raw)
			}
		})
	}
}

// In a customer's tenant a token is of that tenant, about a user of another.
func TestTokenInCustomerTenant(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	a := token(t, e, 2, "adatum.example", "refresh_token", "refresh_token", rt, "scope", "openid User.Read", "client_info", "1")
	c, id := claims(t, a.str("access_token")), claims(t, a.str("id_token"))
	if c["tid"] != emulator.AdatumTenant || id["tid"] != emulator.AdatumTenant || !strings.Contains(c["iss"].(string), emulator.AdatumTenant) {
		t.Errorf("got tid %v and %v, iss %v", c["tid"], id["tid"], c["iss"])
	}
	if idp, _ := c["idp"].(string); !strings.Contains(idp, emulator.ContosoTenant) {
		t.Errorf("got idp %q, want Contoso's", idp)
	}
	if me := call(t, e, e.Endpoints().Graph+"/v1.0/me", a.str("access_token")); me.status != 404 {
		t.Errorf("me: got %d, want 404", me.status)
	}
	users := call(t, e, e.Endpoints().Graph+"/v1.0/users", a.str("access_token"))
	if list, _ := users.raw["value"].([]any); len(list) != 3 {
		t.Errorf("users: got %v", users.raw)
	}
}

func TestConsentComesAndGoes(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@fabrikam.example").str("refresh_token")
	ask := func(tenant string) int {
		return token(t, e, 2, tenant, "refresh_token", "refresh_token", rt, "scope", "User.Read").code()
	}
	step := func(what string, err error, tenant string, want int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(tenant); got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
	}
	step("before", nil, "wingtip.example", 90099)
	step("another resource consented", e.Consent("wingtip.example", emulator.ApplicationID, emulator.ARM), "wingtip.example", 65001)
	step("consented", e.Consent("wingtip.example", emulator.ApplicationID, "https://graph.microsoft.com"), "wingtip.example", 0)
	step("resource removed", e.RemoveConsent("wingtip.example", emulator.ApplicationID, emulator.Graph), "wingtip.example", 65001)
	step("removed", e.RemoveConsent("wingtip.example", emulator.ApplicationID, ""), "wingtip.example", 90099)
	step("removed at home", e.RemoveConsent("fabrikam.example", emulator.ApplicationID, emulator.Graph), "fabrikam.example", 65001)
	e.Undelegate(emulator.FabrikamTenant, emulator.WingtipTenant)
	step("relationship ended", nil, "wingtip.example", 50020)
	for _, err := range []error{
		e.Consent("nobody.example", emulator.ApplicationID, emulator.ARM),
		e.Consent("wingtip.example", "nothing", emulator.ARM),
		e.RemoveConsent("wingtip.example", emulator.ApplicationID, "nothing"),
		e.Revoke("nobody@contoso.example"),
	} {
		if err == nil {
			t.Error("an unknown name was accepted")
		}
	}
}

// An old refresh token stays good when a new one is issued, until the user's
// tokens are revoked; then all are dead, and so are access tokens.
func TestRevocation(t *testing.T) {
	e := start(t)
	first := consented(t, e, 2, "admin@contoso.example")
	ask := func(rt string) answer {
		return token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", "User.Read offline_access")
	}
	second := ask(first.str("refresh_token"))
	if a := ask(first.str("refresh_token")); a.status != 200 {
		t.Errorf("the old refresh token: %v", a.raw)
	}
	if err := e.Revoke("admin@contoso.example"); err != nil {
		t.Fatal(err)
	}
	for _, rt := range []string{first.str("refresh_token"), second.str("refresh_token")} {
		refused(t, ask(rt), 400, 50173, "invalid_grant", "bad_token")
	}
	if c := call(t, e, e.Endpoints().Graph+"/v1.0/me", second.str("access_token")); c.status != 401 {
		t.Errorf("the access token still works: %d", c.status)
	}
	for _, rt := range e.RefreshTokens() {
		if !rt.Revoked {
			t.Errorf("the ledger does not know that %d is revoked", rt.Number)
		}
	}
	again := consented(t, e, 2, "admin@contoso.example")
	if c := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", again.str("access_token")); c.status != 200 {
		t.Errorf("after a new sign-in: %d", c.status)
	}
}
