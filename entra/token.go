package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// maxAnswer is the longest answer that is read, in bytes. A token response with
// every group claim there is has a tenth of that.
const maxAnswer = 1 << 20

// Redeem implements [mandate.Authority].
//
// At the partner's own tenant it asks for an ID token, which must be of that
// tenant. One that does not verify is a [*Fault] and not a token: an answer
// that is wrong about who it is for is not trusted in the rest. At a customer's
// tenant it asks for nothing but the access token: an ID token there names
// users as that tenant knows them, and a refresh token from there must not
// replace the partner's.
func (c *Client) Redeem(ctx context.Context, r mandate.Redemption) (mandate.Redeemed, error) {
	own := r.Tenant == r.Key.Partner
	if f := c.refuse(r.Key, r.Tenant, r.Audience, r.Scopes); f != nil {
		return mandate.Redeemed{}, f
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.Refresh.Reveal()}}
	c.name(form, r.Audience, r.Scopes, own)
	if r.Claims != "" {
		form.Set("claims", r.Claims)
	}
	a, err := c.ask(ctx, r.Tenant, r.Audience, form, own)
	if !own {
		a.Refresh = mandate.Secret{}
	}
	if err != nil || !own || a.idToken == "" {
		return a.Redeemed, err
	}
	user, _, err := c.verify(ctx, a.idToken, r.Tenant)
	if err != nil {
		return mandate.Redeemed{}, asFault(err, a.CorrelationID)
	}
	a.User = user
	return a.Redeemed, nil
}

// RedeemCode implements [mandate.Authority]. A missing ID token is a refusal,
// as is one without the nonce.
func (c *Client) RedeemCode(ctx context.Context, r mandate.CodeRedemption) (mandate.Redeemed, error) {
	if f := c.refuse(r.Key, r.Key.Partner, r.Audience, nil); f != nil {
		return mandate.Redeemed{}, f
	}
	if r.Nonce == "" || r.Verifier.IsZero() {
		return mandate.Redeemed{}, &mandate.Refusal{Reason: mandate.ReasonTransaction, Detail: "the transaction has no nonce or no PKCE verifier"}
	}
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {r.Code.Reveal()},
		"code_verifier": {r.Verifier.Reveal()},
		"redirect_uri":  {r.RedirectURI},
	}
	c.name(form, r.Audience, nil, true)
	a, err := c.ask(ctx, r.Key.Partner, r.Audience, form, true)
	if err != nil {
		return mandate.Redeemed{}, err
	}
	user, err := c.verifyCode(ctx, a.idToken, r)
	if err != nil {
		return mandate.Redeemed{}, asRefusal(err)
	}
	a.User = user
	return a.Redeemed, nil
}

// refuse says why a redemption is not even sent: it is for another application
// or cloud, whose refresh token is nothing to us, or it names something that
// would change what is asked.
func (c *Client) refuse(key mandate.GrantKey, tenant mandate.TenantID, a mandate.Audience, scopes []mandate.Scope) *mandate.Fault {
	switch {
	case key.Application != c.cfg.Application || key.Cloud != c.cfg.Cloud.Name:
		return configure(mandate.DomainApplication, "the grant is of application %s in cloud %.40q, and this client is application %s in cloud %q",
			key.Application, key.Cloud, c.cfg.Application, c.cfg.Cloud.Name)
	case key.Partner.IsZero() || tenant.IsZero():
		return configure(mandate.DomainGrant, "no tenant is named")
	case !isScope(string(a)):
		return configure(mandate.DomainAudience, "%.80q is not the name of an API", a)
	}
	if i := slices.IndexFunc(scopes, func(s mandate.Scope) bool { return !isScope(s) }); i >= 0 {
		return configure(mandate.DomainAudience, "%.80q is not a scope", scopes[i])
	}
	return nil
}

func configure(d mandate.Domain, format string, args ...any) *mandate.Fault {
	return &mandate.Fault{Domain: d, Remedy: mandate.RemedyConfigure, Description: fmt.Sprintf(format, args...)}
}

// isScope reports whether s is one scope-token of RFC 6749, section 3.3. A
// space in it would ask for a second scope.
func isScope(s string) bool {
	return s != "" && len(s) <= 512 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' }) < 0
}

// codeTimes is Entra's code for an assertion that is not valid at the time.
const codeTimes = 700024

// ask sends a form to the token endpoint of a tenant, once; or twice, if the
// first answer shows that our assertion was refused because our clock is
// wrong. Its error is a [*mandate.Fault] in which nothing of the form can be
// read.
func (c *Client) ask(ctx context.Context, tenant mandate.TenantID, a mandate.Audience, form url.Values, own bool) (answer, error) {
	out, wrong, f := c.askOnce(ctx, tenant, a, form, own)
	if f != nil && wrong && slices.Contains(f.Codes, codeTimes) {
		out, _, f = c.askOnce(ctx, tenant, a, form, own)
	}
	if f != nil {
		return answer{}, f
	}
	return out, nil
}

// askOnce also reports whether our clock was found to be wrong.
func (c *Client) askOnce(ctx context.Context, tenant mandate.TenantID, a mandate.Audience, form url.Values, own bool) (answer, bool, *mandate.Fault) {
	tokenURL := c.endpoint(tenant, "token")
	form.Set("client_id", c.cfg.Application.String())
	now := c.clock.now()
	if err := c.cfg.Credential.Authenticate(ctx, form, c.cfg.Application, tokenURL, now); err != nil {
		return answer{}, false, credentialFault(ctx, censor(form), err)
	}
	x := exchange{id: upstream.RequestID(), sent: time.Now(), audience: a, own: own, censor: censor(form)}
	status, header, body, err := c.post(ctx, tokenURL, x.id, form)
	if err != nil {
		return answer{}, false, transport(x.id, x.censor, err)
	}
	wrong := c.clock.hear(header, x.sent, now)
	out, f := x.read(status, header, body)
	return out, wrong, f
}

// credentialFault says that we could not even prove who we are.
func credentialFault(ctx context.Context, r *strings.Replacer, err error) *mandate.Fault {
	if ctx.Err() != nil {
		return transport("", r, ctx.Err())
	}
	f := &mandate.Fault{Domain: mandate.DomainApplication, Remedy: mandate.RemedyCredential, Cause: upstream.Redact(r, err)}
	if errors.Is(err, mandate.ErrInvalid) {
		return f
	}
	f.Remedy = mandate.RemedyRetry // a remote signer that did not answer
	var refused interface{ Temporary() bool }
	if errors.As(err, &refused) && !refused.Temporary() {
		f.Remedy = mandate.RemedyConfigure
	}
	return f
}

// transport is the fault of an exchange without an answer.
func transport(id string, r *strings.Replacer, err error) *mandate.Fault {
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Cause: upstream.Redact(r, err), CorrelationID: id}
}

// post sends a form once. What net/http repeats by itself is only what provably
// never reached the server.
func (c *Client) post(ctx context.Context, tokenURL, id string, form url.Values) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("client-request-id", id)
	req.Header.Set("return-client-request-id", "true")
	return upstream.Do(c.http, req, maxAnswer)
}
