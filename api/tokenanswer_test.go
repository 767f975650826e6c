package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

// FuzzTokenAnswer holds what is written by hand against encoding/json.
func FuzzTokenAnswer(f *testing.F) {
	f.Add("eyJ0.eyJh.c2ln", "https://graph.microsoft.com", "User.Read Directory.Read.All", "billing", strings.Repeat("0a", 32), int64(3599), int64(1), int64(7))
	f.Add("eyJ0_-~.+/==", "<é>&\u2028", " ", "\xff", "", int64(-1), int64(1)<<62, int64(0))
	f.Fuzz(func(t *testing.T, token, audience, scopes, rule, hash string, expires, generation, index int64) {
		if strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/=") != "" {
			return
		}
		a := tokenAnswer{
			AccessToken: token, TokenType: "Bearer", ExpiresIn: expires, Tenant: tenantOf(generation), Audience: mandate.Audience(audience),
			Scopes: strings.Split(scopes, " "), Generation: generation, Decision: rule, Record: mandate.Receipt{Index: index, Hash: hash},
		}
		want, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(a.appendTo(nil)); got != string(want)+"\n" {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// tenantOf returns a tenant id made of n; some are zero.
func tenantOf(n int64) mandate.TenantID {
	if n%3 == 0 {
		return mandate.TenantID{}
	}
	return must(mandate.ParseTenantID("11111111-2222-4333-8444-" + strings.Repeat(string("0123456789ab"[uint64(n)%12]), 12)))
}

// An answer without scopes has an empty list, and no field is forgotten: one
// more would have to be written here, too.
func TestTokenAnswer(t *testing.T) {
	got := string((&tokenAnswer{}).appendTo(nil))
	if want := `{"access_token":"","token_type":"","expires_in":0,"tenant":"","audience":"","scopes":[],"generation":0,"decision":"","record":{"index":0,"hash":""}}` + "\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n := reflect.TypeFor[tokenAnswer]().NumField() + reflect.TypeFor[mandate.Receipt]().NumField(); n != 11 {
		t.Errorf("there are %d fields", n)
	}
}
