package mandate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Errors that callers branch on. Everything else is a fault of this program,
// to be logged and not shown.
var (
	// ErrInvalid: the request has a field that is missing, malformed or too
	// long. See [InvalidError] for which.
	ErrInvalid = errors.New("invalid request")

	// ErrUnauthenticated: the caller did not prove who it is.
	ErrUnauthenticated = errors.New("not authenticated")

	// ErrDenied: no rule allows the request. The error is a [*DeniedError].
	ErrDenied = errors.New("denied by policy")

	// ErrWiderThanRule: Entra's token carries more than the rule allows, so
	// it was not handed out. The error is a [*WiderError].
	ErrWiderThanRule = errors.New("token is wider than the rule")

	// ErrUnknownPartner: no partner has that name or tenant.
	ErrUnknownPartner = errors.New("unknown partner")

	// ErrNoGrant: the partner has no active grant: it has not consented yet,
	// or has withdrawn, or its grant is suspended or past its end. A vault's
	// error is a [*NoGrantError].
	ErrNoGrant = errors.New("no active grant")

	// ErrRotated: the stored refresh token is newer than the one that was to
	// be replaced. Whoever holds an access token from the lost redemption may
	// keep it.
	ErrRotated = errors.New("a newer refresh token is already stored")

	// ErrSuperseded: the grant's generation or state, or the epoch, changed.
	// What was obtained under the old one must be discarded and the request
	// decided again.
	ErrSuperseded = errors.New("security state has changed")

	// ErrUnavailable: the database or the audit log cannot be reached, so
	// nothing is handed out. Trying again later is right.
	ErrUnavailable = errors.New("temporarily unavailable")

	// ErrRateLimited: too many requests of this kind; trying again later is
	// right.
	ErrRateLimited = errors.New("too many requests")

	// ErrUpstream: Entra refused or failed. The error is a [*Fault].
	ErrUpstream = errors.New("refused upstream")

	// ErrRefused: a consent was not accepted. The error is a [*Refusal].
	ErrRefused = errors.New("consent not accepted")

	// ErrExists: there is already one of that name.
	ErrExists = errors.New("already exists")

	// ErrNotFound: there is no such thing.
	ErrNotFound = errors.New("not found")
)

// An InvalidError names the field of a request that is wrong. It wraps
// [ErrInvalid].
type InvalidError struct {
	Field  string // the field's name as the caller wrote it
	Reason string // a sentence for a person
}

// Invalid returns an [*InvalidError] for field.
func Invalid(field, format string, args ...any) error {
	return &InvalidError{field, fmt.Sprintf(format, args...)}
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// A DeniedError says by which rule, or for want of which, a request was
// denied. It wraps [ErrDenied].
type DeniedError struct{ Decision Decision }

func (e *DeniedError) Error() string { return "denied: " + e.Decision.Reason }
func (e *DeniedError) Unwrap() error { return ErrDenied }

// A NoGrantError says why there is no active grant. It wraps [ErrNoGrant].
type NoGrantError struct {
	Generation int64 // the last one, in whatever state; 0 if there never was one
	State      State // of the last one that was ever active; "" if none was
}

func (e *NoGrantError) Error() string {
	switch e.State {
	case StateSuspended:
		return "the grant is suspended; an operator can resume it"
	case StateWithdrawn:
		return "the grant was withdrawn; the partner must consent again"
	case "":
		return "the partner has not consented yet; invite it"
	}
	return "no grant is active; the last generation is " + string(e.State)
}
func (e *NoGrantError) Unwrap() error { return ErrNoGrant }

// A WiderError reports a token whose scopes or lifetime go beyond the rule. It
// wraps [ErrWiderThanRule].
type WiderError struct {
	Rule    string
	Allowed []string      // scopes that the rule names
	Granted []string      // scopes that the token carries
	MaxLife time.Duration // the rule's limit, zero if life was not the reason
	Life    time.Duration // the token's remaining life
}

func (e *WiderError) Error() string {
	if e.MaxLife > 0 {
		return fmt.Sprintf("rule %q allows tokens of at most %v, Entra's lives %v; use the gateway, or raise max_token_life", e.Rule, e.MaxLife, e.Life.Round(time.Second))
	}
	return fmt.Sprintf("rule %q allows scopes [%s], Entra's token carries [%s]; name them in the rule, or say `scopes: consented`",
		e.Rule, strings.Join(e.Allowed, " "), strings.Join(e.Granted, " "))
}
func (e *WiderError) Unwrap() error { return ErrWiderThanRule }

// A Domain is the part of the world that a [Fault] belongs to. A fault in one
// domain says nothing about the others.
type Domain string

// The fault domains.
const (
	DomainApplication Domain = "application" // our credential or registration: no partner is to blame
	DomainGrant       Domain = "grant"       // the partner's refresh token is dead or must be renewed
	DomainCustomer    Domain = "customer"    // this customer's tenant does not let us in
	DomainAudience    Domain = "audience"    // this API is not consented
	DomainTransient   Domain = "transient"   // busy or broken for now
)

// A Remedy is what ends a [Fault], and so whose move it is.
type Remedy string

// The remedies.
const (
	RemedyRenew      Remedy = "renew"      // the partner signs in and consents again, with MFA
	RemedyPreconsent Remedy = "preconsent" // pre-consent the application in the customer's tenant
	RemedyCredential Remedy = "credential" // the operator fixes or rotates the application's credential
	RemedyConfigure  Remedy = "configure"  // the operator fixes the configuration or the app registration
	RemedyAdminister Remedy = "administer" // an administrator changes a user, a role, GDAP or conditional access
	RemedyRetry      Remedy = "retry"      // wait and try again
)

// A Fault is why Entra did not give a token. It never changes a grant by
// itself. It wraps [ErrUpstream].
type Fault struct {
	Domain        Domain
	Remedy        Remedy
	OAuthError    string        // "invalid_grant", …; empty if there was no OAuth answer
	Suberror      string        // "basic_action", "consent_required", …
	Codes         []int         // AADSTS numbers, the outermost first
	Description   string        // Microsoft's first sentence, without the ids
	Claims        string        // the claims challenge, for a caller who can answer it
	CorrelationID string        // Microsoft's correlation id, for a support request
	TraceID       string        // Microsoft's trace id
	Timestamp     string        // Microsoft's timestamp
	Status        int           // HTTP status; 0 if there was no answer
	RetryAfter    time.Duration // how long Entra asked to wait; 0 if it did not say
	Cause         error         // the transport error, or the API's own
}

// Error names what happened, Microsoft's code and the correlation id.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s fault", f.Domain)
	if f.OAuthError != "" {
		fmt.Fprintf(&b, ": %s", f.OAuthError)
	}
	if f.Description != "" {
		fmt.Fprintf(&b, ": %s", f.Description)
	}
	if f.Cause != nil {
		fmt.Fprintf(&b, ": %v", f.Cause)
	}
	if f.CorrelationID != "" {
		fmt.Fprintf(&b, " (correlation id %s)", f.CorrelationID)
	}
	return b.String()
}

// Unwrap lets errors.Is find [ErrUpstream] and the cause.
func (f *Fault) Unwrap() []error {
	if f.Cause == nil {
		return []error{ErrUpstream}
	}
	return []error{ErrUpstream, f.Cause}
}

// Code returns the outermost AADSTS number, or 0.
func (f *Fault) Code() int {
	if len(f.Codes) == 0 {
		return 0
	}
	return f.Codes[0]
}

// MFA reports whether a fresh proof of MFA would end the fault.
func (f *Fault) MFA() bool {
	return f.has(50072, 50074, 50076, 50078, 50079, 50158, 900421)
}

// ConditionalAccess reports whether a policy of the tenant's refused.
func (f *Fault) ConditionalAccess() bool {
	return f.has(53000, 53001, 53002, 53003, 53004, 53011, 530032, 530033, 530034, 530035, 70043, 900309)
}

// AnyScope reports whether the fault would be the same whatever scopes were
// asked for: what is wrong is the refresh token, its user, how they signed in,
// or the tenant. What is not certain to be is not.
func (f *Fault) AnyScope() bool {
	return f.MFA() || f.ConditionalAccess() ||
		f.has(50173, 50132, 50133, 50089, 70000, 700082, 70008, 54005, // the token
			50053, 50055, 50057, 50034, 51004, 50020, 50177, // the user
			700016, 7000112, 90099, 90002, 5000224, 90072) // the tenant, and the application in it
}

func (f *Fault) has(codes ...int) bool {
	return slices.ContainsFunc(f.Codes, func(c int) bool { return slices.Contains(codes, c) })
}

// A Reason says why a consent was refused. Each has a page of its own on the
// onboarding site.
type Reason string

// The reasons for refusing a consent.
const (
	ReasonDeclined     Reason = "declined"      // the person pressed Cancel (65004)
	ReasonAdmin        Reason = "admin_needed"  // only an administrator may consent (90094)
	ReasonTenant       Reason = "wrong_tenant"  // signed in to another tenant than the invited one
	ReasonUser         Reason = "wrong_user"    // another user than the invited one
	ReasonGuest        Reason = "guest"         // a guest of the tenant, or a personal account
	ReasonMFA          Reason = "no_mfa"        // MFA was not proven
	ReasonRole         Reason = "no_agent"      // neither an Admin Agent nor a Sales Agent
	ReasonRoleUnknown  Reason = "agent_unknown" // Graph did not say whether the user is an agent
	ReasonAudience     Reason = "audience"      // an audience could not be redeemed
	ReasonConditional  Reason = "conditional"   // conditional access refused the redemption
	ReasonToken        Reason = "bad_token"     // the ID token did not verify
	ReasonTransaction  Reason = "transaction"   // the sign-in was not started here, or was used or is too old
	ReasonInvitation   Reason = "invitation"    // the invitation is unknown, used or expired
	ReasonOtherUser    Reason = "other_user"    // a grant of another user is active; an operator must decide
	ReasonWeaker       Reason = "weaker"        // the new consent is weaker than the active one; an operator must decide
	ReasonSuspended    Reason = "suspended"     // an operator suspended the grant, and must decide
	ReasonApplication  Reason = "application"   // our own credential or registration was refused
	ReasonUnavailable  Reason = "unavailable"   // Entra or Partner Center did not answer
	ReasonEntra        Reason = "entra"         // Entra answered with another error
	ReasonNoRefresh    Reason = "no_refresh"    // Entra gave no refresh token
	ReasonSiteProblem  Reason = "site"          // this site could not finish; nothing was stored
	ReasonEnded        Reason = "ended"         // there is no consent any more that could be renewed
	ReasonUnacceptable Reason = "unacceptable"  // the answer has fields that this site never asks for
)

// A Refusal is why a consent was not accepted. No grant was stored, unless
// Staged says so. It wraps [ErrRefused].
type Refusal struct {
	Reason   Reason
	Detail   string   // for the operator and the record; no secret
	Audience Audience // which audience, where that is the reason
	Staged   int64    // the generation that waits for an operator's decision; 0 if none does
	Fault    *Fault   // what Entra said, if it said something
	Err      error    // the underlying error, if any
}

func (r *Refusal) Error() string {
	s := "consent refused: " + string(r.Reason)
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	if r.Fault != nil {
		s += ": " + r.Fault.Error()
	} else if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

// Unwrap lets errors.Is find [ErrRefused] and what lies under the refusal.
func (r *Refusal) Unwrap() []error {
	errs := []error{ErrRefused}
	if r.Fault != nil {
		errs = append(errs, r.Fault)
	}
	if r.Err != nil {
		errs = append(errs, r.Err)
	}
	return errs
}
