package entra

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A row is one line of the table of errors: an AADSTS code and how it goes on
// the wire. See "Microsoft Entra authentication and authorization error codes".
type row struct {
	v1, v2   string // error
	suberror string
	status   int    // 0: 400
	text     string // error_description, without the part that names the request
	claims   string // the usual claims challenge
}

// Challenges that conditional access sends along, for the client to pass on
// to an interactive sign-in.
const (
	polids   = `{"access_token":{"polids":{"essential":true,"values":["7c8a3b6a-1b9a-4f5e-9b61-0d9e4f0a1c55"]}}}`
	capolids = `{"access_token":{"capolids":{"essential":true,"values":["5b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"]}}}`
)

// grant is a row whose error is invalid_grant in both versions.
func grant(suberror, text string) row {
	return row{v1: "invalid_grant", v2: "invalid_grant", suberror: suberror, text: text}
}

// interact is a row that v1 calls interaction_required and v2 invalid_grant.
func interact(suberror, claims, text string) row {
	return row{v1: "interaction_required", v2: "invalid_grant", suberror: suberror, claims: claims, text: text}
}

// same is a row whose error is the same in both versions.
func same(err string, status int, text string) row {
	return row{v1: err, v2: err, status: status, text: text}
}

const (
	badToken        = "bad_token"
	basicAction     = "basic_action"
	messageOnly     = "message_only"
	consentRequired = "consent_required"
)

// rows is the table. Everything that the emulator refuses is in it, and so is
// what only a dial can provoke.
var rows = map[int]row{
	// Consent.
	65001: grant(consentRequired, "The user or administrator has not consented to use the application with ID '%s'. Send an interactive authorization request for this user and resource."),
	90099: grant("", "The application '%s' has not been authorized in the tenant '%s'. Applications must be authorized to access the external tenant before partner delegated administrators can use them. Provide pre-consent or execute the appropriate Partner Center API to authorize the application."),
	65004: same("access_denied", 0, "User declined to consent to access the app."),
	90094: same("consent_required", 0, "Admin consent is required for the permissions requested by this application."),
	90093: same("consent_required", 0, "Only an administrator can grant the permissions requested by this application."),

	// The second factor and conditional access.
	50076:  interact(basicAction, polids, "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '%s'."),
	50079:  interact(basicAction, polids, "Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access '%s'."),
	50074:  interact(basicAction, polids, "Strong Authentication is required."),
	50072:  interact(basicAction, polids, "Users need to enroll for second factor authentication (interactive)."),
	50078:  interact(basicAction, "", "Presented multi-factor authentication has expired due to policies configured by your administrator, you must refresh your multi-factor authentication to access '%s'."),
	50158:  interact("additional_action", "", "External security challenge not satisfied. User will be redirected to another page or authentication provider to satisfy additional authentication challenges."),
	53000:  interact(messageOnly, capolids, "Device is not in required device state: compliant. Conditional Access policy requires a compliant device, and the device is not compliant."),
	53001:  interact(messageOnly, capolids, "Device is not in required device state: domain_joined. Conditional Access policy requires a domain joined device, and the device is not domain joined."),
	53002:  interact(messageOnly, "", "The app used is not an approved app for Conditional Access."),
	53003:  interact(messageOnly, capolids, "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."),
	53004:  interact(messageOnly, "", "User needs to complete Multi-factor authentication registration process before accessing this content."),
	53011:  interact(messageOnly, "", "User blocked due to risk on home tenant."),
	530032: interact(messageOnly, "", "User blocked due to risk on tenant."),
	530033: interact(messageOnly, "", "User was unable to sign in due to security defaults."),
	530035: interact(messageOnly, "", "Access has been blocked by security defaults."),
	530034: grant("", "A delegated administrator was blocked from accessing the tenant due to account risk in their home tenant."),

	// The grant itself.
	50173:  grant(badToken, "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password. The grant was issued on '%s' and the TokensValidFrom date (before which tokens are not valid) for this user is '%s'."),
	50132:  grant(badToken, "The session is not valid due to the following reasons: password expiration or recent password change, SSO Artifact is invalid or expired, session is not fresh enough for application, or a silent sign-in request was sent but the user's session with Azure AD is invalid or has expired."),
	50133:  grant(badToken, "The session is not valid due to password expiration or recent password change."),
	50089:  grant(badToken, "Authentication failed due to flow token expired."),
	70000:  grant(badToken, "Provided grant is invalid or malformed."),
	70008:  grant(badToken, "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource."),
	700082: grant(badToken, "The refresh token has expired due to inactivity. The token was issued on %s and was inactive for 90.00:00:00."),
	700084: grant(badToken, "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00, which cannot be extended."),
	70043:  grant(badToken, "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access."),
	54005:  grant("", "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."),
	501481: grant("", "The Code_Verifier does not match the code_challenge supplied in the authorization request."),
	700005: grant("", "Provided Authorization Code is intended to use against other tenant, thus rejected."),
	500112: grant("", "The reply address '%s' does not match the reply address '%s' provided when requesting Authorization code."),
	50196:  grant("", "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."),

	// The user.
	50020:  interact("", "", "User account '%s' from identity provider '%s' does not exist in tenant '%s' and cannot access the application '%s' in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Azure Active Directory user account."),
	50053:  grant("", "The account is locked, you've tried to sign in too many times with an incorrect user ID or password."),
	50055:  grant("", "The password is expired."),
	50057:  grant("", "The user account is disabled."),
	50126:  grant("", "Error validating credentials due to invalid username or password."),
	50034:  grant(badToken, "The user account %s does not exist in the %s directory. To sign into this application, the account must be added to the directory."),
	51004:  grant("", "The user account %s does not exist in the %s directory. To sign into this application, the account must be added to the directory."),
	16003:  grant("", "The user hasn't been explicitly added to the tenant."),
	50105:  interact("", "", "Your administrator has configured the application to block users unless they are specifically granted ('assigned') access to the application."),
	50177:  interact("", "", "User account from identity provider does not exist in tenant and cannot access the application in that tenant."),
	500212: same("access_denied", 403, "The user's administrator has set an outbound access policy that does not allow access to the resource tenant."),
	500213: same("access_denied", 403, "The resource tenant's cross-tenant access policy does not allow this user to access this tenant."),
	500021: same("access_denied", 403, "Access to the tenant is denied."),
	50058:  same("login_required", 0, "A silent sign-in request was sent but no user is signed in."),

	// The application and its credential.
	700016:  same("unauthorized_client", 0, "Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."),
	7000112: same("unauthorized_client", 0, "Application '%s' is disabled."),
	70001:   same("unauthorized_client", 0, "The application named '%s' was not found in the tenant named '%s'."),
	700054:  same("unsupported_response_type", 0, "response_type '%s' is not enabled for the application."),
	7000215: same("invalid_client", 401, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'."),
	7000222: same("invalid_client", 401, "The provided client secret keys for app '%s' are expired. Visit the Azure portal to create new keys for your app, or consider using certificate credentials for added security."),
	7000218: same("invalid_client", 401, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
	70002:   same("invalid_client", 401, "Error validating credentials. The client is not authorized."),
	700025:  same("invalid_client", 401, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."),
	700027:  same("invalid_client", 401, "The certificate with identifier used to sign the client assertion is not registered on application, or the key was used incorrectly. [Reason - %s]"),
	700021:  same("invalid_client", 401, "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://docs.microsoft.com/en-us/azure/active-directory/develop/active-directory-certificate-credentials ."),
	700024:  same("invalid_client", 401, "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s."),
	700030:  same("invalid_client", 401, "Invalid certificate - subject name in certificate is not authorized."),
	50012:   same("invalid_client", 401, "Authentication failed. The client assertion contains an invalid thumbprint or signature."),
	50013:   same("invalid_grant", 0, "Assertion failed signature validation. [Reason - %s]"),
	500133:  same("invalid_grant", 0, "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token."),
	70021:   same("invalid_client", 401, "No matching federated identity record found for presented assertion. Assertion Issuer: '%s'. Assertion Subject: '%s'. Assertion Audience: '%s'."),
	700211:  same("invalid_client", 401, "No matching federated identity record found for presented assertion issuer '%s'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."),
	700212:  same("invalid_client", 401, "No matching federated identity record found for presented assertion audience '%s'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."),
	700213:  same("invalid_client", 401, "No matching federated identity record found for presented assertion subject '%s'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."),
	50027:   same("invalid_client", 401, "JWT token is invalid or malformed. %s"),
	50048:   same("invalid_client", 401, "Client assertion contains an invalid subject or audience."),
	50011:   same("invalid_request", 0, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'. Make sure the redirect URI sent in the request matches one added to your application."),
	900971:  same("invalid_request", 0, "No reply address provided."),
	50146:   same("invalid_request", 0, "This application is required to be configured with an application-specific signing key."),

	// Resources and scopes.
	650051: same("invalid_client", 0, "The service principal name is already present for the tenant, or the application '%s' is missing there."),
	650052: same("invalid_client", 0, "The app is trying to access a service that your organization lacks a service principal for. Contact your IT Admin to review the configuration of your service subscriptions or consent to the application."),
	650054: same("invalid_client", 0, "The application asked for permissions to access a resource that has been removed or is no longer available."),
	650056: same("invalid_client", 0, "Misconfigured application. This could be due to one of the following: the client has not listed any permissions for '%s' in the requested permissions in the client's application registration."),
	650057: same("invalid_resource", 0, "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration."),
	65005:  same("invalid_resource", 0, "The application's required resource access list does not contain applications discoverable by the resource, or the client has requested access to a resource that was not specified in its required resource access list."),
	500011: same("invalid_resource", 0, "The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."),
	50001:  same("invalid_resource", 0, "The resource is disabled or doesn't exist."),
	70011:  same("invalid_scope", 0, "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope %s is not valid."),
	700022: same("invalid_request", 0, "The provided value for the input parameter 'scope' is not valid because it contains more than one resource."),
	901002: same("invalid_request", 0, "The 'resource' request parameter is not supported."),

	// The form of the request.
	900144:  same("invalid_request", 0, "The request body must contain the following parameter: '%s'."),
	90014:   same("invalid_request", 0, "The required field '%s' is missing from the credential. Ensure that you have all the necessary parameters for the login request."),
	9002313: same("invalid_request", 0, "Invalid request. Request is malformed or invalid."),
	90023:   same("invalid_request", 0, "The provided value for the input parameter '%s' is not valid."),
	50147:   same("invalid_request", 0, "Invalid size or form of the Code_Challenge parameter."),
	70003:   same("unsupported_grant_type", 0, "The app requested an unsupported grant type '%s'."),

	// Tenants and clouds.
	90002:   same("invalid_request", 0, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."),
	900023:  same("invalid_request", 0, "Specified tenant identifier '%s' is neither a valid DNS name, nor a valid external domain."),
	5000224: same("invalid_request", 0, "We are sorry, this resource is not available."),
	90072:   same("invalid_request", 0, "User account from external identity provider does not exist in the tenant and cannot access the application in that tenant. The account needs to be added as an external user in the tenant first."),
	50059:   same("invalid_request", 0, "No tenant-identifying information found in either the request or implied by any provided credentials."),
	50194:   same("invalid_request", 0, "Application is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps."),
	90038:   same("invalid_request", 0, "The tenant is not in this cloud. Use the endpoint of the national cloud that it is in."),

	50049: same("invalid_instance", 0, "Unknown or invalid instance."),

	// Device code.
	70016: same("authorization_pending", 0, "OAuth 2.0 device flow error. Authorization is pending. Continue polling."),
	70017: same("expired_token", 0, "OAuth 2.0 device flow error. The code has expired."),
	70018: same("bad_verification_code", 0, "OAuth 2.0 device flow error. The verification code is not valid."),
	70019: same("expired_token", 0, "OAuth 2.0 device flow error. The verification code has expired."),
	70020: same("expired_token", 0, "OAuth 2.0 device flow error. The device code has expired."),

	// Weather.
	90055: same("temporarily_unavailable", 429, "Too many requests. The tenant is being throttled; retry after a while."),
	90033: same("temporarily_unavailable", 503, "A transient error has occurred. Please try again."),
	90006: same("server_error", 503, "External server is retryable."),
	90024: same("temporarily_unavailable", 503, "Request budget exceeded - A transient error has occurred. Please try again."),
	90012: same("temporarily_unavailable", 503, "Request timed out."),
	50033: same("server_error", 503, "A transient sign-in error occurred. Please try again."),
	50087: same("temporarily_unavailable", 503, "A transient error has occurred during strong authentication. Please try again."),
	90020: same("server_error", 503, "The SAML assertion is missing ImmutableID of the user, or a transient error has occurred."),
}

// A refusal is an error on its way to a client.
type refusal struct {
	code       int
	args       []any
	claims     string // instead of the row's
	errorCode  string // instead of the row's error
	status     int    // instead of the row's
	retryAfter int    // seconds
	cause      int    // a second code, chained to the first; 0: none
}

// refuse returns the refusal with that code; args fill the verbs of its text.
func refuse(code int, args ...any) *refusal { return &refusal{code: code, args: args} }

// as returns the refusal with another value of error, for the few codes whose
// value depends on the endpoint.
func (e *refusal) as(errorCode string) *refusal {
	e.errorCode = errorCode
	return e
}

// Error implements error.
func (e *refusal) Error() string { return e.text() }

// row is the code's line of the table. A code that only a dial knows is
// answered as a bad grant, since that is what most new codes are.
func (e *refusal) row() row {
	if r, ok := rows[e.code]; ok {
		return r
	}
	return grant("", "An error that was ordered by dial.")
}

// text fills the row's verbs. A refusal by dial knows no arguments; its
// verbs become dashes.
func (e *refusal) text() string {
	t := e.row().text
	args := slices.Clone(e.args)
	for n := countVerbs(t); len(args) < n; {
		args = append(args, "-")
	}
	return fmt.Sprintf("AADSTS%d: "+t, append([]any{e.code}, args[:countVerbs(t)]...)...)
}

func countVerbs(s string) (n int) {
	for i := range len(s) - 1 {
		if s[i] == '%' && s[i+1] == 's' {
			n++
		}
	}
	return n
}

func (e *refusal) name(version int) string {
	if version == 1 {
		return cmp.Or(e.errorCode, e.row().v1)
	}
	return cmp.Or(e.errorCode, e.row().v2)
}

func (e *refusal) httpStatus() int {
	return cmp.Or(e.status, e.row().status, http.StatusBadRequest)
}

// trace identifies a request in an answer and in the log.
type trace struct{ id, correlation string }

const stamp = "2006-01-02 15:04:05Z"

// description is the whole error_description: the text, and which request it
// is about, in the one-line form that Entra has used since 2023.
func (e *refusal) description(t trace, now time.Time) string {
	text := e.text()
	if e.cause != 0 {
		text += " " + refuse(e.cause).text()
	}
	return fmt.Sprintf("%s Trace ID: %s Correlation ID: %s Timestamp: %s", text, t.id, t.correlation, now.UTC().Format(stamp))
}

// oldDescription is the description with its parts on lines of their own.
func oldDescription(d string) string {
	for _, part := range []string{" Trace ID: ", " Correlation ID: ", " Timestamp: "} {
		if i := strings.LastIndex(d, part); i >= 0 {
			d = d[:i] + "\r\n" + d[i+1:]
		}
	}
	return d
}

// codes are the codes of error_codes: the refusal's own, and its cause's.
func (e *refusal) codes() []int {
	if e.cause != 0 {
		return []int{e.code, e.cause}
	}
	return []int{e.code}
}

// errorBody is the JSON of an error.
type errorBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
	Suberror      string `json:"suberror,omitempty"`
	Claims        string `json:"claims,omitempty"`
}

func (s *Server) errorBody(e *refusal, version int, t trace) errorBody {
	now := s.cfg.Dials.Now()
	description := e.description(t, now)
	if s.cfg.Dials.Dials().SignIn.OldErrorText {
		description = oldDescription(description)
	}
	return errorBody{
		Error:         e.name(version),
		Description:   description,
		Codes:         e.codes(),
		Timestamp:     now.UTC().Format(stamp),
		TraceID:       t.id,
		CorrelationID: t.correlation,
		URI:           s.errorURI(e.code),
		Suberror:      e.row().suberror,
		Claims:        cmp.Or(e.claims, e.row().claims),
	}
}

func (s *Server) errorURI(code int) string {
	return s.cfg.URL + "/error?code=" + strconv.Itoa(code)
}

// An ErrorEntry is one line of the table of errors, for those who turn dials.
type ErrorEntry struct {
	Code     int    `json:"code"`
	V1       string `json:"error_v1"`
	V2       string `json:"error_v2"`
	Suberror string `json:"suberror,omitempty"`
	Status   int    `json:"status"`
	Text     string `json:"text"`
	Claims   string `json:"claims,omitempty"` // the usual claims challenge
}

// Errors lists the table of errors by code.
func Errors() []ErrorEntry {
	list := make([]ErrorEntry, 0, len(rows))
	for _, code := range slices.Sorted(maps.Keys(rows)) {
		e := refuse(code)
		r := e.row()
		list = append(list, ErrorEntry{code, r.v1, r.v2, r.suberror, e.httpStatus(), e.text(), r.claims})
	}
	return list
}

// Known reports whether the table has the code.
func Known(code int) bool {
	_, ok := rows[code]
	return ok
}

// estsServer is what this host calls itself in a header.
const estsServer = "2.1.0 - EMULATOR"

// writeJSON sends a JSON answer with the headers of the token endpoint.
func writeJSON(w http.ResponseWriter, status int, t trace, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("x-ms-request-id", t.id)
	h.Set("x-ms-ests-server", estsServer)
	if t.correlation != "" {
		h.Set("client-request-id", t.correlation)
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // an error here is the client's hang-up
}

func (s *Server) writeError(w http.ResponseWriter, e *refusal, version int, t trace) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	w.Header().Set("x-ms-clitelem", fmt.Sprintf("1,%d,0,,", e.code))
	writeJSON(w, e.httpStatus(), t, s.errorBody(e, version, t))
}
