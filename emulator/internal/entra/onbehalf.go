package entra

import (
	"errors"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// onBehalfGrant is the name of the on-behalf-of grant (RFC 7523, 2.1, with
// requested_token_use).
const onBehalfGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// onBehalfOf exchanges a user's token for the calling application's API for
// tokens for another API ("OAuth 2.0 On-Behalf-Of flow"). The user, and how
// they signed in, stay; the consent is the calling application's.
func (s *Server) onBehalfOf(a *attempt) (any, *refusal) {
	needed := []string{"assertion", "requested_token_use"}
	if a.version == 1 {
		needed = append(needed, "resource")
	}
	for _, name := range needed {
		if a.form.Get(name) == "" {
			return nil, refuse(900144, name)
		}
	}
	if a.form.Get("requested_token_use") != "on_behalf_of" {
		return nil, refuse(90023, "requested_token_use")
	}
	c, u, e := s.userAssertion(a)
	if e != nil {
		return nil, e
	}
	in := token.SignIn{
		User: u.ID, Tenant: u.Tenant, Client: a.client.ID, AMR: c.Methods, ACRs: c.ACRs,
		Time: time.Unix(c.IssuedAt, 0),
	}
	want, e := s.wantedByRefresh(a, in)
	if e != nil {
		return nil, e
	}
	return s.issue(a, issuance{user: u, tenant: c.Tenant, signIn: in, ask: want})
}

// userAssertion returns what the assertion says and whom it is about, if it is
// in force and was issued to be used here.
func (s *Server) userAssertion(a *attempt) (token.Claims, directory.User, *refusal) {
	raw := a.form.Get("assertion")
	c, err := s.cfg.Key.Verify(raw, s.cfg.Dials.Now())
	switch {
	case errors.Is(err, token.ErrExpired):
		return c, directory.User{}, refuse(500133)
	case err != nil && strings.Count(raw, ".") != 2:
		e := refuse(50027, "The assertion is not a token.").as("invalid_grant")
		e.status = 400
		return c, directory.User{}, e
	case err != nil:
		return c, directory.User{}, refuse(50013, "The key was not found, or the signature is not valid.")
	}
	if e := s.meantFor(a, c); e != nil {
		return c, directory.User{}, e
	}
	u, ok := s.cfg.Directory.UserByID(c.User)
	if !ok {
		return c, u, refuse(50034, c.UPN, s.tenantName(c.Tenant))
	}
	a.log.User = u.ID
	return c, u, fresh(time.UnixMicro(c.IssuedMicro), u)
}

// meantFor refuses what is no user's access token for the calling
// application, in the tenant addressed. An ID token carries no scp.
func (s *Server) meantFor(a *attempt, c token.Claims) *refusal {
	r, ok := s.cfg.Directory.Resource(c.Audience)
	switch {
	case !ok || r.ID != a.client.ID:
		return refuse(50013, "The audience of the assertion is not the application that presents it.")
	case c.Type == "app" || c.Scope == "":
		return refuse(50013, "The assertion is not a user's access token.")
	case a.tenant != "" && a.tenant != c.Tenant:
		return refuse(50013, "The assertion was issued by another tenant.")
	}
	return nil
}
