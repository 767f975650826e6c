// Package directory is the emulator's memory of who exists: tenants, users,
// applications, resources, delegated administration and consents.
//
// Nothing here knows a protocol. Reads return copies, so a caller may keep
// what it got while others change the directory.
package directory

import (
	"slices"
	"time"
)

// Kinds of tenant.
const (
	KindVendor   = "vendor"   // the control panel vendor that owns the application
	KindPartner  = "partner"  // a cloud solution provider
	KindCustomer = "customer" // a customer of one or more partners
)

// Security groups that Partner Center creates in a partner's tenant. They are
// groups, not directory roles, so they never appear in a token's wids.
const (
	AdminAgents    = "AdminAgents"
	SalesAgents    = "SalesAgents"
	HelpdeskAgents = "HelpdeskAgents"
)

// Template ids of directory roles, as they appear in the wids claim.
const (
	RoleGlobalAdmin   = "62e90394-69f5-4237-9190-012177145e10"
	RoleCloudAppAdmin = "158c047a-c907-4556-b7ef-446551a6b5f7"
	RoleGlobalReader  = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
	RoleMember        = "b79fbf4d-3ef9-4689-8143-76b194e85509"
)

// A Tenant is one Entra ID tenant.
type Tenant struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Domain string `json:"domain"` // its verified default domain
	Kind   string `json:"kind"`

	// Subscription is the id of the tenant's one Azure subscription. Only
	// customers have one.
	Subscription string `json:"subscription,omitempty"`
}

// A User is one user object of one tenant.
type User struct {
	ID        string   `json:"id"`
	Tenant    string   `json:"tenant"`
	UPN       string   `json:"upn"`
	Mail      string   `json:"mail"`
	Name      string   `json:"name"`
	GivenName string   `json:"given_name"`
	Surname   string   `json:"surname"`
	MFA       bool     `json:"mfa"` // has registered a second factor
	Groups    []string `json:"groups,omitempty"`
	Roles     []string `json:"roles,omitempty"` // role template ids

	// HomeTenant is where a guest's account lives. It is empty for members.
	HomeTenant string `json:"home_tenant,omitempty"`

	// ValidFrom is the moment before which every token of the user is dead.
	ValidFrom time.Time `json:"valid_from,omitzero"`
}

// Guest reports whether the user's account lives in another tenant.
func (u User) Guest() bool { return u.HomeTenant != "" && u.HomeTenant != u.Tenant }

// Home returns the id of the tenant in which the user's account lives.
func (u User) Home() string {
	if u.HomeTenant != "" {
		return u.HomeTenant
	}
	return u.Tenant
}

// In reports whether the user is a member of the security group.
func (u User) In(group string) bool { return slices.Contains(u.Groups, group) }

// MayConsent reports whether the user may consent to permissions that need
// an administrator.
func (u User) MayConsent() bool {
	return slices.Contains(u.Roles, RoleGlobalAdmin) || slices.Contains(u.Roles, RoleCloudAppAdmin)
}

// An Application is a registration. Every application is multi-tenant.
type Application struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Publisher    string   `json:"publisher"`
	Tenant       string   `json:"tenant"` // id of the home tenant
	RedirectURIs []string `json:"redirect_uris"`

	// Secrets are the values of the client secrets that are accepted.
	Secrets []string `json:"secrets,omitempty"`

	// Certificates are the DER encodings of the certificates whose keys may
	// sign client assertions. The keys must be RSA.
	Certificates [][]byte `json:"certificates,omitempty"`

	// Access is what the registration says it needs: the static permissions
	// that a v1 sign-in and a v2 scope of .default ask consent for.
	Access []Access `json:"access,omitempty"`
}

// Access names delegated permissions on one resource.
type Access struct {
	Resource string   `json:"resource"` // any name of the resource: URI or application id
	Scopes   []string `json:"scopes"`
}
