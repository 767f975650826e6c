package entra

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

const (
	codeLifetime = 10 * time.Minute
	inactivity   = 90 * 24 * time.Hour
	spaLifetime  = 24 * time.Hour
)

// redeemCode is the authorization code grant (RFC 6749, 4.1.3).
func (s *Server) redeemCode(a *attempt) (any, *refusal) {
	value := a.form.Get("code")
	if value == "" {
		return nil, refuse(900144, "code")
	}
	c, e := s.takeCode(a, value)
	if e != nil {
		return nil, e
	}
	u, ok := s.cfg.Directory.UserByID(c.user.ID)
	if !ok {
		return nil, refuse(50034, c.user.UPN, c.tenant)
	}
	if e := fresh(c.issued, u); e != nil {
		return nil, e
	}
	want, e := s.wantedByCode(a, c)
	if e != nil {
		return nil, e
	}
	in := c.signIn
	in.Public = a.public()
	if c.request.spa {
		in.SPA = s.cfg.Dials.Now()
	}
	return s.issue(a, issuance{user: u, tenant: c.tenant, signIn: in, ask: want, fromCode: true})
}

// takeCode checks everything about a code, and uses it up. A request that is
// not entitled to the code leaves it unused.
func (s *Server) takeCode(a *attempt, value string) (*code, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.codes[value]
	if !ok || c.request.client.ID != a.client.ID {
		return nil, refuse(70000)
	}
	a.log.User = c.user.ID
	if e := a.checkSPA(c.request.spa); e != nil {
		return nil, e
	}
	life := s.cfg.Dials.Dials().CodeLifetime
	if life == 0 {
		life = codeLifetime
	}
	if s.cfg.Dials.Now().Sub(c.issued) >= life {
		return nil, refuse(70008)
	}
	if a.tenant != "" && a.tenant != c.tenant {
		return nil, refuse(700005)
	}
	if e := c.checkRedirect(a); e != nil {
		return nil, e
	}
	if !c.request.verifies(a.form.Get("code_verifier")) {
		return nil, refuse(501481)
	}
	if c.used {
		return nil, refuse(54005)
	}
	c.used = true
	return c, nil
}

// checkRedirect compares the redirect URI with that of the authorization
// request. It may be missing if the registration has only one.
func (c *code) checkRedirect(a *attempt) *refusal {
	uri := a.form.Get("redirect_uri")
	if uri == "" && len(c.request.client.RedirectURIs)+len(c.request.client.SPARedirectURIs) == 1 {
		return nil
	}
	if uri == "" {
		return refuse(900144, "redirect_uri")
	}
	if uri != c.request.redirectURI {
		return refuse(500112, uri, c.request.redirectURI)
	}
	return nil
}

// verifies checks the PKCE verifier. An empty one is none, and one without a
// challenge is an attack or a mistake: both are refused.
func (q *request) verifies(verifier string) bool {
	if q.challenge == "" || verifier == "" {
		return q.challenge == verifier
	}
	if q.method == "S256" {
		sum := sha256.Sum256([]byte(verifier))
		verifier = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return subtle.ConstantTimeCompare([]byte(verifier), []byte(q.challenge)) == 1
}

// wantedByCode is what the redemption asks for: what its own parameters say,
// else what the authorization request did. That it did ask for offline_access
// is enough for a refresh token.
func (s *Server) wantedByCode(a *attempt, c *code) (ask, *refusal) {
	if a.version == 2 {
		if a.form.Get("scope") == "" {
			return c.request.asAsk(s)
		}
		want, e := s.parseScope(a.form.Get("scope"))
		if c.request.version == 1 || c.request.ask.has("offline_access") {
			want = want.lasting()
		}
		return want, e
	}
	name := a.form.Get("resource")
	if name == "" {
		name = c.signIn.Resource
	}
	t, e := s.parseResource(name, s.tenantName(c.tenant))
	if e != nil {
		return ask{}, e
	}
	if r, ok := s.cfg.Directory.Resource(c.request.resource); ok && r.ID != t.resource.ID {
		return ask{}, refuse(90023, "resource")
	}
	return v1Ask(t), nil
}

// asAsk is what the authorization request asked for, of whatever version.
func (q *request) asAsk(s *Server) (ask, *refusal) {
	if q.version == 2 {
		return q.ask, nil
	}
	t, e := s.parseResource(q.resource, s.tenantName(q.tenant))
	return v1Ask(t), e
}

// v1Ask is a v1 request for the target: always with an ID token and a refresh
// token.
func v1Ask(t target) ask {
	return ask{oidc: []string{"openid", "profile", "email", "offline_access"}, targets: []target{t}}
}

// redeemRefresh is the refresh token grant (RFC 6749, 6). A refresh token is
// bound to user and client: it is good for any resource, in any tenant in
// which the user may act. Using it does not end it, and brings a new one
// whatever the scope ("Get access on behalf of a user").
func (s *Server) redeemRefresh(a *attempt) (any, *refusal) {
	value := a.form.Get("refresh_token")
	if value == "" {
		return nil, refuse(900144, "refresh_token")
	}
	rt, in, ok := s.cfg.Ledger.Find(value)
	if !ok {
		return nil, refuse(70000)
	}
	a.log.Presented, a.log.User = rt.Number, rt.User
	if rt.Client != a.client.ID {
		return nil, refuse(70000)
	}
	u, ok := s.cfg.Directory.UserByID(rt.User)
	if !ok {
		return nil, refuse(50034, rt.User, rt.Tenant)
	}
	if e := a.checkSPA(!in.SPA.IsZero()); e != nil {
		return nil, e
	}
	if e := s.alive(rt, in, u); e != nil {
		return nil, e
	}
	tenant := a.tenant
	if tenant == "" {
		tenant = rt.Tenant
	}
	a.log.Tenant = tenant
	want, e := s.wantedByRefresh(a, in)
	if e != nil {
		return nil, e
	}
	body, e := s.issue(a, issuance{user: u, tenant: tenant, signIn: in, ask: want.lasting()})
	if e == nil {
		s.cfg.Ledger.Use(rt.Number, s.cfg.Dials.Now())
	}
	return body, e
}

// alive refuses a refresh token that was revoked, lay idle for too long or goes
// back to too old a sign-in. A password that was changed ends the refresh
// tokens of public clients only ("Refresh tokens in the Microsoft identity
// platform", revocation).
func (s *Server) alive(rt token.Refresh, in token.SignIn, u directory.User) *refusal {
	if e := fresh(rt.Issued, u); e != nil {
		return e
	}
	if in.Public && rt.Issued.Before(u.PasswordChanged) {
		return revoked(rt.Issued, u.PasswordChanged)
	}
	dials := s.cfg.Dials.Dials().SignIn
	now := s.cfg.Dials.Now()
	if n := dials.FrequencySeconds; n > 0 && now.Sub(in.Time) >= time.Duration(n)*time.Second {
		return refuse(70043)
	}
	if n := dials.UsedRefreshSeconds; n > 0 && !rt.Replaced.IsZero() && now.Sub(rt.Replaced) >= time.Duration(n)*time.Second {
		return refuse(70000)
	}
	window := s.secondsOr(dials.RefreshWindowSeconds, inactivity)
	if !in.SPA.IsZero() && now.Sub(in.SPA) >= min(window, spaLifetime) {
		return refuse(700084)
	}
	if now.Sub(maxTime(rt.Issued, rt.Used)) >= window {
		return refuse(700082, rt.Issued.UTC().Format(time.RFC3339))
	}
	return nil
}

// fresh refuses what was issued before the user's tokens were revoked.
func fresh(issued time.Time, u directory.User) *refusal {
	if !issued.Before(u.ValidFrom) {
		return nil
	}
	return revoked(issued, u.ValidFrom)
}

func revoked(issued, since time.Time) *refusal {
	const iso = "2006-01-02T15:04:05.0000000Z"
	return refuse(50173, issued.UTC().Format(iso), since.UTC().Format(iso))
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *Server) wantedByRefresh(a *attempt, in token.SignIn) (ask, *refusal) {
	if a.version == 2 {
		if a.form.Get("scope") == "" {
			return ask{}, refuse(900144, "scope")
		}
		return s.parseScope(a.form.Get("scope"))
	}
	name := a.form.Get("resource")
	if name == "" {
		name = in.Resource
	}
	t, e := s.parseResource(name, s.tenantName(a.tenant))
	want := v1Ask(t)
	if !contains(strings.Fields(a.form.Get("scope")), "openid") {
		want.oidc = []string{"offline_access"}
	}
	return want, e
}

// clientCredentials is the client credentials grant (RFC 6749, 4.4).
func (s *Server) clientCredentials(a *attempt) (any, *refusal) {
	if a.tenant == "" {
		return nil, refuse(50059)
	}
	t, e := s.appTarget(a)
	if e != nil {
		return nil, e
	}
	a.log.Resource = t.audience
	if e := s.refusedToken(a, a.tenant, "", t); e != nil {
		return nil, e
	}
	if !s.cfg.Directory.Installed(a.tenant, a.client.ID) {
		return nil, refuse(700016, a.client.ID, s.tenantName(a.tenant))
	}
	return s.issueToApp(a, t)
}

// appTarget is the resource that an application asks for on its own behalf.
// Scopes of OpenID Connect are ignored, because clients add them to anything.
func (s *Server) appTarget(a *attempt) (target, *refusal) {
	if a.version == 1 {
		if a.form.Get("resource") == "" {
			return target{}, refuse(900144, "resource")
		}
		return s.parseResource(a.form.Get("resource"), s.tenantName(a.tenant))
	}
	scope := a.form.Get("scope")
	want, e := s.parseScope(scope)
	if e != nil {
		return target{}, e
	}
	if len(want.targets) != 1 || len(want.targets[0].scopes) > 0 {
		return target{}, refuse(70011, scope)
	}
	return want.targets[0], nil
}
