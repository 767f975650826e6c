// Package mandate turns the consent that a CSP partner gave once into the
// access tokens that a marketplace application needs every hour, and lets
// nobody have more of it than a rule says.
//
// A [Broker] is the heart of it. It asks its [Policy] whether the caller may
// have a token for this partner, this tenant, this audience, for this purpose;
// writes the decision to the log; redeems the stored refresh token with Entra
// once for everybody who waits; stores the refresh token that comes back
// before anybody gets the access token; and compares what came back with the
// rule. [Broker.Consent] is the other half: it makes a grant out of an
// authorization code, and only if MFA is proven and every audience answers.
//
// The package is Microsoft's Secure Application Model in terms of types. It
// knows nothing of HTTP, SQL or Key Vault: each of those is an adapter in a
// subpackage, wired by internal/app.
package mandate

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Audience is the resource URI of an API, such as
// "https://graph.microsoft.com". Policy, cache and log see only this form;
// aliases like "graph" become it at the door.
type Audience string

// A CallerID names a workload that asks for tokens, such as "billing", or
// "uid:1000" for a user of the operator socket.
type CallerID string

// A Scope is a delegated permission's name as the audience calls it, such as
// "User.Read", without the resource in front.
type Scope = string

// Identity is a user of a tenant: the only thing users are keyed by. A UPN or
// an e-mail address can be given to somebody else.
type Identity struct {
	Tenant TenantID `json:"tenant"`
	Object ObjectID `json:"object"`
}

// A GrantKey says whose consent to what: one application, one partner, in one
// cloud.
type GrantKey struct {
	Cloud       string   `json:"cloud"`
	Application AppID    `json:"application"`
	Partner     TenantID `json:"partner"`
}

// A Partner is a CSP partner that was invited or has consented.
type Partner struct {
	Name        string // short name, unique: "contoso"
	Key         GrantKey
	DisplayName string // what its people call it: "Contoso CSP"
	Created     time.Time
}

// A State says what may be done with a grant.
type State string

// The states of a grant. An active grant serves tokens, and while the active
// one's refresh token is dead, the fall-back before it may; no other does.
const (
	StateCandidate State = "candidate" // proven, and waits for an operator's decision
	StateActive    State = "active"
	StateFallback  State = "fallback"  // the generation before the active one, kept for a day
	StateSuspended State = "suspended" // kept, serves nothing
	StateReplaced  State = "replaced"  // an earlier generation; its token is destroyed
	StateDiscarded State = "discarded" // a candidate that was not wanted; its token is destroyed
	StateWithdrawn State = "withdrawn" // destroyed for good
)

// The origins of a grant.
const (
	OriginConsent = "consent" // given in a browser, here
	OriginImport  = "import"  // a refresh token that was obtained elsewhere
)

// FallbackLife is how long the generation before the active one may stand in
// for it.
const FallbackLife = 24 * time.Hour

// A Grant is what one consent gave.
type Grant struct {
	Key        GrantKey
	Generation int64 // 1 for the first consent, one more with each
	Last       int64 // the last generation in any state, set by [Vault.Head]: a candidate's, or Generation
	Version    int64 // grows with every change of the stored refresh token
	State      State
	Since      int64  // the epoch of the last change of state; tokens of an earlier one are void
	Origin     string // [OriginConsent] or [OriginImport]

	User        Identity // who consented
	UserName    string   // that user's UPN at the time; for people to read, never a key
	Consented   time.Time
	Until       time.Time // the end that the partner agreed to
	Redeemed    time.Time // when a refresh token was last stored
	Evidence    Evidence
	Audiences   []GrantedAudience
	AgentGroups []string // "AdminAgents", "SalesAgents", "HelpdeskAgents"

	// Fallback is until when a [StateFallback] may stand in, or a
	// [StateCandidate] may be decided on.
	Fallback time.Time

	// Compromised marks a renewal that was given because the user's account
	// was compromised: what was there before is destroyed at once.
	Compromised bool

	// Renewal marks a consent that the partner began by itself, without an
	// invitation: it takes the place of an active generation, and of nothing
	// that was withdrawn.
	Renewal bool

	// What the keep-alive knows of an active grant.
	Due       time.Time // when it is redeemed next, whether or not anybody asks
	Attempted time.Time // when that was last tried; zero if never
	Failures  int       // how often it has failed since it last succeeded
	LastFault string    // why it last failed; "" after a success

	Refresh Secret // zero unless the grant was opened
}

// A GrantedAudience is an audience that was redeemed when the consent was
// given, and what its token carried.
type GrantedAudience struct {
	Audience Audience `json:"audience"`
	Scopes   []Scope  `json:"scopes"`
}

// Evidence is what proved MFA, as facts, each with the token or answer that it
// came from. None of it was carried by a browser.
type Evidence struct {
	// PartnerCenter is the verdict of Partner Center on the partner's own
	// token (isMfaCompliant); it is always true in a stored grant.
	PartnerCenter bool `json:"partner_center"`

	// AMR lists, for every token that has such a claim, its authentication
	// methods. Every one of them includes "mfa" in a stored grant.
	AMR []TokenAMR `json:"amr"`

	// AuthTime is when the user signed in, if the ID token says so and says a
	// time after the consent began; else it is zero, and MFA is proven but
	// its time is not.
	AuthTime time.Time `json:"auth_time,omitzero"`
}

// TokenAMR is the amr claim of one token.
type TokenAMR struct {
	Token   string   `json:"token"` // "id_token", or the audience of an access token
	Methods []string `json:"methods"`
}

// A Use is what a token is wanted for.
type Use string

// The uses. A token that is handed out can be used for anything within its
// scopes until it expires; one that stays is used for a single call.
const (
	UseToken Use = "token" // the token is handed to the caller
	UseCall  Use = "call"  // this server makes the call, the token stays
)

// A Request asks for one token.
type Request struct {
	ID          string // joins its records; random, of whoever made it; empty lets the broker make one
	Caller      CallerID
	Use         Use
	Partner     Partner
	Tenant      TenantID      // the partner's own, or a customer's
	Audience    Audience      // which API
	Scopes      []Scope       // asked; sorted; empty means everything consented
	Purpose     string        // required; a name that policy knows
	Ticket      string        // optional reference
	Claims      string        // a claims challenge in the form of [ParseClaims], or ""
	MinLifetime time.Duration // the token must live at least this long
	Refused     string        // fingerprint of a token that the audience has just refused; another is wanted
	Address     netip.Addr    // where the request came from; zero for a local one
	Detail      string        // what is called with the token, for the record: "GET /v1/customers"
	User        *Identity     // the partner's user on whose behalf it is, if one was proven
	Bound       []string      // which of these fields the caller's registration has filled
	Method      string        // of the call, if it is one
	Path        string        // of the call, in canonical form, without the query
	MFATime     time.Time     // when the consent's user proved MFA, if that is known; set by the broker
}

// OwnTenant reports whether the token is for the partner's own tenant.
func (r *Request) OwnTenant() bool { return r.Tenant == r.Partner.Key.Partner }

// A Decision is what policy answered, and by which rule.
type Decision struct {
	Allowed bool
	Rule    string // the rule's name, or "" if no rule speaks of the request
	Reason  string // a sentence for the caller and the record
	Policy  string // version of the policy that decided

	// Shadow lists the rules in shadow mode that hold: what they would have
	// done they did not do.
	Shadow []string

	// Consented allows whatever scopes the token carries; otherwise they must
	// all be in Scopes.
	Consented bool
	Scopes    []Scope

	// MaxTokenLife is the longest remaining life of a token that may be
	// handed out under the rule. Zero means Entra's own limit.
	MaxTokenLife time.Duration

	// NeedsApproval is how long the yes of a second person would last, if that
	// is all that a denied request lacks; otherwise zero. Approval is the ID of
	// the yes by which one was allowed, or of what the second person is asked.
	NeedsApproval time.Duration
	Approval      string
}

// A Token is an access token and what is known of it.
type Token struct {
	Access        Secret
	Expires       time.Time
	Tenant        TenantID
	Audience      Audience
	Scopes        []Scope // granted: what the token carries
	Generation    int64   // of the grant that it was redeemed from
	Fingerprint   string  // SHA-256 of the access token, hex
	UTI           string  // Entra's id of the token, joins its sign-in log
	CorrelationID string  // Entra's id of the redemption
	Rule          string  // by which it was handed out
	Receipt       Receipt // of the record that it was handed out
	Epoch         int64   // in which that was decided
}

// A Redemption presents a refresh token, together with the application's own
// credential, for one audience in one tenant.
type Redemption struct {
	Key      GrantKey
	Tenant   TenantID
	Audience Audience
	Scopes   []Scope
	Claims   string
	Refresh  Secret
}

// A CodeRedemption presents an authorization code.
type CodeRedemption struct {
	Key         GrantKey
	Code        Secret
	Verifier    Secret // PKCE
	RedirectURI string // exactly as in the authorization request
	Nonce       string // which the ID token must carry
	Audience    Audience
}

// Redeemed is what the token endpoint answered.
type Redeemed struct {
	Access        Secret
	Expires       time.Time
	Scopes        []Scope   // of the audience; sorted; OpenID Connect's own left out
	Refresh       Secret    // the replacing refresh token; zero if none came
	User          *IDToken  // verified; nil if none came
	AMR           []string  // the access token's; nil if it carries none
	IssuedAt      time.Time // the access token's iat; zero if unreadable
	UTI           string
	CorrelationID string
}

// An IDToken is the verified content of one.
type IDToken struct {
	Identity
	UserName string    // preferred_username or upn; for people to read
	Name     string    // display name
	Guest    bool      // a guest of the tenant, or a personal account
	AMR      []string  // nil if the token carries none, as those of v2 do not
	AuthTime time.Time // zero if absent
}

// An Authority is Entra, as far as the broker needs it; package entra has the
// real one. Its errors are [*Fault]s, except that RedeemCode's may also be
// [*Refusal]s about the ID token.
type Authority interface {
	// Redeem redeems a refresh token. At the partner's own tenant it asks for
	// an ID token too, so that the answer can be compared with the grant's
	// user; at a customer's it returns neither user nor refresh token.
	Redeem(context.Context, Redemption) (Redeemed, error)

	// RedeemCode redeems an authorization code at the partner's authority and
	// verifies the ID token in full: signature, issuer, audience, tenant,
	// nonce and times.
	RedeemCode(context.Context, CodeRedemption) (Redeemed, error)
}

// A Prober asks the APIs about a user whose consent is not yet stored.
// Implementations return a [*Fault] if they get no clear answer.
type Prober interface {
	// MFACompliant asks Partner Center, with ValidateMfa, what it thinks of
	// the token. It is true only for an unambiguous yes: an absent,
	// unparsable or contradicted verdict is false with a reason.
	MFACompliant(ctx context.Context, key GrantKey, token Secret) (ok bool, reason string, err error)

	// AgentGroups returns which of AdminAgents, SalesAgents and
	// HelpdeskAgents the token's user is in, according to Graph.
	AgentGroups(ctx context.Context, key GrantKey, token Secret) ([]string, error)
}

// A Vault keeps grants, sealed. Package vault has implementations and the
// conformance test for others. What it keeps beside its database, a key or
// sealed tokens, may not answer: then the error is a transient [*Fault] that
// wraps [ErrUnavailable], and is left alone for a while like one of Entra's.
type Vault interface {
	// Head returns the active generation of a grant without its refresh
	// token, or a [*NoGrantError] that says why there is none. A grant past
	// its end is still active here: the broker looks at Until. Candidates and
	// discarded generations count for nothing here but Last, or the error's
	// Generation.
	Head(context.Context, GrantKey) (Grant, error)

	// Open returns the active generation with its refresh token.
	Open(context.Context, GrantKey) (Grant, error)

	// Fallback returns the generation that may stand in for the active one,
	// with its refresh token, or a [*NoGrantError] if none may.
	Fallback(context.Context, GrantKey) (Grant, error)

	// Candidate returns the generation that waits for an operator's decision,
	// with its refresh token, or a [*NoGrantError] if none does.
	Candidate(context.Context, GrantKey) (Grant, error)

	// Keep stores what a redemption brought, all of it or nothing. When it
	// returns nil that survives a crash. The error wraps [ErrRotated] if only
	// the refresh token has moved on meanwhile, in which case the access token
	// is good and nothing else was stored, and [ErrSuperseded] if generation,
	// state, epoch or turn have, in which case all of it must be discarded.
	Keep(context.Context, Keep) error

	// Activate stores g, with its refresh token, as the active generation; g
	// may be a candidate that was staged. The active one before becomes
	// [StateFallback] if g is of the same user and neither Compromised nor an
	// import, and otherwise [StateReplaced] with its refresh token destroyed;
	// an earlier fall-back is destroyed, and so are shared tokens; the epoch
	// is raised; all of it at once. g.Generation must be one more than the
	// last generation in any state (or the candidate's own), a suspended
	// grant is replaced only by a candidate, and if g is a Renewal one must be
	// active: otherwise the error wraps [ErrSuperseded]. When it returns nil the grant survives a crash.
	Activate(ctx context.Context, g Grant) error

	// Stage stores g, with its refresh token, as the candidate that an
	// operator may activate until g.Fallback. It takes the next generation,
	// as Activate does, and the place of an earlier candidate, which is
	// discarded. It changes nothing that is served.
	Stage(ctx context.Context, g Grant) error
}

// A Keep is what came of one redemption.
type Keep struct {
	Grant Grant  // as it was opened
	Epoch int64  // in which it was decided
	Turn  Turn   // the right to redeem; zero where nobody else could
	Next  Secret // the replacing refresh token; zero leaves the stored one
	Token *Token // the access token to share with other replicas, if there is a Turn
}

// A TokenKey is everything that makes two tokens different.
type TokenKey struct {
	Grant      GrantKey
	Generation int64
	Tenant     TenantID
	Audience   Audience
	Scopes     []Scope // as asked
	Claims     string
}

// A Turn is the right to redeem one token, which one replica at a time has.
type Turn struct {
	Key   TokenKey
	Owner string // who took it: a replica, and a random part for every time
	Fence int64  // larger each time that the turn is taken

	// Grant is what [Vault.Open] would have returned when the turn was taken,
	// but for Last, where that came along; else it is zero.
	Grant Grant
}

// A Wanted says which shared token will do.
type Wanted struct {
	Key     TokenKey
	Since   int64         // stored in this epoch or later
	AtLeast time.Duration // it must live longer than that
	Not     string        // fingerprint of one that will not do
}

// TurnLease is how long a turn is its owner's unless it is extended. It is
// short, so that nobody waits long for a replica that died.
const TurnLease = 8 * time.Second

// Turns keeps replicas that share a database from redeeming the same token,
// and hands to each what another has obtained. A server that is alone has none.
type Turns interface {
	// Take returns a token that another replica has stored and that will do,
	// or else the turn. While another replica has the turn it waits for that
	// one to store something, to give up, or to fall silent: leases end by
	// the database's clock. It returns ctx's error when ctx is done first, and
	// otherwise errors wrapping [ErrUnavailable].
	Take(context.Context, Wanted) (Turn, *Token, error)

	// Shared returns a token that another replica has stored and that will do,
	// or nil if there is none. It takes no turn and waits for nobody.
	Shared(context.Context, Wanted) (*Token, error)

	// Extend lets the owner of a turn keep it for another [TurnLease]. The error
	// wraps [ErrSuperseded] if it is not the owner's any more.
	Extend(context.Context, Turn) error

	// Release gives a turn back of which nothing came. A turn that [Vault.Keep]
	// was given is over when that returns nil or [ErrRotated].
	Release(context.Context, Turn) error
}

// A Schedule remembers when grants are to be redeemed so that they stay alive.
type Schedule interface {
	// Due returns at most limit active grants that are due by now, the most
	// overdue first, without their refresh tokens.
	Due(ctx context.Context, now time.Time, limit int) ([]Grant, error)

	// Claim moves g's due time to until, if it is still g's: of several
	// replicas that found g due, one claims it. It reports whether it did.
	Claim(ctx context.Context, g Grant, until time.Time) (bool, error)

	// Attempted notes what came of a redemption of g, and when the next is
	// due: fault is "" if it succeeded. Of a generation that is no longer
	// active it notes nothing.
	Attempted(ctx context.Context, g Grant, next time.Time, fault string) error
}

// An Epoch tells the number that grows with every change of security state. A
// decision is valid only under the epoch that it was made in.
type Epoch interface {
	// Epoch returns the current epoch, or an error wrapping [ErrUnavailable]
	// if it is not known for certain. It is called on every request and must
	// not wait.
	Epoch() (int64, error)
}

// A Policy decides who may have what, for which purpose, until when.
type Policy interface {
	// Decide never fails: what it cannot evaluate it denies.
	Decide(*Request) Decision
}

// A Recorder is the audit log.
type Recorder interface {
	// Record returns once the record is durable. If it returns an error,
	// which wraps [ErrUnavailable], whatever was to be recorded must not
	// happen.
	Record(context.Context, Record) (Receipt, error)
}

// A Receipt proves that a record was written.
type Receipt struct {
	Index int64  `json:"index"` // from 0
	Hash  string `json:"hash"`  // of the record as written, hex SHA-256
}

// The kinds of [Record].
const (
	KindDecided   = "decided"   // a request was allowed; Entra has not been asked yet
	KindDenied    = "denied"    // a request was denied
	KindIssued    = "issued"    // a token was handed out, or used for a call
	KindFailed    = "failed"    // an allowed request got no token
	KindRefreshed = "refreshed" // a token was renewed ahead of its expiry; nobody got it yet
	KindConsented = "consented" // a grant was activated
	KindStaged    = "staged"    // a consent was proven, and waits for an operator
	KindRefused   = "refused"   // a consent was refused
	KindChanged   = "changed"   // an operator changed something
)

// A Record is one line of the audit log. It holds no secret and no token.
type Record struct {
	Time     time.Time `json:"time"` // set by the recorder
	Kind     string    `json:"kind"`
	Request  string    `json:"request,omitempty"` // joins decided with issued or failed
	Epoch    int64     `json:"epoch"`
	Emulated bool      `json:"emulated,omitempty"` // set by the recorder in a custom cloud

	Caller      CallerID  `json:"caller,omitempty"`
	Address     string    `json:"address,omitempty"`
	Use         Use       `json:"use,omitempty"`
	Purpose     string    `json:"purpose,omitempty"`
	Ticket      string    `json:"ticket,omitempty"`
	Partner     string    `json:"partner,omitempty"` // short name
	Grant       *GrantKey `json:"grant,omitempty"`
	Generation  int64     `json:"generation,omitempty"`
	Tenant      TenantID  `json:"tenant,omitzero"`
	Audience    Audience  `json:"audience,omitempty"`
	Asked       []Scope   `json:"asked,omitempty"`
	Granted     []Scope   `json:"granted,omitempty"`
	Rule        string    `json:"rule,omitempty"`
	Policy      string    `json:"policy,omitempty"`
	Shadow      []string  `json:"shadow,omitempty"` // rules in shadow mode that hold
	Reason      string    `json:"reason,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	UTI         string    `json:"uti,omitempty"`
	Correlation string    `json:"correlation,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Cached      bool      `json:"cached,omitempty"`
	User        *Identity `json:"user,omitempty"`
	Evidence    *Evidence `json:"evidence,omitempty"`
	Detail      string    `json:"detail,omitempty"`   // what was changed or called, without query
	Bound       []string  `json:"bound,omitempty"`    // fields that the caller's registration has filled
	MFATime     time.Time `json:"mfa_time,omitzero"`  // when the consent's user proved MFA, where that was known to policy
	Approval    string    `json:"approval,omitempty"` // ID of the yes of a second person by which it was allowed, or of what they are asked
}

// openIDScopes are not permissions on an API; Entra lists them with the
// others.
var openIDScopes = []Scope{"openid", "profile", "email", "offline_access"}

// NormalScopes returns the scopes in the form in which they are compared:
// sorted, each once, OpenID Connect's own left out.
func NormalScopes(scopes []Scope) []Scope {
	out := make([]Scope, 0, len(scopes))
	for _, s := range scopes {
		if s != "" && !slices.Contains(openIDScopes, strings.ToLower(s)) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
