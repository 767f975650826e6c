package graph

import (
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// appRoles shows the roles of the API with that application id.
func appRoles(app string, roles []directory.AppRole) []any {
	all := []any{}
	for _, r := range roles {
		members := r.Members
		if len(members) == 0 {
			members = []string{directory.MemberApplication, directory.MemberUser}
		}
		all = append(all, map[string]any{
			"id": directory.RoleID(app, r.Value), "value": r.Value, "displayName": r.Value, "description": r.Text,
			"isEnabled": true, "allowedMemberTypes": members, "origin": "Application",
		})
	}
	return all
}

// apiRoles are the roles of the API that the service principal stands for.
func apiRoles(p directory.Principal) []directory.AppRole {
	if p.Resource.ID != "" {
		return p.Resource.Roles
	}
	return p.Application.AppRoles
}

// A roleHolder is whom roles are assigned to: a service principal or a user.
type roleHolder struct {
	key      string // what the directory calls it
	id, name string
	kind     string // of member
}

func (h roleHolder) object(api directory.Principal, value string) map[string]any {
	kind := map[string]string{directory.MemberApplication: "ServicePrincipal", directory.MemberUser: "User"}[h.kind]
	role := directory.RoleID(api.App, value)
	return map[string]any{
		"id": assignmentID(h, api, role), "deletedDateTime": nil, "appRoleId": role, "createdDateTime": stamp(epoch),
		"principalDisplayName": h.name, "principalId": h.id, "principalType": kind,
		"resourceDisplayName": api.Name, "resourceId": api.ID,
	}
}

// assignmentID names the assignment for good: there is one of each kind.
func assignmentID(h roleHolder, api directory.Principal, role string) string {
	return directory.AssignmentID(h.id, api.ID, role)
}

// holderOf is the service principal or user of the path.
func (s *Server) holderOf(c call) (roleHolder, error) {
	if strings.HasPrefix(c.URL.Path, "/v1.0/users/") {
		u, err := s.named(c)
		return roleHolder{u.ID, u.ID, u.Name, directory.MemberUser}, err
	}
	p, err := s.find(c, c.PathValue("id"))
	return roleHolder{p.App, p.ID, p.Name, directory.MemberApplication}, err
}

func (s *Server) roleAssignments(c call) (reply, error) {
	h, err := s.holderOf(c)
	if err != nil {
		return reply{}, err
	}
	all := []map[string]any{}
	for _, api := range s.cfg.Directory.Principals(c.tenant.ID) {
		for _, value := range s.cfg.Directory.AppRoles(c.tenant.ID, h.key, api.App) {
			all = append(all, h.object(api, value))
		}
	}
	return ok(page(c, "appRoleAssignments", all, asIs))
}

// assignRole gives the holder a role of the API that the resource's service
// principal stands for ("Grant an appRoleAssignment"). For an application
// that is consent to an application permission.
func (s *Server) assignRole(c call) (reply, error) {
	h, err := s.holderOf(c)
	if err != nil {
		return reply{}, err
	}
	var in struct{ PrincipalID, ResourceID, AppRoleID string }
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	api, err := s.find(c, in.ResourceID)
	if err != nil || !strings.EqualFold(in.PrincipalID, h.id) {
		return reply{}, invalid("Not a valid reference update.")
	}
	roles := apiRoles(api)
	i := slices.IndexFunc(roles, func(r directory.AppRole) bool {
		return strings.EqualFold(directory.RoleID(api.App, r.Value), in.AppRoleID) && r.For(h.kind)
	})
	if i < 0 {
		return reply{}, invalid("Permission being assigned was not found on application '" + api.App + "'.")
	}
	if slices.Contains(s.cfg.Directory.AppRoles(c.tenant.ID, h.key, api.App), roles[i].Value) {
		return reply{}, invalid("Permission being assigned already exists on the object")
	}
	s.cfg.Directory.AssignRoles(c.tenant.ID, h.key, api.App, roles[i].Value)
	body := h.object(api, roles[i].Value)
	body["@odata.context"] = context + "appRoleAssignments/$entity"
	return reply{status: http.StatusCreated, body: body}, nil
}

func (s *Server) removeRole(c call) (reply, error) {
	h, err := s.holderOf(c)
	if err != nil {
		return reply{}, err
	}
	for _, api := range s.cfg.Directory.Principals(c.tenant.ID) {
		for _, value := range s.cfg.Directory.AppRoles(c.tenant.ID, h.key, api.App) {
			if assignmentID(h, api, directory.RoleID(api.App, value)) == c.PathValue("assignment") {
				s.cfg.Directory.RemoveRoles(c.tenant.ID, h.key, api.App, value)
				return done, nil
			}
		}
	}
	return reply{}, errNotFound
}
