package directory

import (
	"slices"
	"strings"
)

// An AppRole is a role of an API: one that applications have by themselves
// (an application permission), or one that users are assigned to.
type AppRole struct {
	Value string `json:"value"`          // what the claim "roles" says
	Text  string `json:"text,omitempty"` // what it allows, in words for the consent page

	// Members are who may have it: "Application", "User". Empty: both.
	Members []string `json:"members,omitempty"`
}

// Kinds of member of an [AppRole].
const (
	MemberApplication = "Application"
	MemberUser        = "User"
)

// For reports whether members of that kind may have the role.
func (r AppRole) For(kind string) bool {
	return len(r.Members) == 0 || slices.Contains(r.Members, kind)
}

// Role returns the resource's role of that name.
func (r Resource) Role(value string) (AppRole, bool) {
	for _, x := range r.Roles {
		if strings.EqualFold(x.Value, value) {
			return x, true
		}
	}
	return AppRole{}, false
}

// AssignRoles gives the principal roles of the resource in the tenant, beside
// those that it has. A principal is an application, by its id, or a user, by
// object id. An application is then installed in the tenant, as by consent.
func (d *Directory) AssignRoles(tenant, principal, resource string, roles ...string) {
	if len(roles) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.apps[principal]; ok {
		d.installed[[2]string{tenant, principal}] = true
	}
	k := [2]string{principal, resource}
	have := slices.Clone(d.appRoles[tenant][k])
	for _, r := range roles {
		if !slices.Contains(have, r) {
			have = append(have, r)
		}
	}
	if d.appRoles[tenant] == nil {
		d.appRoles[tenant] = map[[2]string][]string{}
	}
	d.appRoles[tenant][k] = have
}

// RemoveRoles takes roles of the resource in the tenant from the principal:
// all of them if none is named.
func (d *Directory) RemoveRoles(tenant, principal, resource string, roles ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := [2]string{principal, resource}
	left := slices.DeleteFunc(slices.Clone(d.appRoles[tenant][k]), func(r string) bool { return len(roles) == 0 || slices.Contains(roles, r) })
	if len(left) == 0 {
		delete(d.appRoles[tenant], k)
		return
	}
	d.appRoles[tenant][k] = left
}

// dropRoles forgets the principal's roles at the resource; at every resource
// if that is empty. The caller holds d.mu.
func (d *Directory) dropRoles(tenant, principal, resource string) {
	for k := range d.appRoles[tenant] {
		if k[0] == principal && (resource == "" || k[1] == resource) {
			delete(d.appRoles[tenant], k)
		}
	}
}

// AssignmentID is the id of the assignment of a role to a principal, from the
// object ids of both service principals and the role's id.
func AssignmentID(principal, resource, role string) string {
	return guid("assignment", principal, resource, role)
}

// AppRoles returns the roles of the resource that the principal has in the
// tenant.
func (d *Directory) AppRoles(tenant, principal, resource string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.appRoles[tenant][[2]string{principal, resource}])
}

// graphRoles are Graph's application permissions: the delegated ones that an
// administrator consents to, but for what has no meaning without a user.
func graphRoles() []AppRole {
	var all []AppRole
	for _, s := range graphScopes() {
		if s.Admin && s.Name != "Directory.AccessAsUser.All" {
			all = append(all, AppRole{s.Name, s.Text, []string{MemberApplication}})
		}
	}
	return append(all, AppRole{OwnedApplications, "Read and change the applications that it owns.", []string{MemberApplication}})
}

// OwnedApplications is the application permission to change what an
// application owns. There is no delegated one. Here an application owns itself
// and nothing else.
const OwnedApplications = "Application.ReadWrite.OwnedBy"

// roleIDs are the ids of application permissions that are the same
// everywhere. The others get one that is derived.
var roleIDs = map[string]map[string]string{
	Graph: {
		"User.Read.All":                             "df021288-bdef-4463-88db-98f22de89214",
		"User.ReadWrite.All":                        "741f803b-c850-494e-b5df-cde7c675a1ca",
		"Organization.Read.All":                     "498476ce-e0fe-48b0-b801-37ba7e2685c6",
		"Domain.Read.All":                           "dbb9058a-0e50-45d7-ae91-66909b5d4664",
		"Domain.ReadWrite.All":                      "7e05723c-0bb0-42da-be95-ae9f08a6e53c",
		"Directory.Read.All":                        "7ab1d382-f21e-4acd-a863-ba3e13f7da61",
		"Directory.ReadWrite.All":                   "19dbc75e-c2e2-444c-a770-ec69d8559fc7",
		"Application.Read.All":                      "9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30",
		"Application.ReadWrite.All":                 "1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9",
		OwnedApplications:                           "18a4783c-866b-4cc7-a460-3d5e5662c884",
		"AppRoleAssignment.ReadWrite.All":           "06b708a9-e830-4db3-a914-8e69da51d44f",
		"DelegatedPermissionGrant.ReadWrite.All":    "8e8e4742-1d95-4f68-9d56-6ee75648c72a",
		"Policy.Read.All":                           "246dd0d5-5bd0-4def-940b-0421030a5b68",
		"Policy.ReadWrite.ApplicationConfiguration": "be74164b-cff1-491c-8741-e671cb536e13",
		"DelegatedAdminRelationship.Read.All":       "f6e9e124-4586-492f-adc0-c6f96e4823fd",
		"DelegatedAdminRelationship.ReadWrite.All":  "cc13eba4-8cd8-44c6-b4d4-f93237adce58",
	},
}

// RoleID is the id of the resource's role.
func RoleID(resource, value string) string {
	if id, ok := roleIDs[resource][value]; ok {
		return id
	}
	return guid("role", resource, value)
}
