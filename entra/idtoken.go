package entra

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// personal is the tenant of personal Microsoft accounts.
const personal = "9188040d-6c67-4c5b-b112-36a304b66dad"

// idClaims are the claims of an ID token that are checked or used. aud is one
// string: RFC 7519 allows a list, Entra does not send one, and a token for
// others too is not for us.
type idClaims struct {
	Issuer    string  `json:"iss"`
	Audience  string  `json:"aud"`
	Version   string  `json:"ver"`
	Tenant    string  `json:"tid"`
	Object    string  `json:"oid"`
	Nonce     string  `json:"nonce"`
	Expires   *number `json:"exp"`
	IssuedAt  *number `json:"iat"`
	NotBefore *number `json:"nbf"`

	Preferred string   `json:"preferred_username"` // v2
	UPN       string   `json:"upn"`                // v1
	Unique    string   `json:"unique_name"`        // v1, where there is no UPN
	Name      string   `json:"name"`
	AMR       []string `json:"amr"`
	ACRs      []string `json:"acrs"`   // authentication contexts that were met
	Groups    []string `json:"groups"` // object IDs; absent where there are too many
	AuthTime  *number  `json:"auth_time"`
	Account   *number  `json:"acct"` // 1 is a guest
	IDP       string   `json:"idp"`  // who authenticated the user, if not the tenant
}

// read reads the claims. Those of v2 are nearly always plain; see [flat]. One
// that has a list of methods is read in general.
func (c *idClaims) read(payload []byte) error {
	var amr *number // a list, and so not plain
	ok := flat(payload, []field{
		{name: "iss", text: &c.Issuer}, {name: "aud", text: &c.Audience}, {name: "ver", text: &c.Version}, {name: "tid", text: &c.Tenant},
		{name: "oid", text: &c.Object}, {name: "nonce", text: &c.Nonce},
		{name: "exp", number: &c.Expires}, {name: "iat", number: &c.IssuedAt}, {name: "nbf", number: &c.NotBefore},
		{name: "preferred_username", text: &c.Preferred}, {name: "upn", text: &c.UPN}, {name: "unique_name", text: &c.Unique},
		{name: "name", text: &c.Name}, {name: "auth_time", number: &c.AuthTime}, {name: "acct", number: &c.Account},
		{name: "idp", text: &c.IDP}, {name: "amr", number: &amr},
	})
	if ok && amr == nil {
		return nil
	}
	*c = idClaims{}
	return json.Unmarshal(payload, c)
}

// A tokenError is why an ID token was not accepted. Its text holds nothing of
// the token but issuers and ids.
type tokenError struct {
	reason  mandate.Reason
	detail  string
	unknown bool // the key is not known, or not yet
}

func (e *tokenError) Error() string { return "ID token: " + e.detail }

func bad(format string, args ...any) error {
	return &tokenError{reason: mandate.ReasonToken, detail: fmt.Sprintf(format, args...)}
}

// errUnsigned is about tokens that v1 endpoints are documented to give.
var errUnsigned = bad("it is not signed, as those of v1 endpoints may be; set the application's endpoint version to v2")

// verifyCode verifies the ID token that came with a code.
func (c *Client) verifyCode(ctx context.Context, raw string, r mandate.CodeRedemption) (*mandate.IDToken, error) {
	if raw == "" {
		return nil, bad("none came with the code")
	}
	user, nonce, err := c.verify(ctx, raw, r.Key.Partner)
	if err != nil {
		return nil, err
	}
	// Presence before equality.
	if nonce == "" || r.Nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(r.Nonce)) == 0 {
		return nil, bad("the nonce is missing, or is not the one of this sign-in")
	}
	return user, nil
}

// verify verifies an ID token of one tenant (OpenID Connect Core 3.1.3.7), and
// returns what it says and its nonce. The error is a [*tokenError], or a
// [*mandate.Fault] if Entra's keys could not be fetched.
func (c *Client) verify(ctx context.Context, raw string, tenant mandate.TenantID) (*mandate.IDToken, string, error) {
	user, claims, err := c.verifyFor(ctx, raw, tenant, c.cfg.Application)
	return user, claims.Nonce, err
}

// verifyFor is verify for a token whose audience is one of several.
func (c *Client) verifyFor(ctx context.Context, raw string, tenant mandate.TenantID, audiences ...mandate.AppID) (*mandate.IDToken, idClaims, error) {
	var claims idClaims
	payload, keyIssuer, err := c.signature(ctx, raw)
	if err != nil {
		return nil, claims, err
	}
	if err := claims.read(payload); err != nil {
		return nil, claims, bad("its claims are malformed: %v", err)
	}
	if err := c.checkClaims(claims, tenant, audiences); err != nil {
		return nil, claims, err
	}
	if err := c.checkKeyIssuer(keyIssuer, tenant); err != nil {
		return nil, claims, err
	}
	if err := claims.checkTimes(c.clock.now()); err != nil {
		return nil, claims, err
	}
	user, err := c.user(claims, tenant)
	return user, claims, err
}

// signature returns the payload if an RSA key of Entra's has signed it, and the
// issuer that the key is for.
func (c *Client) signature(ctx context.Context, raw string) ([]byte, string, error) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil && algorithm(raw) == "none" {
		return nil, "", errUnsigned
	}
	if err != nil {
		return nil, "", bad("it is not a JWT signed with RS256")
	}
	key, err := c.keys.get(ctx, jws.Signatures[0].Header.KeyID)
	if err != nil {
		return nil, "", err
	}
	payload, err := jws.Verify(key.public)
	if err != nil {
		return nil, "", bad("the signature is wrong")
	}
	return payload, key.issuer, nil
}

// algorithm returns what the header of a JWT names; it decides only what an
// error says.
func algorithm(raw string) string {
	head, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return ""
	}
	var h struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(b, &h) != nil {
		return ""
	}
	return strings.ToLower(h.Algorithm)
}

func (c *Client) checkClaims(t idClaims, tenant mandate.TenantID, audiences []mandate.AppID) error {
	tid, err := mandate.ParseTenantID(t.Tenant)
	version := "2.0"
	if c.cfg.Version == V1 {
		version = "1.0"
	}
	switch {
	case err != nil:
		return bad("it names no tenant")
	case tid != tenant:
		return &tokenError{reason: mandate.ReasonTenant, detail: fmt.Sprintf("it is of tenant %s, and %s was to sign in", tid, tenant)}
	case t.Issuer != c.issuer(tenant):
		return bad("its issuer is %.120q and not %q", t.Issuer, c.issuer(tenant))
	case !slices.ContainsFunc(audiences, func(a mandate.AppID) bool { return t.Audience == a.String() }):
		return bad("its audience is %.60q and not application %s", t.Audience, audiences[0])
	case t.Version != version:
		return bad("its version is %.10q and not %q", t.Version, version)
	}
	return nil
}

// checkKeyIssuer checks whom the key may sign for. Entra's v2 keys name an
// issuer of their own: the tenants, or the personal accounts. Whoever does not
// check takes a key of the one for tokens of the other. Keys of v1 need not
// name any, and may name that of v2.
func (c *Client) checkKeyIssuer(issuer string, tenant mandate.TenantID) error {
	good := []string{"", c.issuer(tenant), fill(c.cfg.Cloud.IssuerV2, tenant)}
	if got := fill(issuer, tenant); !slices.Contains(good, got) {
		return bad("its key is for issuer %.120q", issuer)
	}
	return nil
}

func (t idClaims) checkTimes(now time.Time) error {
	at := func(n *number) time.Time { return time.Unix(int64(*n), 0) }
	switch {
	case t.Expires == nil || t.IssuedAt == nil:
		return bad("exp or iat is missing")
	case !at(t.Expires).Add(leeway).After(now):
		return bad("it expired at %s; is the clock right?", at(t.Expires).UTC().Format(time.RFC3339))
	case at(t.IssuedAt).After(now.Add(leeway)):
		return bad("it was issued in the future, at %s; is the clock right?", at(t.IssuedAt).UTC().Format(time.RFC3339))
	case t.NotBefore != nil && at(t.NotBefore).After(now.Add(leeway)):
		return bad("it is not valid before %s; is the clock right?", at(t.NotBefore).UTC().Format(time.RFC3339))
	}
	return nil
}

func (c *Client) user(t idClaims, tenant mandate.TenantID) (*mandate.IDToken, error) {
	object, err := mandate.ParseObjectID(t.Object)
	if err != nil {
		return nil, bad("it names no user: oid is missing or malformed")
	}
	u := &mandate.IDToken{
		Identity: mandate.Identity{Tenant: tenant, Object: object},
		UserName: upstream.Clean(first(t.Preferred, t.UPN, t.Unique), 256),
		Name:     upstream.Clean(t.Name, 256),
		Guest:    c.guest(t, tenant),
		AMR:      t.AMR,
	}
	if t.AuthTime != nil && *t.AuthTime > 0 {
		u.AuthTime = time.Unix(int64(*t.AuthTime), 0)
	}
	return u, nil
}

// guest reports whether somebody other than the tenant vouches for the user.
func (c *Client) guest(t idClaims, tenant mandate.TenantID) bool {
	if t.Account != nil && *t.Account == 1 || tenant.String() == personal {
		return true
	}
	home := func(template string) bool {
		return strings.EqualFold(strings.TrimRight(t.IDP, "/"), strings.TrimRight(fill(template, tenant), "/"))
	}
	return t.IDP != "" && !home(c.cfg.Cloud.IssuerV1) && !home(c.cfg.Cloud.IssuerV2)
}

// asRefusal makes of an error of verify what RedeemCode returns.
func asRefusal(err error) error {
	t, ok := errors.AsType[*tokenError](err)
	if !ok {
		return err
	}
	return &mandate.Refusal{Reason: t.reason, Detail: t.Error()}
}

// asFault makes of an error of verify what Redeem returns. A token of another
// tenant than was asked concerns that tenant; anything else that is wrong would
// be wrong for everybody: our client ID, our clock, our kind of endpoint.
func asFault(err error, id string) error {
	t, ok := errors.AsType[*tokenError](err)
	if !ok {
		return err
	}
	f := &mandate.Fault{Description: t.Error(), CorrelationID: id}
	v := faultApplication
	switch {
	case t.unknown:
		v = faultBusy
	case t.reason == mandate.ReasonTenant:
		v = faultTenant
	}
	f.Domain, f.Remedy = v.of(true)
	return f
}
