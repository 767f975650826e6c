package directory

import "strings"

// Application ids of the resources.
const (
	PartnerCenter = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
	Graph         = "00000003-0000-0000-c000-000000000000"
	ARM           = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
	KeyVault      = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"
	AzureADGraph  = "00000002-0000-0000-c000-000000000000" // retired; Partner Center refuses its tokens
)

// A Resource is an API that tokens are issued for.
type Resource struct {
	ID     string    // application id
	Name   string    // shown on the consent page
	URIs   []string  // identifier URIs, without a trailing slash; the first is the usual one
	Scopes []Scope   // delegated permissions that exist
	Roles  []AppRole // those that applications have by themselves, or users are assigned to

	// TokenVersion is the format of access tokens: 1 or 2. Everything of
	// Microsoft's has 1.
	TokenVersion int
	Application  bool // an application of the directory, not one of Microsoft's
}

// A Scope is one delegated permission.
type Scope struct {
	Name  string `json:"name"`
	Text  string `json:"text,omitempty"`  // what it allows, in words for the consent page
	Admin bool   `json:"admin,omitempty"` // only an administrator can consent
}

// Scope returns the permission of that name.
func (r Resource) Scope(name string) (Scope, bool) {
	for _, s := range r.Scopes {
		if strings.EqualFold(s.Name, name) {
			return s, true
		}
	}
	return Scope{}, false
}

// named reports whether name is one of the resource's identifiers, however
// its letters are cased and whether or not it ends in a slash.
func (r Resource) named(name string) bool {
	if strings.EqualFold(name, r.ID) {
		return true
	}
	for _, u := range r.URIs {
		if strings.EqualFold(name, u) {
			return true
		}
	}
	return false
}

// resource is the API that the application is, with or without permissions.
func (a Application) resource() Resource {
	return Resource{
		ID: a.ID, Name: a.Name, URIs: append([]string{"api://" + a.ID}, a.IdentifierURIs...),
		Scopes: a.Exposes, Roles: a.AppRoles, TokenVersion: max(1, a.AccessTokenVersion), Application: true,
	}
}

// apiNames are the names of the application's API, in lower case and without
// a trailing slash. An application without id has none.
func (a Application) apiNames() []string {
	if a.ID == "" {
		return nil
	}
	r := a.resource()
	names := []string{strings.ToLower(r.ID)}
	for _, u := range r.URIs {
		names = append(names, strings.ToLower(strings.TrimSuffix(u, "/")))
	}
	return names
}

// resources returns the catalogue of well-known Microsoft resources.
func resources() []Resource {
	return []Resource{
		{
			ID: PartnerCenter, Name: "Partner Center", URIs: []string{"https://api.partnercenter.microsoft.com"},
			Scopes: []Scope{{"user_impersonation", "Act in Partner Center as you: see customers, their users and subscriptions, and manage them as far as your agent role allows.", false}},
		},
		{
			ID: Graph, Name: "Graph", URIs: []string{"https://graph.microsoft.com"},
			Scopes: graphScopes(), Roles: graphRoles(),
		},
		{
			ID: ARM, Name: "Azure Service Management", URIs: []string{"https://management.azure.com", "https://management.core.windows.net"},
			Scopes: []Scope{{"user_impersonation", "Manage Azure resources as you.", false}},
		},
		{
			ID: KeyVault, Name: "Key Vault", URIs: []string{"https://vault.azure.net"},
			Scopes: []Scope{{"user_impersonation", "Use secrets and keys in Key Vault as you.", false}},
		},
		{
			ID: AzureADGraph, Name: "Azure AD Graph (retired)", URIs: []string{"https://graph.windows.net"},
			Scopes: []Scope{{"User.Read", "Sign you in and read your profile.", false}},
		},
	}
}

func graphScopes() []Scope {
	return []Scope{
		{"User.Read", "Sign you in and read your profile.", false},
		{"User.Read.All", "Read every user's full profile.", true},
		{"User.ReadWrite.All", "Read and change every user's full profile.", true},
		{"Organization.Read.All", "Read information about the organisation.", true},
		{"Domain.Read.All", "Read the domains of the organisation.", true},
		{"Domain.ReadWrite.All", "Read and change the domains of the organisation.", true},
		{"Directory.Read.All", "Read the directory: users, groups, roles and applications.", true},
		{"Directory.ReadWrite.All", "Read and change the directory: users, groups, roles and applications.", true},
		{"Directory.AccessAsUser.All", "Do in the directory whatever you may do yourself.", true},
		{"Application.Read.All", "Read every application.", true},
		{"Application.ReadWrite.All", "Read and change every application.", true},
		{"AppRoleAssignment.ReadWrite.All", "Give applications permissions, and take them away.", true},
		{"DelegatedPermissionGrant.ReadWrite.All", "Give and remove delegated permissions.", true},
		{"Policy.Read.All", "Read the organisation's policies.", true},
		{"Policy.ReadWrite.ApplicationConfiguration", "Read and change the policies for applications.", true},
		{"DelegatedAdminRelationship.Read.All", "Read delegated administration relationships with customers.", true},
		{"DelegatedAdminRelationship.ReadWrite.All", "Manage delegated administration relationships with customers.", true},
	}
}
