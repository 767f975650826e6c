package entra

import (
	"net/http"
	"slices"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// refusedByDial is the refusal that the owner of the emulator ordered for such
// an attempt at one of the targets, if any.
func (s *Server) refusedByDial(at fault.Attempt, targets ...target) *refusal {
	at.Names = func(name string) bool {
		r, ok := s.cfg.Directory.Resource(name)
		return ok && slices.ContainsFunc(targets, func(t target) bool { return t.resource.ID == r.ID })
	}
	r, ok := s.cfg.Dials.Refuse(at)
	if !ok {
		return nil
	}
	e := refuse(r.Code)
	e.claims, e.cause = r.Claims, r.Cause
	return e
}

// refusedToken is the refusal ordered for the token request.
func (s *Server) refusedToken(a *attempt, tenant, upn string, t target) *refusal {
	return s.refusedByDial(fault.Attempt{
		Endpoint: fault.EndpointToken, Grant: a.form.Get("grant_type"), Tenant: tenant, Client: a.client.ID, User: upn,
	}, t)
}

// refusedRequest is the refusal ordered for the request at the authorization
// endpoint or that for device codes, as far as it is known whom it is about.
func (s *Server) refusedRequest(q *request, endpoint, tenant, upn string) *refusal {
	targets := q.ask.targets
	if want, e := q.asAsk(s); e == nil {
		targets = want.targets
	}
	return s.refusedByDial(fault.Attempt{Endpoint: endpoint, Tenant: tenant, Client: q.client.ID, User: upn}, targets...)
}

// pageCodes are the codes that a person reads on a page of this host: they say
// that the application, its redirect URI or the tenant cannot be relied on, so
// nothing is sent to that URI.
var pageCodes = []int{50011, 900971, 50146, 700016, 7000112, 70001, 90002, 900023, 5000224, 90038, 50194, 50105, 90072}

// sendOrdered answers an authorization request with a refusal ordered by dial.
func (s *Server) sendOrdered(w http.ResponseWriter, q *request, e *refusal) {
	if slices.Contains(pageCodes, e.code) {
		s.errorPageFor(w, q.trace.correlation, e, http.StatusBadRequest)
		return
	}
	s.sendError(w, q, e.as(callbackError(e)))
}

// callbackError is the value of error on the way back to the client, where
// there is no invalid_grant: nothing was granted yet.
func callbackError(e *refusal) string {
	name := e.name(1) // interaction_required for what a person can do something about
	switch {
	case name != "invalid_grant":
		return name
	case e.row().suberror == consentRequired:
		return "consent_required"
	case e.row().suberror == badToken:
		return "login_required"
	}
	return "access_denied"
}
