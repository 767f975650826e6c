package graph

import (
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

func grantObject(g directory.Grant) map[string]any {
	kind, user := "AllPrincipals", any(nil)
	if g.User != "" {
		kind, user = "Principal", g.User
	}
	return map[string]any{
		"id": g.ID, "clientId": g.ClientPrincipal(), "consentType": kind, "principalId": user,
		"resourceId": g.ResourcePrincipal(), "scope": strings.Join(g.Scopes, " "),
	}
}

func (s *Server) grants(c call) (reply, error) { return s.listGrants(c, "") }

// listGrants lists the tenant's grants, or those of one client.
func (s *Server) listGrants(c call, client string) (reply, error) {
	all := slices.DeleteFunc(s.cfg.Directory.Grants(c.tenant.ID), func(g directory.Grant) bool { return client != "" && g.Client != client })
	return ok(page(c, "oauth2PermissionGrants", all, grantObject))
}

func (s *Server) grantsOf(c call) (reply, error) {
	p, err := s.find(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	return s.listGrants(c, p.App)
}

// grantBody is a delegated permission grant as clients send it.
type grantBody struct {
	ClientID    string  `json:"clientId"`
	ConsentType string  `json:"consentType"`
	PrincipalID *string `json:"principalId"`
	ResourceID  string  `json:"resourceId"`
	Scope       string  `json:"scope"`
}

// createGrant gives a client delegated permissions at a resource, for a user
// or for everyone. Both are named by the object ids of their service
// principals.
func (s *Server) createGrant(c call) (reply, error) {
	var in grantBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	client, err1 := s.find(c, in.ClientID)
	resource, err2 := s.find(c, in.ResourceID)
	if err1 != nil || err2 != nil || resource.Resource.ID == "" || client.Resource.ID != "" {
		return reply{}, invalid("The client or the resource of the grant does not exist in the tenant.")
	}
	user, err := s.principalOf(c, in)
	if err != nil {
		return reply{}, err
	}
	g := directory.Grant{Resource: resource.App, User: user, Scopes: strings.Fields(in.Scope)}
	if !s.cfg.Directory.AddGrants(c.tenant.ID, client.App, g) {
		return reply{}, errGranted
	}
	for _, have := range s.cfg.Directory.Grants(c.tenant.ID) {
		if have.Client == client.App && have.Resource == resource.App && have.User == user {
			body := grantObject(have)
			body["@odata.context"] = context + "oauth2PermissionGrants/$entity"
			return reply{status: http.StatusCreated, body: body}, nil
		}
	}
	return reply{}, errNotFound // removed in the meantime
}

// principalOf is the object id of the user that the grant is for; empty for
// everyone.
func (s *Server) principalOf(c call, in grantBody) (string, error) {
	switch {
	case in.ConsentType == "AllPrincipals" && (in.PrincipalID == nil || *in.PrincipalID == ""):
		return "", nil
	case in.ConsentType == "Principal" && in.PrincipalID != nil:
		u, found := s.cfg.Directory.UserByID(strings.ToLower(*in.PrincipalID))
		if found && u.Tenant == c.tenant.ID {
			return u.ID, nil
		}
	}
	return "", invalid("Invalid value specified for property 'consentType' or 'principalId' of resource 'OAuth2PermissionGrant'.")
}

// given is the grant of the path.
func (s *Server) given(c call) (directory.Grant, error) {
	for _, g := range s.cfg.Directory.Grants(c.tenant.ID) {
		if g.ID == c.PathValue("id") {
			return g, nil
		}
	}
	return directory.Grant{}, errNotFound
}

func (s *Server) grant(c call) (reply, error) {
	g, err := s.given(c)
	if err != nil {
		return reply{}, err
	}
	return one(c, "oauth2PermissionGrants", grantObject(g))
}

// patchGrant replaces the scopes of a grant.
func (s *Server) patchGrant(c call) (reply, error) {
	g, err := s.given(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		Scope *string `json:"scope"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if in.Scope == nil {
		return reply{}, invalid("Only the property 'scope' of resource 'OAuth2PermissionGrant' can be changed.")
	}
	if !s.cfg.Directory.SetGrant(c.tenant.ID, g, append([]string{}, strings.Fields(*in.Scope)...)) {
		return reply{}, errNotFound
	}
	return done, nil
}

func (s *Server) deleteGrant(c call) (reply, error) {
	g, err := s.given(c)
	if err != nil {
		return reply{}, err
	}
	if !s.cfg.Directory.SetGrant(c.tenant.ID, g, nil) {
		return reply{}, errNotFound
	}
	return done, nil
}
