package graph

import (
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// microsoftTenant owns the resources.
const microsoftTenant = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"

func principalObject(p directory.Principal) map[string]any {
	names, scopes, owner := []string{p.App}, []any{}, p.Owner
	if p.Resource.ID != "" {
		owner = microsoftTenant
		names = append(names, p.Resource.URIs...)
	}
	for _, sc := range p.Resource.Scopes {
		kind := "User"
		if sc.Admin {
			kind = "Admin"
		}
		scopes = append(scopes, map[string]any{
			"id": directory.PermissionID(p.Resource.ID, sc.Name), "value": sc.Name, "type": kind, "isEnabled": true,
			"adminConsentDisplayName": sc.Text, "adminConsentDescription": sc.Text, "userConsentDisplayName": sc.Text, "userConsentDescription": sc.Text,
		})
	}
	return map[string]any{
		"id": p.ID, "appId": p.App, "displayName": p.Name, "appDisplayName": p.Name, "appOwnerOrganizationId": owner,
		"servicePrincipalType": "Application", "accountEnabled": true, "servicePrincipalNames": names, "tags": []string{},
		"oauth2PermissionScopes": scopes, "appRoles": appRoles(p.App, apiRoles(p)), "signInAudience": "AzureADMultipleOrgs",
		"passwordCredentials": []any{}, "keyCredentials": []any{},
	}
}

func (s *Server) principals(c call) (reply, error) {
	return ok(page(c, "servicePrincipals", s.cfg.Directory.Principals(c.tenant.ID), principalObject))
}

// find is the tenant's service principal with that object id, or with that
// application id if the path says so.
func (s *Server) find(c call, id string) (directory.Principal, error) {
	if app, named := strings.CutPrefix(id, appIDPrefix); named {
		id = directory.PrincipalID(c.tenant.ID, strings.ToLower(app))
	}
	for _, p := range s.cfg.Directory.Principals(c.tenant.ID) {
		if strings.EqualFold(p.ID, id) {
			return p, nil
		}
	}
	return directory.Principal{}, errNotFound
}

func (s *Server) principal(c call) (reply, error) {
	p, err := s.find(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	return one(c, "servicePrincipals", principalObject(p))
}

// createPrincipal installs an application, or a Microsoft resource that is
// missing, in the tenant.
func (s *Server) createPrincipal(c call) (reply, error) {
	var in struct {
		AppID string `json:"appId"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	app := strings.ToLower(in.AppID)
	_, isApp := s.cfg.Directory.Application(app)
	r, isResource := s.cfg.Directory.Resource(app)
	if !isApp && (!isResource || r.Application || r.ID != app) {
		return reply{}, &apiError{status: 400, code: "Request_BadRequest", text: "The appId of the service principal does not reference a valid application object."}
	}
	if !s.cfg.Directory.AddPrincipal(c.tenant.ID, app) {
		return reply{}, &apiError{
			status: 409, code: "Request_MultipleObjectsWithSameKeyValue",
			text: "The service principal cannot be created, updated, or restored because the service principal name " + app + " is already in use.",
		}
	}
	p, err := s.find(c, directory.PrincipalID(c.tenant.ID, app))
	if err != nil {
		return reply{}, err
	}
	s.cfg.Directory.DelayPrincipal(c.tenant.ID, app, s.usable())
	body := principalObject(p)
	body["@odata.context"] = context + "servicePrincipals/$entity"
	return reply{status: http.StatusCreated, body: body}, nil
}

func (s *Server) deletePrincipal(c call) (reply, error) {
	p, err := s.find(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	s.cfg.Directory.RemovePrincipal(c.tenant.ID, p.App)
	return done, nil
}
