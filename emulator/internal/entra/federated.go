package entra

import (
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// foreign is a token of another issuer that is presented as a client
// assertion ("Workload identity federation"), parsed and not yet believed.
type foreign struct {
	token           *jwt.JSONWebToken
	issuer, subject string
	audience        []string
}

// parseForeign reads a token of any issuer. What it cannot read may still be
// an assertion of the application's own, which may be encoded less strictly.
func parseForeign(raw string) (foreign, bool) {
	if len(raw) > maxAssertion {
		return foreign{}, false
	}
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return foreign{}, false
	}
	var c jwt.Claims
	if t.UnsafeClaimsWithoutVerification(&c) != nil || c.Issuer == "" {
		return foreign{}, false
	}
	return foreign{t, c.Issuer, c.Subject, c.Audience}, true
}

// check accepts the token if one of the application's federated credentials
// does.
func (f foreign) check(app directory.Application, now time.Time) *refusal {
	if len(app.Federated) == 0 && !strings.Contains(f.issuer, ":") {
		return refuse(700021) // no issuer at all: an assertion of another application
	}
	c, e := f.match(app.Federated)
	if e != nil {
		return e
	}
	var claims jwt.Claims
	if e := f.verify(c, &claims); e != nil {
		return e
	}
	return checkTimes(claims, now)
}

// match finds the credential that names the token's issuer, subject and
// audience, or says which of them none of the credentials names.
func (f foreign) match(list []directory.Federated) (directory.Federated, *refusal) {
	audience := short(strings.Join(f.audience, " "))
	e := refuse(70021, short(f.issuer), short(f.subject), audience)
	if len(list) > 0 {
		e = refuse(700211, short(f.issuer))
	}
	for _, c := range list {
		switch {
		case c.Issuer != f.issuer:
		case c.Subject != f.subject:
			e = refuse(700213, short(f.subject))
		case !slices.Contains(f.audience, audienceOf(c)):
			e = refuse(700212, audience)
		default:
			return c, nil
		}
	}
	return directory.Federated{}, e
}

func audienceOf(c directory.Federated) string {
	if c.Audience == "" {
		return directory.FederatedAudience
	}
	return c.Audience
}

// verify checks the signature with the issuer's key that the header names.
func (f foreign) verify(c directory.Federated, claims *jwt.Claims) *refusal {
	set, err := c.KeySet()
	if err != nil {
		return refuse(700027, "The key was not found.")
	}
	keys := set.Key(f.token.Headers[0].KeyID)
	if len(keys) == 0 {
		return refuse(700027, "The key was not found.")
	}
	for _, k := range keys {
		if f.token.Claims(k.Key, claims) == nil {
			return nil
		}
	}
	return refuse(700027, "The key was found, but the signature is not valid.")
}

func checkTimes(c jwt.Claims, now time.Time) *refusal {
	if c.Expiry == nil {
		return refuse(50027, "The client assertion has no exp.")
	}
	from := now
	if c.NotBefore != nil {
		from = c.NotBefore.Time()
	}
	if end := c.Expiry.Time(); now.After(end.Add(skew)) || now.Before(from.Add(-skew)) {
		return refuse(700024, now.UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	return nil
}
