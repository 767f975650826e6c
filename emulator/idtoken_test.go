package emulator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
)

// issuer is the issuer of Contoso's tokens.
func issuer(e *emulator.Emulator, version int) string {
	return e.Endpoints().Login + "/" + emulator.ContosoTenant + map[int]string{1: "/", 2: "/v2.0"}[version]
}

// verify validates an ID token as "OpenID Connect Core 1.0, 3.1.3.7" says, with
// nothing but what the issuer publishes.
func verify(t *testing.T, e *emulator.Emulator, version int, raw string) error {
	t.Helper()
	err := validate(t, e, issuer(e, version), raw)
	if other := library(e, issuer(e, version), raw); (other == nil) != (err == nil) {
		t.Errorf("the library says %v, this test %v", other, err)
	}
	return err
}

func validate(t *testing.T, e *emulator.Emulator, issuer, raw string) error {
	t.Helper()
	meta := call(t, e, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", "")
	if meta.str("issuer") != issuer {
		t.Fatalf("metadata has issuer %q, want %q", meta.str("issuer"), issuer)
	}
	set, err := json.Marshal(call(t, e, meta.str("jwks_uri"), "").raw)
	if err != nil {
		t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return err
	}
	found := keys.Key(tok.Headers[0].KeyID)
	if len(found) != 1 {
		return errors.New("no such key")
	}
	var c jwt.Claims
	if err := tok.Claims(found[0].Key, &c); err != nil {
		return err
	}
	return c.Validate(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{emulator.ApplicationID}, Time: time.Now()})
}

func TestIDTokens(t *testing.T) {
	e := start(t)
	for version, want := range map[int]struct{ has, hasNot []string }{
		1: {[]string{"upn", "unique_name", "amr", "family_name", "given_name", "tid", "oid"}, []string{"preferred_username", "auth_time", "email", "acct"}},
		2: {[]string{"preferred_username", "name", "oid", "tid", "rh", "uti"}, []string{"upn", "unique_name", "amr", "auth_time", "email", "acct", "idp"}},
	} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			reset(t, e)
			raw := consented(t, e, version, "admin@contoso.example").str("id_token")
			if err := verify(t, e, version, raw); err != nil {
				t.Fatal(err)
			}
			c := claims(t, raw)
			if c["nonce"] != "a-nonce" || c["sub"] == "" || c["aud"] != emulator.ApplicationID {
				t.Errorf("got nonce %v, sub %v, aud %v", c["nonce"], c["sub"], c["aud"])
			}
			if got := fmt.Sprint(c["ver"]); got != fmt.Sprintf("%d.0", version) {
				t.Errorf("got ver %s", got)
			}
			for _, name := range want.has {
				if c[name] == nil {
					t.Errorf("%s is missing", name)
				}
			}
			for _, name := range want.hasNot {
				if c[name] != nil {
					t.Errorf("got %s %v, want none", name, c[name])
				}
			}
		})
	}
}

func TestAuthTime(t *testing.T) {
	const ask = `{"id_token":{"auth_time":{"essential":true}}}`
	e := start(t)
	for _, row := range []struct {
		claims, dial string
		present, old bool
	}{
		{"", "", false, false}, {ask, "", true, false}, {`{"id_token":{"auth_time":null}}`, "", true, false},
		{ask, "absent", false, false}, {ask, "old", true, true}, {"", "always", true, false},
	} {
		e.Dial(func(d *emulator.Dials) { d.AuthTime = row.dial })
		before := time.Now().Unix()
		at, ok := claims(t, consented(t, e, 2, "admin@contoso.example", "claims", row.claims, "prompt", "login").str("id_token"))["auth_time"].(float64)
		if ok != row.present || ok && (int64(at) < before) != row.old {
			t.Errorf("claims %q, dial %q: got auth_time %v, %v", row.claims, row.dial, at, ok)
		}
	}
}

func TestGuestTokens(t *testing.T) {
	e := start(t)
	a := consented(t, e, 2, guest)
	for _, name := range []string{"access_token", "id_token"} {
		c := claims(t, a.str(name))
		if idp, _ := c["idp"].(string); c["acct"] != 1.0 || !strings.Contains(idp, emulator.GuestHomeTenant) || c["tid"] != emulator.ContosoTenant {
			t.Errorf("%s: got acct %v, idp %q, tid %v", name, c["acct"], idp, c["tid"])
		}
	}
}

// What the dials spoil, a library refuses; what they merely change, they change.
func TestIDTokenDials(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, row := range []struct {
		name    string
		version int
		dial    func(*emulator.Dials)
		valid   bool
		claim   string
		want    any
	}{
		{"nothing", 2, func(d *emulator.Dials) {}, true, "acct", nil},
		{"unsigned v1", 1, func(d *emulator.Dials) { d.IDToken.Unsigned = true }, false, "tid", emulator.ContosoTenant},
		{"unsigned v2 is not possible", 2, func(d *emulator.Dials) { d.IDToken.Unsigned = true }, true, "tid", emulator.ContosoTenant},
		{"HS256", 2, func(d *emulator.Dials) { d.IDToken.Algorithm = "HS256" }, false, "tid", emulator.ContosoTenant},
		{"signature", 2, func(d *emulator.Dials) { d.IDToken.BadSig = true }, false, "tid", emulator.ContosoTenant},
		{"kid", 2, func(d *emulator.Dials) { d.IDToken.UnknownID = true }, false, "tid", emulator.ContosoTenant},
		{"issuer", 2, func(d *emulator.Dials) { d.IDToken.Issuer = "https://evil.example" }, false, "iss", "https://evil.example"},
		{"audience", 2, func(d *emulator.Dials) { d.IDToken.Audience = "x" }, false, "aud", "x"},
		{"expired", 2, func(d *emulator.Dials) { d.IDToken.Expired = true }, false, "acct", nil},
		{"tid", 2, func(d *emulator.Dials) { d.IDToken.TenantID = "x" }, true, "tid", "x"},
		{"nonce", 2, func(d *emulator.Dials) { d.IDToken.Nonce = "x" }, true, "nonce", "x"},
		{"oid", 2, func(d *emulator.Dials) { d.IDToken.Subject = "x" }, true, "oid", "x"},
		{"idp", 2, func(d *emulator.Dials) { d.IDToken.IDP = "x" }, true, "idp", "x"},
		{"guest", 2, func(d *emulator.Dials) { d.IDToken.Guest = true }, true, "acct", 1.0},
	} {
		t.Run(row.name, func(t *testing.T) {
			e.Dial(func(d *emulator.Dials) { *d = emulator.Dials{} })
			e.Dial(row.dial)
			form := []string{"refresh_token", rt, "scope", "openid"}
			if row.version == 1 {
				form = append(form, "resource", emulator.Graph)
			}
			raw := token(t, e, row.version, "contoso.example", "refresh_token", form...).str("id_token")
			if err := verify(t, e, row.version, raw); (err == nil) != row.valid {
				t.Errorf("verify got %v, want valid: %v", err, row.valid)
			}
			if got := claims(t, raw)[row.claim]; got != row.want {
				t.Errorf("got %s %v, want %v", row.claim, got, row.want)
			}
		})
	}
}
