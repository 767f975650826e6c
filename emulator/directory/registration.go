package directory

import (
	"slices"
	"strings"
	"time"
)

// ObjectID is the object id of an application, which is not its application id.
func ObjectID(app string) string { return guid("application", strings.ToLower(app)) }

// A Registration is what Graph keeps about an application beside what the
// identity platform needs.
type Registration struct {
	Created  time.Time
	Audience string // signInAudience; empty: as the application's SingleTenant says
	Required []Required
	Policies []string // ids of the token lifetime policies assigned
}

// Required is one entry of requiredResourceAccess, as it was written.
type Required struct {
	Resource    string       `json:"resourceAppId"`
	Permissions []Permission `json:"resourceAccess"`
}

// A Permission is a delegated permission (Scope) or one for applications (Role).
type Permission struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

func (q Required) has(id, kind string) bool {
	return slices.ContainsFunc(q.Permissions, func(p Permission) bool { return strings.EqualFold(p.ID, id) && strings.EqualFold(p.Type, kind) })
}

// permissionIDs are the ids of delegated permissions that are the same
// everywhere. The others get one that is derived.
var permissionIDs = map[string]map[string]string{
	PartnerCenter: {"user_impersonation": "1cebfa2a-fb4d-419e-b5f9-839b4383e05a"},
	ARM:           {"user_impersonation": "41094075-9dad-400e-a0bd-54e686782033"},
	KeyVault:      {"user_impersonation": "f53da476-18e3-4152-8e01-aec403e6edc0"},
	AzureADGraph:  {"User.Read": "311a71cc-e848-46a1-bdf8-97ff7156d8e6"},
	Graph: {
		"User.Read":                                "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
		"User.ReadWrite.All":                       "204e0828-b5ca-4ad8-b9f3-f32a958e7cc4",
		"Organization.Read.All":                    "4908d5b9-3fb2-4b1e-9336-1888b7937185",
		"Domain.Read.All":                          "2f9ee017-59c1-4f1d-9472-bd5529a7b311",
		"Domain.ReadWrite.All":                     "0b5d694c-a244-4bde-86e6-eb5cd07730fe",
		"Directory.Read.All":                       "06da0dbc-49e2-44d2-8312-53f166ab848a",
		"Directory.ReadWrite.All":                  "c5366453-9fb0-48a5-a156-24f0c49a4b84",
		"Directory.AccessAsUser.All":               "0e263e50-5827-48a4-b97c-d940288653c7",
		"Application.ReadWrite.All":                "bdfbf15f-ee85-4955-8675-146e8e5296b5",
		"AppRoleAssignment.ReadWrite.All":          "84bccea3-f856-4a8a-967b-dbe0a3d53a64",
		"DelegatedPermissionGrant.ReadWrite.All":   "41ce6ca6-6826-4807-84f1-1c82854f7ee5",
		"DelegatedAdminRelationship.Read.All":      "0c0064ea-477b-4130-82a5-4c2cc4ff68aa",
		"DelegatedAdminRelationship.ReadWrite.All": "885f682f-a990-4bad-a642-36736a74b0c7",
	},
}

// PermissionID is the id of the resource's delegated permission.
func PermissionID(resource, scope string) string {
	if id, ok := permissionIDs[resource][scope]; ok {
		return id
	}
	return guid("permission", resource, scope)
}

// Required returns the application's static permissions as Graph writes them.
func (d *Directory) Required(a Application) []Required {
	if r, ok := d.Registration(a.ID); ok && r.Required != nil {
		return r.Required
	}
	all := []Required{}
	for _, x := range a.Access {
		r, ok := d.Resource(x.Resource)
		if !ok {
			continue
		}
		entry := Required{Resource: r.ID, Permissions: []Permission{}}
		for _, s := range x.Scopes {
			entry.Permissions = append(entry.Permissions, Permission{PermissionID(r.ID, s), "Scope"})
		}
		for _, role := range x.Roles {
			entry.Permissions = append(entry.Permissions, Permission{RoleID(r.ID, role), "Role"})
		}
		all = append(all, entry)
	}
	return all
}

// AccessOf returns the permissions among those required that the
// directory knows. The rest asks for what no emulated resource has.
func (d *Directory) AccessOf(required []Required) []Access {
	all := []Access{}
	for _, q := range required {
		r, ok := d.Resource(q.Resource)
		if !ok {
			continue
		}
		x := Access{Resource: r.ID}
		for _, s := range r.Scopes {
			if q.has(PermissionID(r.ID, s.Name), "Scope") {
				x.Scopes = append(x.Scopes, s.Name)
			}
		}
		for _, role := range r.Roles {
			if role.For(MemberApplication) && q.has(RoleID(r.ID, role.Value), "Role") {
				x.Roles = append(x.Roles, role.Value)
			}
		}
		if len(x.Scopes)+len(x.Roles) > 0 {
			all = append(all, x)
		}
	}
	return all
}

// Registration returns what Graph keeps about the application, if anybody has
// told it anything.
func (d *Directory) Registration(app string) (Registration, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	r, ok := d.registrations[strings.ToLower(app)]
	return r, ok
}

// SetRegistration replaces what Graph keeps about the application.
func (d *Directory) SetRegistration(app string, r Registration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.registrations[strings.ToLower(app)] = r
}

// Create registers a new application without a service principal.
func (d *Directory) Create(a Application, r Registration) error {
	if err := d.Register(a); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.installed, [2]string{a.Tenant, a.ID})
	d.registrations[a.ID] = r
	return nil
}

// Amend lets f change an application and what Graph keeps about it, leaving
// its credentials as they are. It changes nothing if the outcome makes no
// sense.
func (d *Directory) Amend(app string, f func(*Application, *Registration)) error {
	d.mu.RLock()
	a, r := d.apps[app], d.registrations[app]
	installed := d.installed[[2]string{a.Tenant, app}]
	d.mu.RUnlock()
	f(&a, &r)
	if err := d.Register(a); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.registrations[app] = r
	if !installed {
		delete(d.installed, [2]string{a.Tenant, app})
	}
	return nil
}

// Unregister removes the application, and its service principals and grants
// everywhere.
func (d *Directory) Unregister(app string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tenant := range d.consents {
		for k := range tenant {
			if k.app == app {
				delete(tenant, k)
			}
		}
	}
	for tenant := range d.appRoles {
		d.dropRoles(tenant, app, "")
	}
	for k := range d.installed {
		if k[1] == app {
			d.uninstall(k[0], app)
		}
	}
	d.nameAPI(d.apps[app], Application{})
	delete(d.apps, app)
	delete(d.registrations, app)
	delete(d.objects, ObjectID(app))
}

// ApplicationByObject returns the application of the tenant with that object
// id, with all its credentials, in force or not.
func (d *Directory) ApplicationByObject(tenant, object string) (Application, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	a, ok := d.apps[d.objects[strings.ToLower(object)]]
	return a, ok && a.Tenant == tenant
}
