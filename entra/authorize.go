package entra

import (
	"net/url"
	"strings"

	"github.com/mandate-sam/mandate"
)

// An AuthorizeRequest says who is to sign in, where, and for what. Every field
// but LoginHint and Consent is required.
type AuthorizeRequest struct {
	Tenant      mandate.TenantID // whose sign-in page; never "common"
	RedirectURI string           // as registered, and the same when the code is redeemed
	State       string           // finds the transaction again
	Nonce       string           // binds the ID token to the transaction
	Challenge   string           // base64url SHA-256 of the PKCE verifier (RFC 7636)
	Audience    mandate.Audience // the API that the code is for
	LoginHint   string           // user name to fill in; "" for none

	// Consent shows Entra's consent page even to somebody who has consented
	// before. It is what a renewal needs after the application asks for more:
	// with /.default Entra otherwise grants what was consented once, and says
	// nothing.
	Consent bool

	// SignIn asks only who somebody is: no API, no refresh token, and so no
	// consent to what the application may do elsewhere.
	SignIn bool
}

// freshMFA asks for a sign-in with MFA and for its time in the ID token, as in
// OpenID Connect Core 5.5.
const freshMFA = `{"id_token":{"amr":{"essential":true,"values":["mfa"]},"auth_time":{"essential":true}}}`

// AuthorizeURL returns the address to which a browser is sent to sign in. The
// answer comes as a form post: a code in a URL would end in histories and logs.
//
// The sign-in is to be fresh and with MFA. Entra takes one value of prompt, and
// only "consent" shows the consent page again, so with Consent set it is
// max_age=0 that asks for a new sign-in (OpenID Connect Core 3.1.2.1); without,
// prompt=login does, and Entra shows the consent page by itself to those who
// have not consented. Microsoft documents neither max_age nor amr_values nor
// the claims request for certain. They are wishes: what was really done is read
// from the token endpoint's answer, and nothing is concluded from having asked.
//
// With v1 the resource is always named, or conditional access bound to it is
// not evaluated and no MFA is asked for.
func (c *Client) AuthorizeURL(r AuthorizeRequest) string {
	q := url.Values{
		"client_id":             {c.cfg.Application.String()},
		"response_type":         {"code"},
		"response_mode":         {"form_post"},
		"redirect_uri":          {r.RedirectURI},
		"state":                 {r.State},
		"nonce":                 {r.Nonce},
		"code_challenge":        {r.Challenge},
		"code_challenge_method": {"S256"},
		"prompt":                {"login"},
		"max_age":               {"0"},
		"amr_values":            {"mfa"},
		"claims":                {freshMFA},
	}
	if r.Consent {
		q.Set("prompt", "consent")
	}
	if r.LoginHint != "" {
		q.Set("login_hint", r.LoginHint)
	}
	if r.SignIn {
		c.nameSignIn(q)
	} else {
		c.name(q, r.Audience, nil, true)
	}
	return c.endpoint(r.Tenant, "authorize") + "?" + q.Encode()
}

// name puts what is asked for into the parameters: an API and its scopes and,
// to identify the user, an ID token and a refresh token.
//
// "profile" is asked for because without it Entra leaves the user's object ID
// out of a v2 ID token. With v1 no single scope can be asked for, and a refresh
// token comes unasked.
func (c *Client) name(q url.Values, a mandate.Audience, scopes []mandate.Scope, identify bool) {
	if c.cfg.Version == V1 {
		q.Set("resource", string(a))
		if identify {
			q.Set("scope", "openid")
		}
		return
	}
	if len(scopes) == 0 {
		scopes = []mandate.Scope{".default"}
	}
	var ask []string
	for _, s := range scopes {
		// A resource that ends in a slash keeps it: the slash is part of its
		// name, and a second one sets the scope apart.
		ask = append(ask, string(a)+"/"+s)
	}
	if identify {
		ask = append(ask, "openid", "profile", "offline_access")
	}
	q.Set("scope", strings.Join(ask, " "))
}
