// Package directory is the emulator's memory of who exists: tenants, users,
// applications, resources, delegated administration and consents.
//
// Nothing here knows a protocol. Reads return copies, so a caller may keep
// what it got while others change the directory.
package directory

import (
	"encoding/json"
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
	RoleAppAdmin      = "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"
	RolePrivileged    = "e8611ab8-c189-46e8-94e1-60213ab1f814"
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

	// PasswordChanged is the moment before which refresh tokens of public
	// clients are dead. Those of confidential clients outlive a password.
	PasswordChanged time.Time `json:"password_changed,omitzero"`
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

// An Application is a registration, and the API that it may expose.
type Application struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Publisher    string   `json:"publisher"`
	Tenant       string   `json:"tenant"` // id of the home tenant
	RedirectURIs []string `json:"redirect_uris"`

	// SPARedirectURIs are redirect URIs of the type "single-page application".
	// A code sent to one is redeemed without a credential and with PKCE, and
	// its refresh tokens end a day after it.
	SPARedirectURIs []string `json:"spa_redirect_uris,omitempty"`

	// SingleTenant keeps the application to its home tenant.
	SingleTenant bool `json:"single_tenant,omitempty"`

	// Public allows public client flows: device codes, and codes and refresh
	// tokens without a credential.
	Public bool `json:"public,omitempty"`

	// IssueIDTokens and IssueAccessTokens let the authorization endpoint answer
	// with such a token: response_type "code id_token" and "id_token", and
	// "id_token token".
	IssueIDTokens     bool `json:"issue_id_tokens,omitempty"`
	IssueAccessTokens bool `json:"issue_access_tokens,omitempty"`

	// Secrets are the values of the client secrets that are accepted.
	Secrets []string `json:"secrets,omitempty"`

	// Certificates are the DER encodings of the certificates whose keys may
	// sign client assertions. The keys must be RSA.
	Certificates [][]byte `json:"certificates,omitempty"`

	// Federated are the tokens of other issuers that are accepted as client
	// assertions.
	Federated []Federated `json:"federated_credentials,omitempty"`

	// IdentifierURIs name the application as a resource, beside its id and
	// api://ID. Exposes are the delegated permissions of its API.
	IdentifierURIs []string `json:"identifier_uris,omitempty"`
	Exposes        []Scope  `json:"exposes,omitempty"`

	// AppRoles are the roles of its API: application permissions, and those
	// that users are assigned to.
	AppRoles []AppRole `json:"app_roles,omitempty"`

	// AccessTokenVersion is the format of access tokens for the API: 1 or 2;
	// 0 means 1.
	AccessTokenVersion int `json:"access_token_version,omitempty"`

	// Access is what the registration says it needs: the static permissions
	// that a v1 sign-in and a v2 scope of .default ask consent for.
	Access []Access `json:"access,omitempty"`
}

// A Federated credential trusts tokens of another issuer ("Workload identity
// federation"). Issuer, subject and audience are compared letter by letter.
type Federated struct {
	Name     string `json:"name,omitempty"`
	Issuer   string `json:"issuer"`
	Subject  string `json:"subject"`
	Audience string `json:"audience,omitempty"` // empty: [FederatedAudience]

	// Keys is the issuer's key set (RFC 7517). It is given here because the
	// emulator asks nobody.
	Keys json.RawMessage `json:"keys"`
}

// FederatedAudience is the usual audience of a federated credential.
const FederatedAudience = "api://AzureADTokenExchange"

// Access names permissions on one resource.
type Access struct {
	Resource string   `json:"resource"` // any name of the resource: URI or application id
	Scopes   []string `json:"scopes"`

	// Roles are application permissions: what the application may do by itself,
	// once an administrator has consented.
	Roles []string `json:"roles,omitempty"`
}
