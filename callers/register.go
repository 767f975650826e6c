package callers

import (
	"github.com/mandate-sam/mandate"
)

// Check reports whether a credential that is to be registered can ever be
// shown here, as an error wrapping [mandate.ErrInvalid].
func (a *Authenticator) Check(c *mandate.CallerCredential) error {
	switch c.Kind {
	case mandate.CredentialSecret:
		return nil
	case mandate.CredentialKey:
		if a.cfg.TokenURL == "" {
			return mandate.Invalid("keys", "cannot be used: api.public_url is not configured, and an assertion must be for our token URL")
		}
		if _, err := parseKey([]byte(c.Key)); err != nil {
			return mandate.Invalid("keys", "have one that %v", err)
		}
		return nil
	case mandate.CredentialWorkload:
		return a.CheckClaims(c.Issuer, c.Claims)
	case mandate.CredentialCertificate:
		_, err := ParseCertificate(c.Certificate)
		return err
	case mandate.CredentialSPIFFE:
		return a.CheckSPIFFE(c.SPIFFE)
	}
	return mandate.Invalid("kind", "%.40q is not a kind of credential", c.Kind)
}
