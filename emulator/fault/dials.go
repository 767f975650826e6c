// Package fault holds the emulator's dials: what its owner has turned to make
// a service slow, strict, silent or wrong.
package fault

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Dials are the emulator's settings. The zero value is a healthy cloud in
// which every tenant demands MFA. In JSON a duration is a string such as
// "1.5s".
type Dials struct {
	// MFADemanded says by tenant id whether the tenant demands MFA at sign-in.
	// A tenant that is not named demands it. As in Entra, a v1 sign-in that
	// names no resource does not meet the demand, and a user who has no second
	// factor registered signs in without.
	MFADemanded map[string]bool `json:"mfa_demanded,omitempty"`

	// MFARegistered says by UPN (lower case) whether a user has a second
	// factor, instead of what the directory says.
	MFARegistered map[string]bool `json:"mfa_registered,omitempty"`

	// MFAResources are resources (any name) whose tokens are refused with
	// 50076 (50079 if the user has no second factor) when the sign-in that the
	// code or refresh token goes back to was made without MFA.
	MFAResources []string `json:"mfa_resources,omitempty"`

	// AMRAbsent leaves amr out of every token.
	AMRAbsent bool `json:"amr_absent,omitempty"`

	// AuthTime changes auth_time in ID tokens: "absent" leaves it out though
	// asked for, "old" puts it a year back, "always" includes it though not
	// asked for. Empty: included if asked for by claims.
	AuthTime string `json:"auth_time,omitempty"`

	// MFAVerdict changes Partner Center's answer to ValidateMfa: "absent" (no
	// header), "body" (a property of the body, no header), "contradict" (the
	// opposite of what the token says), "garbage" (neither true nor false),
	// "true" and "false". Empty: the truth, in the header isMfaCompliant.
	MFAVerdict string `json:"mfa_verdict,omitempty"`

	// EnforceMFA makes Partner Center refuse user tokens without MFA (900421).
	EnforceMFA bool `json:"enforce_mfa,omitempty"`

	// IDToken changes the ID tokens that are issued.
	IDToken IDToken `json:"id_token,omitzero"`

	// ScopesAsAsked puts only the scopes that were asked for into a token,
	// instead of all that are consented. Entra never does.
	ScopesAsAsked bool `json:"scopes_as_asked,omitempty"`

	// Refusals make the identity platform refuse. The first that matches
	// counts.
	Refusals []Refusal `json:"refusals,omitempty"`

	// Throttles make services answer 429 or 503.
	Throttles []Throttle `json:"throttles,omitempty"`

	// Outage names services that answer 503 until they are taken out again:
	// "login" (its token endpoint, and device codes), "partnercenter",
	// "graph", "arm", "keyvault" (every vault).
	Outage []string `json:"outage,omitempty"`

	// LatencyMillis is how long, by the same names, services take to answer;
	// "login" is all of that host.
	LatencyMillis map[string]int `json:"latency_millis,omitempty"`

	// Challenges make services demand claims of access tokens that they would
	// otherwise accept.
	Challenges []Challenge `json:"challenges,omitempty"`

	// ServiceErrors make Partner Center refuse requests that it would
	// otherwise answer.
	ServiceErrors []ServiceError `json:"service_errors,omitempty"`

	// KeyVault are the limits and the weather of the vaults.
	KeyVault KeyVault `json:"key_vault,omitzero"`

	// SignIn are the dials of device codes and refresh tokens.
	SignIn SignIn `json:"sign_in,omitzero"`

	// ExpiredCredentials are ids of applications whose credentials are refused
	// as expired (7000222).
	ExpiredCredentials []string `json:"expired_credentials,omitempty"`

	// ClockOffset is how far the emulator's clock is ahead of the machine's; a
	// negative one is behind. Everything that is issued, expires or is dated
	// goes by that clock, the Date header too. What a client waits for does
	// not: latencies, throttling, and how long a deletion or a replication
	// takes; and certificates of TLS, which are judged by the client's clock.
	ClockOffset time.Duration `json:"-"`

	// TokenLatency is how long the token endpoint takes to answer.
	TokenLatency time.Duration `json:"-"`

	// ReplicationDelay is how long what was made through Graph stays unknown: a
	// secret or certificate to the token endpoint (7000215, 700027), a new
	// application to it (700016) and to whoever looks for it by its application
	// id, a new service principal to everybody.
	ReplicationDelay time.Duration `json:"-"`

	// AccessTokenLifetime is how long access tokens live; 0: 60 to 90
	// minutes, at random. It is rounded down to seconds, so anything shorter
	// makes tokens that are born expired.
	AccessTokenLifetime time.Duration `json:"-"`

	// IDTokenLifetime is how long ID tokens live; 0: an hour. It is rounded
	// down like that of access tokens.
	IDTokenLifetime time.Duration `json:"-"`

	// SecretLifetime is the longest that a secret lives that is added through
	// Graph, whatever end was asked for; 0: as asked, or two years.
	SecretLifetime time.Duration `json:"-"`

	// CodeLifetime is how long an authorization code lives; 0: ten minutes.
	CodeLifetime time.Duration `json:"-"`

	// Hold, while it is not nil, keeps the token endpoint from sending any
	// answer, good or bad, until it can receive from the channel. Close it to
	// let all go. By then the answer is made: what it says has happened, and
	// its refresh token is in the ledger.
	Hold <-chan struct{} `json:"-"`
}

// An IDToken says how ID tokens differ from correct ones. An empty field
// changes nothing.
type IDToken struct {
	Unsigned  bool   `json:"unsigned,omitempty"`   // v1 only: alg none, no signature
	Algorithm string `json:"algorithm,omitempty"`  // "HS256": signed with the application's first secret
	BadSig    bool   `json:"bad_sig,omitempty"`    // a signature that does not verify
	UnknownID bool   `json:"unknown_id,omitempty"` // a kid that no key has
	Issuer    string `json:"issuer,omitempty"`
	TenantID  string `json:"tenant_id,omitempty"` // tid only; iss stays
	Audience  string `json:"audience,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
	Subject   string `json:"subject,omitempty"` // oid
	IDP       string `json:"idp,omitempty"`
	Guest     bool   `json:"guest,omitempty"`   // acct 1
	Expired   bool   `json:"expired,omitempty"` // exp an hour ago
}

// Endpoints of a [Refusal].
const (
	EndpointToken      = "token"
	EndpointAuthorize  = "authorize"
	EndpointDeviceCode = "devicecode"
)

// A Refusal makes an endpoint of the identity platform answer with an error.
// An empty condition matches everything, but an empty Endpoint is the token
// endpoint.
//
// The authorization endpoint refuses as soon as it knows what the conditions
// name: at once, or else when the person has signed in. It sends the browser
// back to the client with the error, unless the code means that the client,
// its redirect URI or the tenant is in doubt: that is said on a page. Grant
// matches at the token endpoint only, User not at that for device codes.
type Refusal struct {
	Endpoint string `json:"endpoint,omitempty"` // "token", "authorize" or "devicecode"
	Code     int    `json:"code"`               // AADSTS code; one that the emulator's table lacks is an invalid_grant
	Cause    int    `json:"cause,omitempty"`    // a second code, chained to the first in text and error_codes; 0: none
	Grant    string `json:"grant,omitempty"`    // grant_type
	Tenant   string `json:"tenant,omitempty"`   // id of the tenant that the token would be for
	Resource string `json:"resource,omitempty"` // any name of the resource
	Client   string `json:"client,omitempty"`   // application id
	User     string `json:"user,omitempty"`     // UPN
	Times    int    `json:"times,omitempty"`    // how often; 0: always
	Claims   string `json:"claims,omitempty"`   // claims challenge (JSON) instead of the usual one
}

// A Throttle makes a service answer 429 or 503.
type Throttle struct {
	Service    string `json:"service,omitempty"`     // "login" (its token endpoint), "partnercenter", "graph", "arm", "keyvault"; empty: each of them
	Status     int    `json:"status,omitempty"`      // 0: 429
	RetryAfter int    `json:"retry_after,omitempty"` // seconds; 0: no Retry-After header

	// Times is how many requests are refused; 0 means 1. There is no "for
	// ever": clients exist that repeat such a request without end.
	Times int `json:"times,omitempty"`
}

// clone copies the dials so deeply that changing the copy leaves d alone.
func (d Dials) clone() Dials {
	d.MFADemanded = maps.Clone(d.MFADemanded)
	d.MFARegistered = maps.Clone(d.MFARegistered)
	d.MFAResources = slices.Clone(d.MFAResources)
	d.Refusals = slices.Clone(d.Refusals)
	d.Throttles = slices.Clone(d.Throttles)
	d.Challenges = slices.Clone(d.Challenges)
	d.ServiceErrors = slices.Clone(d.ServiceErrors)
	d.ExpiredCredentials = slices.Clone(d.ExpiredCredentials)
	d.KeyVault = d.KeyVault.clone()
	d.cloneWeather()
	return d
}

// duration is a time.Duration that JSON shows as a string.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// wire is Dials as JSON sees them. A type of its own keeps the methods of
// Dials from being promoted, which would make JSON recurse.
type wire struct {
	*fields
	ClockOffset         duration `json:"clock_offset"`
	TokenLatency        duration `json:"token_latency"`
	ReplicationDelay    duration `json:"replication_delay"`
	AccessTokenLifetime duration `json:"access_token_lifetime"`
	IDTokenLifetime     duration `json:"id_token_lifetime"`
	SecretLifetime      duration `json:"secret_lifetime"`
	CodeLifetime        duration `json:"code_lifetime"`
}

type fields Dials

// MarshalJSON implements [json.Marshaler].
func (d Dials) MarshalJSON() ([]byte, error) { return json.Marshal(d.wire()) }

func (d *Dials) wire() *wire {
	return &wire{
		fields:              (*fields)(d),
		ClockOffset:         duration(d.ClockOffset),
		TokenLatency:        duration(d.TokenLatency),
		ReplicationDelay:    duration(d.ReplicationDelay),
		AccessTokenLifetime: duration(d.AccessTokenLifetime),
		IDTokenLifetime:     duration(d.IDTokenLifetime),
		SecretLifetime:      duration(d.SecretLifetime),
		CodeLifetime:        duration(d.CodeLifetime),
	}
}

func durationOf(d duration) time.Duration { return time.Duration(d) }
