package mandate

import (
	"slices"
	"strings"
	"time"
)

// A Caller is a workload that was registered. Registrations are security
// state: every change of one raises the epoch.
type Caller struct {
	ID          CallerID           `json:"id"`
	Owner       string             `json:"owner,omitempty"` // who registered it, as the record of that says
	Created     time.Time          `json:"created"`
	Binding     Binding            `json:"binding,omitzero"`
	Credentials []CallerCredential `json:"credentials"`
}

// A Binding is what a caller asks for where its protocol has no field to say
// so. What a request says itself can only be within it. Empty fields bind
// nothing.
type Binding struct {
	Partner   string     `json:"partner,omitempty"`  // short name or tenant id
	Customer  TenantID   `json:"customer,omitzero"`  // the tenant asked for
	Audiences []Audience `json:"audiences,omitzero"` // aliases or resource URIs
	Purpose   string     `json:"purpose,omitempty"`
}

// The kinds of [CallerCredential].
const (
	CredentialSecret      = "secret"      // one that this server made; its hash is kept
	CredentialKey         = "key"         // a public key; the caller signs assertions
	CredentialWorkload    = "workload"    // tokens of an issuer, with certain claims
	CredentialCertificate = "certificate" // a client certificate, by its hash
	CredentialSPIFFE      = "spiffe"      // a client certificate with that SPIFFE id
)

// A CallerCredential is one way in which a caller proves who it is. None of it
// is secret.
type CallerCredential struct {
	ID      string    `json:"id"` // within the caller's
	Kind    string    `json:"kind"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never

	Key         string            `json:"key,omitempty"`         // of a key: a JSON Web Key
	Issuer      string            `json:"issuer,omitempty"`      // of a workload: the name of a configured one
	Claims      map[string]string `json:"claims,omitempty"`      // of a workload: every one must be just so
	Certificate string            `json:"certificate,omitempty"` // hex SHA-256
	SPIFFE      string            `json:"spiffe,omitempty"`      // spiffe://trust-domain/path
}

// Valid reports whether the credential counts at a time.
func (c *CallerCredential) Valid(at time.Time) bool {
	return c.Expires.IsZero() || at.Before(c.Expires)
}

const (
	maxBinding = 20 // audiences

	// MaxCredentials is how many credentials a caller may have beside its
	// secrets, of which there may be two.
	MaxCredentials = 10
)

// CheckCallerID reports what is wrong with the name of a new caller. Names with
// a colon are those of people ("uid:1000"): no workload may take one, and a
// colon would end the name in HTTP Basic.
func CheckCallerID(id CallerID) error {
	if !Name(string(id)) || strings.Contains(string(id), ":") {
		return Invalid("id", "must be a name of at most 64 letters, digits, '-', '_' or '.', such as billing")
	}
	return nil
}

// Check reports the first field that is malformed, as an error wrapping
// [ErrInvalid].
func (b *Binding) Check() error {
	switch {
	case b.Partner != "" && !Name(b.Partner):
		return Invalid("binding.partner", "must be a partner's short name or tenant id")
	case b.Purpose != "" && !Name(b.Purpose):
		return Invalid("binding.purpose", "must be a name of at most %d letters, digits, '-', '_' or '.'", maxName)
	case len(b.Audiences) > maxBinding:
		return Invalid("binding.audiences", "are more than %d", maxBinding)
	}
	for _, a := range b.Audiences {
		if len(a) == 0 || len(a) > maxScope {
			return Invalid("binding.audiences", "%.60q is neither an alias nor a resource URI", a)
		}
	}
	return nil
}

// IsZero reports whether nothing is bound.
func (b Binding) IsZero() bool {
	return b.Partner == "" && b.Customer.IsZero() && len(b.Audiences) == 0 && b.Purpose == ""
}

// Clone returns a copy that shares nothing with c.
func (c Caller) Clone() Caller {
	c.Binding.Audiences = slices.Clone(c.Binding.Audiences)
	c.Credentials = slices.Clone(c.Credentials)
	for i := range c.Credentials {
		claims := make(map[string]string, len(c.Credentials[i].Claims))
		for k, v := range c.Credentials[i].Claims {
			claims[k] = v
		}
		if len(claims) > 0 {
			c.Credentials[i].Claims = claims
		}
	}
	return c
}
