package entra

import (
	"net/http"
	"slices"

	"github.com/mandate-sam/mandate"
)

// A verdict is whom an error concerns and what ends it. The two may depend on
// whose tenant the redemption was made in.
type verdict struct {
	own, customer finding
}

type finding struct {
	domain mandate.Domain
	remedy mandate.Remedy
}

// of returns the finding for the partner's own tenant, or for a customer's.
func (v verdict) of(own bool) (mandate.Domain, mandate.Remedy) {
	if own {
		return v.own.domain, v.own.remedy
	}
	return v.customer.domain, v.customer.remedy
}

// same is a verdict that does not depend on the tenant.
func same(d mandate.Domain, r mandate.Remedy) verdict {
	return verdict{finding{d, r}, finding{d, r}}
}

// here is a verdict about the tenant of the redemption: the partner's grant in
// the one case, the customer in the other.
func here(r mandate.Remedy) verdict {
	return verdict{finding{mandate.DomainGrant, r}, finding{mandate.DomainCustomer, r}}
}

// api is a verdict about an API in the tenant of the redemption.
func api(own, customer mandate.Remedy) verdict {
	return verdict{finding{mandate.DomainAudience, own}, finding{mandate.DomainCustomer, customer}}
}

// The verdicts.
//
// What a partner or a customer can bring about in a tenant of theirs, such as
// disabling our service principal, is never a fault of the application: such a
// fault may stop everybody, and one tenant must not be able to do that.
var (
	faultCredential  = same(mandate.DomainApplication, mandate.RemedyCredential)
	faultApplication = same(mandate.DomainApplication, mandate.RemedyConfigure)
	faultAudience    = same(mandate.DomainAudience, mandate.RemedyConfigure)
	faultToken       = same(mandate.DomainGrant, mandate.RemedyRenew)     // the refresh token or code itself, wherever it is used
	faultCode        = same(mandate.DomainGrant, mandate.RemedyConfigure) // this one code or its PKCE
	faultBusy        = same(mandate.DomainTransient, mandate.RemedyRetry)

	faultSignIn = here(mandate.RemedyRenew)      // a stronger or newer sign-in is needed
	faultAccess = here(mandate.RemedyAdminister) // a user, a role, GDAP or a policy
	faultTenant = here(mandate.RemedyConfigure)  // the tenant itself, or our service principal in it

	faultConsent   = api(mandate.RemedyRenew, mandate.RemedyPreconsent)     // not consented
	faultResource  = api(mandate.RemedyConfigure, mandate.RemedyConfigure)  // the API is missing in the tenant
	faultClash     = api(mandate.RemedyConfigure, mandate.RemedyPreconsent) // delete the consent and give it again
	faultNoService = verdict{finding{mandate.DomainGrant, mandate.RemedyConfigure}, finding{mandate.DomainCustomer, mandate.RemedyPreconsent}}
)

// verdicts are the AADSTS numbers that a token or authorize endpoint gives to
// an application of this kind, as in Microsoft's "Entra authentication and
// authorization error codes".
var verdicts = map[int]verdict{
	// Consent.
	65001: faultConsent, 90099: faultConsent,
	90094: faultConsent, 90093: faultConsent, 65004: faultConsent,
	650051: faultClash,
	650052: faultResource, 650054: faultResource, 500011: faultResource, 50001: faultResource,
	650056: faultAudience, 650057: faultAudience, 65005: faultAudience,

	// The sign-in behind the refresh token.
	50076: faultSignIn, 50079: faultSignIn, 50074: faultSignIn, 50072: faultSignIn, 50078: faultSignIn,
	50158: faultSignIn, 70043: faultSignIn,

	// The refresh token or code itself.
	50173: faultToken, 50132: faultToken, 50133: faultToken, 50089: faultToken, 70000: faultToken,
	700082: faultToken, 70008: faultToken, 54005: faultToken,
	700084: faultApplication, // of a redirect URI registered for a single-page application
	501481: faultCode, 50147: faultCode, 700005: faultCode,

	// Conditional access, the user, the tenant's policies.
	53003: faultAccess, 53000: faultAccess, 53001: faultAccess, 53002: faultAccess, 53004: faultAccess,
	530032: faultAccess, 530033: faultAccess, 530034: faultAccess, 530035: faultAccess, 53011: faultAccess,
	50053: faultAccess, 50057: faultAccess, 50055: faultAccess, 50126: faultAccess, 50034: faultAccess,
	51004: faultAccess, 16003: faultAccess, 50020: faultAccess, 50105: faultAccess, 50177: faultAccess,
	500212: faultAccess, 500213: faultAccess, 500021: faultAccess,

	// Our service principal, and the tenant.
	700016:  faultNoService,
	7000112: faultTenant, 70001: faultTenant,
	90002: faultTenant, 900023: faultTenant, 5000224: faultTenant, 90072: faultTenant, 90038: faultTenant,

	// Our credential.
	7000215: faultCredential, 7000222: faultCredential, 700027: faultCredential, 700024: faultCredential,
	700030: faultCredential, 50012: faultCredential, 50013: faultCredential, 500133: faultCredential,
	50027: faultCredential, 50048: faultCredential,

	// Our registration, and what we send.
	7000218: faultApplication, 70002: faultApplication, 700025: faultApplication,
	50011: faultApplication, 900971: faultApplication, 50146: faultApplication, 50194: faultApplication,
	901002: faultApplication, 900144: faultApplication, 90014: faultApplication, 9002313: faultApplication, 90023: faultApplication,
	70011: faultAudience, 700022: faultAudience,

	// The device flow, which is not used here.
	70016: faultBusy,
	70017: faultToken, 70018: faultToken, 70019: faultToken,

	// Busy or broken.
	50196: faultBusy, // the same request too often
	90055: faultBusy,
	90033: faultBusy, 90006: faultBusy, 90024: faultBusy, 90012: faultBusy, 50033: faultBusy, 50087: faultBusy, 90020: faultBusy,
}

// suberrors are used for a number that is not known.
var suberrors = map[string]verdict{
	"basic_action":               faultSignIn,
	"additional_action":          faultSignIn,
	"message_only":               faultAccess,
	"protection_policy_required": faultAccess,
	"user_password_expired":      faultAccess,
	"consent_required":           faultConsent,
	"bad_token":                  faultToken,
	"token_expired":              faultToken,
	"client_mismatch":            faultCode,
}

// oauthErrors are used where neither number nor suberror is known.
//
// invalid_grant in a customer's tenant is laid to the customer: the same
// refresh token may well be good everywhere else.
var oauthErrors = map[string]verdict{
	"invalid_grant":             here(mandate.RemedyRenew),
	"interaction_required":      faultSignIn,
	"login_required":            faultSignIn,
	"consent_required":          faultConsent,
	"access_denied":             faultAccess,
	"unauthorized_client":       faultTenant,
	"invalid_client":            faultCredential,
	"invalid_request":           faultTenant, // also what Entra says of tenants that are gone
	"unsupported_grant_type":    faultApplication,
	"unsupported_response_type": faultApplication,
	"invalid_scope":             faultAudience,
	"invalid_resource":          faultAudience,
	"invalid_target":            faultAudience,
	"invalid_tenant":            faultTenant,
	"temporarily_unavailable":   faultBusy,
	"server_error":              faultBusy,
}

// classify says whom a fault concerns, by number first, then suberror, then
// error, then status: v1 and v2 endpoints give the same failure different
// errors but the same number.
//
// Of chained numbers the innermost that is known decides. The outer one is
// often AADSTS70002, "error validating credentials", around what happened.
func classify(f *mandate.Fault, own bool) (mandate.Domain, mandate.Remedy) {
	v, ok := verdict{}, false
	for _, code := range slices.Backward(f.Codes) {
		if v, ok = verdicts[code]; ok {
			break
		}
	}
	if !ok {
		v, ok = suberrors[f.Suberror]
	}
	if !ok && (f.Status == http.StatusTooManyRequests || f.Status >= http.StatusInternalServerError) {
		v, ok = faultBusy, true
	}
	if !ok {
		v, ok = oauthErrors[f.OAuthError]
	}
	if !ok {
		v = faultBusy
	}
	return v.of(own)
}
