package graph

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

func userObject(u directory.User) map[string]any {
	return map[string]any{
		"id": u.ID, "displayName": u.Name, "givenName": u.GivenName, "surname": u.Surname,
		"userPrincipalName": u.UPN, "mail": u.Mail, "businessPhones": []string{},
		"jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "preferredLanguage": nil,
	}
}

// holder is the user object of the token. A delegated administrator has none
// in a customer's tenant.
func (c call) holder() (directory.User, error) {
	if c.token.AppOnly() {
		return directory.User{}, errDelegated
	}
	if c.token.Holder.Tenant != c.tenant.ID {
		return directory.User{}, errNotFound
	}
	return c.token.Holder, nil
}

// named is the user that the path names, by object id or UPN; the token's if
// it names none.
func (s *Server) named(c call) (directory.User, error) {
	id := c.PathValue("id")
	if id == "" {
		return c.holder()
	}
	if u, found := s.cfg.Directory.UserByID(strings.ToLower(id)); found && u.Tenant == c.tenant.ID {
		return u, nil
	}
	if u, found := s.cfg.Directory.User(c.tenant.ID, id); found && strings.EqualFold(u.UPN, id) {
		return u, nil
	}
	return directory.User{}, errNotFound
}

func (s *Server) me(c call) (reply, error) { return s.user(c) }

func (s *Server) user(c call) (reply, error) {
	u, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	return one(c, "users", userObject(u))
}

// roleNames are what directory roles are called.
var roleNames = map[string]string{
	directory.RoleGlobalAdmin: "Global Administrator", directory.RoleCloudAppAdmin: "Cloud Application Administrator",
	directory.RoleAppAdmin: "Application Administrator", directory.RolePrivileged: "Privileged Role Administrator",
	directory.RoleGlobalReader: "Global Reader",
}

// memberOf lists the agent groups, which are security groups, and directory
// roles; those of one type, if the path names it. No group is in another, so
// that what is transitive is the same.
func (s *Server) memberOf(c call) (reply, error) {
	u, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	kind := strings.TrimPrefix(strings.ToLower(c.PathValue("type")), "microsoft.") // the schema's alias is "graph"
	if kind != "" && kind != "graph.group" && kind != "graph.directoryrole" {
		return reply{}, errSegment
	}
	items := []map[string]any{}
	for _, m := range slices.Concat(groupsOf(u), rolesOf(u)) {
		if t := m["@odata.type"].(string); kind == "" || strings.EqualFold(t, "#microsoft."+kind) {
			items = append(items, m)
		}
	}
	return ok(page(c, "directoryObjects", items, asIs))
}

func groupsOf(u directory.User) (items []map[string]any) {
	for _, g := range u.Groups {
		items = append(items, map[string]any{
			"@odata.type": "#microsoft.graph.group", "id": directory.GroupID(u.Tenant, g), "displayName": g,
			"securityEnabled": true, "mailEnabled": false, "groupTypes": []string{}, "mailNickname": g,
		})
	}
	return items
}

func rolesOf(u directory.User) (items []map[string]any) {
	for _, r := range u.Roles {
		items = append(items, map[string]any{
			"@odata.type": "#microsoft.graph.directoryRole", "id": directory.GroupID(u.Tenant, r), "displayName": cmp.Or(roleNames[r], r), "roleTemplateId": r,
		})
	}
	return items
}

func (s *Server) users(c call) (reply, error) {
	return ok(page(c, "users", s.cfg.Directory.Users(c.tenant.ID, 0), userObject))
}

func (s *Server) revokeMe(c call) (reply, error) { return s.revokeUser(c) }

// revokeUser makes all tokens of the user worthless, that of the caller too
// if it is the user's. The documentation says 204; the service answers 200.
func (s *Server) revokeUser(c call) (reply, error) {
	u, err := s.named(c)
	if err != nil {
		return reply{}, err
	}
	s.cfg.Directory.Revoke(u.ID, s.cfg.Dials.Now())
	return ok(map[string]any{"@odata.context": context + "Edm.Boolean", "value": true}, nil)
}

func organizationObject(t directory.Tenant) map[string]any {
	return map[string]any{
		"id": t.ID, "displayName": t.Name, "tenantType": "AAD", "countryLetterCode": "US",
		"verifiedDomains": []any{map[string]any{"name": t.Domain, "type": "Managed", "isDefault": true, "isInitial": true, "capabilities": "Email, OfficeCommunicationsOnline"}},
	}
}

func (s *Server) organization(c call) (reply, error) {
	return ok(page(c, "organization", []directory.Tenant{c.tenant}, organizationObject))
}

func (s *Server) oneOrganization(c call) (reply, error) {
	if !strings.EqualFold(c.PathValue("id"), c.tenant.ID) {
		return reply{}, errNotFound
	}
	return one(c, "organization", organizationObject(c.tenant))
}

func (s *Server) domains(c call) (reply, error) {
	return ok(page(c, "domains", []map[string]any{{
		"id": c.tenant.Domain, "authenticationType": "Managed", "isDefault": true, "isInitial": true, "isVerified": true,
		"isAdminManaged": true, "isRoot": true, "supportedServices": []string{"Email"},
	}}, asIs))
}
