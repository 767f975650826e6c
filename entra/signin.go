package entra

import (
	"context"
	"net/url"

	"github.com/mandate-sam/mandate"
)

// nameSignIn asks for an ID token and nothing else. With v1 a resource must be
// named all the same, and a refresh token may come unasked: it is dropped.
func (c *Client) nameSignIn(q url.Values) {
	if c.cfg.Version == V1 {
		q.Set("resource", string(c.signInAudience()))
		q.Set("scope", "openid")
		return
	}
	q.Set("scope", "openid profile")
}

// signInAudience is whose access token comes with an ID token.
func (c *Client) signInAudience() mandate.Audience {
	return c.cfg.Cloud.Audiences[mandate.Graph].Resource
}

// SignIn redeems the code of somebody who signed in at r.Key.Partner's tenant
// (see [AuthorizeRequest].SignIn), and returns what the ID token says, which is
// verified in full. Every other token of the answer is forgotten here.
//
// The error is a [*mandate.Refusal], also about a guest, or a
// [*mandate.Fault].
func (c *Client) SignIn(ctx context.Context, r mandate.CodeRedemption) (*mandate.IDToken, error) {
	a := c.signInAudience()
	if f := c.refuse(r.Key, r.Key.Partner, a, nil); f != nil {
		return nil, f
	}
	if r.Nonce == "" || r.Verifier.IsZero() {
		return nil, &mandate.Refusal{Reason: mandate.ReasonTransaction, Detail: "the transaction has no nonce or no PKCE verifier"}
	}
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {r.Code.Reveal()},
		"code_verifier": {r.Verifier.Reveal()},
		"redirect_uri":  {r.RedirectURI},
	}
	c.nameSignIn(form)
	answer, err := c.ask(ctx, r.Key.Partner, a, form, true)
	if err != nil {
		return nil, err
	}
	user, err := c.verifyCode(ctx, answer.idToken, r)
	switch {
	case err != nil:
		return nil, asRefusal(err)
	case user.Guest:
		return nil, &mandate.Refusal{Reason: mandate.ReasonGuest}
	}
	return user, nil
}
