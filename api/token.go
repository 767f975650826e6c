package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A TokenRequest is the body of POST /v1/tokens. Partner, audience and purpose
// are required, unless the caller's registration binds them.
type TokenRequest struct {
	Partner     string   `json:"partner,omitempty"`      // short name or tenant id
	Tenant      string   `json:"tenant,omitempty"`       // a tenant id; the partner's own if empty
	Audience    string   `json:"audience,omitempty"`     // alias or resource URI
	Scopes      []string `json:"scopes,omitempty"`       // none, or RESOURCE/.default, for all that was consented
	Purpose     string   `json:"purpose,omitempty"`      // a name that policy knows
	Ticket      string   `json:"ticket,omitempty"`       // reference, for the record
	Claims      string   `json:"claims,omitempty"`       // a claims challenge, as JSON
	MinLifetime int64    `json:"min_lifetime,omitempty"` // seconds that the token must live at least
	UserToken   string   `json:"user_token,omitempty"`   // ID token of the partner's user on whose behalf it is
}

// token is POST /v1/tokens.
func (s *Server) token(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.ReadQuick(w, r, quickRequest)
	if err != nil {
		return err
	}
	binding, bound, err := s.bind(caller, asks{&in.Partner, &in.Tenant, &in.Audience, &in.Purpose})
	if err != nil {
		return err
	}
	req, err := s.parseToken(web.RequestID(r.Context()), in)
	if err == nil {
		err = s.admit(r.Context(), &req, caller, binding, bound, in.UserToken)
	}
	if err != nil {
		return s.refuse(r.Context(), caller, mandate.UseToken, err)
	}
	tok, err := s.current(r.Context(), req)
	if err != nil {
		return err
	}
	a := tokenAnswer{
		AccessToken: tok.Access.Reveal(), TokenType: "Bearer", ExpiresIn: max(0, int64(time.Until(tok.Expires).Seconds())),
		Tenant: tok.Tenant, Audience: tok.Audience, Scopes: tok.Scopes,
		Generation: tok.Generation, Decision: tok.Rule, Record: tok.Receipt,
	}
	return a.write(w, r, func() error { return s.still(tok.Epoch) })
}

// handOvers is how often a token is asked for again that was overtaken by a
// change of security state on its way out.
const handOvers = 3

// current returns a token of the epoch in force: a process may have stood still
// since the broker looked, for however long, and may have read of a newer epoch
// before this goroutine went on.
func (s *Server) current(ctx context.Context, req mandate.Request) (tok mandate.Token, err error) {
	for range handOvers {
		if tok, err = s.cfg.Broker.Token(ctx, req); err != nil {
			return mandate.Token{}, err
		}
		req.ID = "" // of another time that it is decided
		err := s.still(tok.Epoch)
		if err == nil {
			return tok, nil
		}
		if !errors.Is(err, mandate.ErrSuperseded) {
			return mandate.Token{}, err
		}
	}
	return mandate.Token{}, fmt.Errorf("%w: security state kept changing while the token was on its way", mandate.ErrUnavailable)
}

// still reports whether an epoch is the one in force, and wraps
// [mandate.ErrSuperseded] if it is not. It is the last that is asked before a
// token leaves.
func (s *Server) still(epoch int64) error {
	now, err := s.cfg.Epoch.Epoch()
	if err == nil && now != epoch {
		err = fmt.Errorf("%w: epoch %d, and now it is %d", mandate.ErrSuperseded, epoch, now)
	}
	return err
}

// parseToken turns what a caller wrote into the domain's terms. Its records have
// the request id of the answer, so that either leads to the other.
func (s *Server) parseToken(id string, in TokenRequest) (mandate.Request, error) {
	req := mandate.Request{ID: id, Use: mandate.UseToken, Purpose: in.Purpose, Ticket: in.Ticket}
	// Bounded, so that the multiplication cannot overflow; Check knows the
	// limits.
	req.MinLifetime = time.Duration(min(max(in.MinLifetime, -1), 1<<20)) * time.Second
	cloud, err := s.resolve(&req, in.Partner, in.Tenant, in.Audience)
	if err != nil {
		return req, err
	}
	if req.Scopes, err = parseScopes(&cloud, req.Audience, in.Scopes); err != nil {
		return req, err
	}
	req.Claims, err = mandate.ParseClaims(in.Claims)
	return req, err
}

// resolve sets the partner, tenant and audience of req, and returns the
// partner's cloud.
func (s *Server) resolve(req *mandate.Request, partner, tenant, audience string) (cloud mandate.Cloud, err error) {
	if !mandate.Name(partner) {
		return cloud, mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	p, err := s.cfg.Partners.Partner(partner)
	if err != nil {
		return cloud, err
	}
	if cloud, err = s.cloud(p); err != nil {
		return cloud, err
	}
	req.Partner, req.Tenant = p, p.Key.Partner
	if tenant != "" {
		if req.Tenant, err = mandate.ParseTenantID(tenant); err != nil {
			return cloud, err
		}
	}
	if audience == "" {
		return cloud, mandate.Invalid("audience", "is required: say which API the token is for")
	}
	req.Audience, err = cloud.Resolve(audience)
	return cloud, err
}

// parseScopes returns the permissions' names as the audience calls them. A
// scope may be written with the resource in front, as OAuth clients do, and
// /.default is what no scope at all is.
func parseScopes(cloud *mandate.Cloud, a mandate.Audience, in []string) ([]mandate.Scope, error) {
	if len(in) == 0 {
		return nil, nil
	}
	resource := strings.TrimSuffix(string(a), "/") + "/"
	out := make([]mandate.Scope, 0, len(in))
	for _, s := range in {
		s = strings.TrimPrefix(s, resource)
		if s == "" {
			return nil, mandate.Invalid("scopes", "has an empty one")
		}
		if s != ".default" && strings.HasSuffix(s, "/.default") {
			return nil, mandate.Invalid("scopes", "%.80q is of another API than %s", s, cloud.Alias(a))
		}
		out = append(out, s)
	}
	if len(out) == 1 && out[0] == ".default" {
		return []mandate.Scope{}, nil
	}
	if slices.Contains(out, ".default") {
		return nil, mandate.Invalid("scopes", "has .default, which means all of them, and others")
	}
	return mandate.NormalScopes(out), nil
}
