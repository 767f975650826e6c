package emulator_test

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// A tenant can ban secrets, or long-lived credentials, for applications that
// are young enough.
func TestAppManagementPolicy(t *testing.T) {
	e := start(t)
	if err := e.Consent("contoso.example", emulator.ApplicationID, emulator.Graph, "Policy.Read.All", "Policy.ReadWrite.ApplicationConfiguration"); err != nil {
		t.Fatal(err)
	}
	tok, _ := writer(t, e)
	u := e.Endpoints().Graph + "/v1.0/policies/defaultAppManagementPolicy"
	a := call(t, e, u, tok)
	if a.status != 200 || a.raw["isEnabled"] != false || a.str("displayName") == "" {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	_, long := certificate(t, time.Now().AddDate(1, 0, 0))
	add := func() answer { return exchange(t, e, "POST", partnerAppURL(e)+"/addPassword", tok, `{}`) }
	cert := func() answer {
		return exchange(t, e, "PATCH", partnerAppURL(e), tok, `{"keyCredentials":[{"type":"AsymmetricX509Cert","usage":"Verify","key":"`+base64.StdEncoding.EncodeToString(long)+`"}]}`)
	}
	passwords := func(s string) string {
		return `{"isEnabled":true,"applicationRestrictions":{"passwordCredentials":[` + s + `]}}`
	}
	for _, row := range []struct {
		name, body string
		status     int
		do         func() answer
		code       string
	}{
		{"banned", passwords(`{"restrictionType":"passwordAddition","maxLifetime":null,"restrictForAppsCreatedAfterDateTime":null}`), 204, add, "CredentialTypeNotAllowedAsPerAppPolicy"},
		{"not enabled", `{"isEnabled":false}`, 204, add, ""},
		{"enabled again", `{"isEnabled":true}`, 204, add, "CredentialTypeNotAllowedAsPerAppPolicy"},
		{"only younger ones", passwords(`{"restrictionType":"passwordAddition","restrictForAppsCreatedAfterDateTime":"2099-01-01T10:37:00Z"}`), 204, add, ""},
		{"restriction disabled", passwords(`{"restrictionType":"passwordAddition","state":"disabled"}`), 204, add, ""},
		{"two years are too long", passwords(`{"restrictionType":"passwordLifetime","state":"enabled","maxLifetime":"P4DT12H30M5S"}`), 204, add, "CredentialInvalidLifetimeAsPerAppPolicy"},
		{"two years are not", passwords(`{"restrictionType":"passwordLifetime","maxLifetime":"P3Y"}`), 204, add, ""},
		{"certificates", `{"applicationRestrictions":{"keyCredentials":[{"restrictionType":"asymmetricKeyLifetime","maxLifetime":"P30D"}]}}`, 204, cert, "CredentialInvalidLifetimeAsPerAppPolicy"},
		{"unknown type", passwords(`{"restrictionType":"shoes"}`), 400, cert, "CredentialInvalidLifetimeAsPerAppPolicy"},
		{"no lifetime", passwords(`{"restrictionType":"passwordLifetime","maxLifetime":"PT"}`), 400, cert, "CredentialInvalidLifetimeAsPerAppPolicy"},
		{"no JSON", `[]`, 400, cert, "CredentialInvalidLifetimeAsPerAppPolicy"},
		{"nothing", `{"applicationRestrictions":{}}`, 204, cert, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if a := exchange(t, e, "PATCH", u, tok, row.body); a.status != row.status {
				t.Fatalf("got %d, %v, want %d", a.status, a.raw, row.status)
			}
			if a := row.do(); a.errorCode() != row.code {
				t.Errorf("got %d, %v, want %q", a.status, a.raw, row.code)
			}
		})
	}
}
