package portal

import (
	"context"
	"errors"
	"time"

	"github.com/mandate-sam/mandate"
)

// An Application is what the site says about one that asks for consent.
type Application struct {
	ID        mandate.AppID
	Cloud     mandate.Cloud
	Name      string // as Microsoft's consent page shows it
	Publisher string // the company behind it
	Contact   string // where a partner asks for help: a mail address or an https URL; may be empty

	// Permissions is what the application is registered for, in the order in
	// which a partner reads it. Every audience has at least one.
	Permissions []Permission

	// Audiences are redeemed before a consent is accepted: Partner Center
	// first, then Graph, then any others.
	Audiences []mandate.Audience
}

// A Permission is one delegated permission on one API.
type Permission struct {
	API     string // an audience or its alias, as [mandate.Cloud.Resolve] takes it
	Scope   mandate.Scope
	Meaning string // for somebody who has never seen a scope; may be empty for one that this package knows
}

// Errors of [Invitations] and [Transactions] that have a page of their own.
var (
	ErrInvitationUnknown = errors.New("no such invitation")
	ErrInvitationUsed    = errors.New("invitation was already used")
	ErrInvitationExpired = errors.New("invitation has expired")

	// ErrTransaction: there is no sign-in with this id and proof that is
	// still to come back.
	ErrTransaction = errors.New("sign-in is unknown, used or too old")
)

// An Invitation asks one partner for consent to one application.
type Invitation struct {
	ID      string // names it; opens nothing
	Partner mandate.Partner
	User    string        // an object ID or user name; empty lets any user of the tenant consent
	Term    time.Duration // how long the grant may last
	Expires time.Time     // of the invitation itself

	// Unfinished is when the latest sign-in with this invitation began, if
	// that one never came back; else zero.
	Unfinished time.Time
}

// Invitations finds invitations.
type Invitations interface {
	// Invitation returns the invitation that token opens and changes nothing.
	// The error wraps one of [ErrInvitationUnknown], [ErrInvitationUsed] and
	// [ErrInvitationExpired]; with the latter two it returns the invitation
	// as well.
	Invitation(ctx context.Context, token mandate.Secret) (Invitation, error)
}

// A Start is what a sign-in begins with, and what its answer is held against.
type Start struct {
	Invitation  Invitation // of a partner's own sign-in: nothing but the partner
	SignIn      bool       // of somebody who looks, and consents to nothing
	To          string     // of a sign-in: which page it leads to; a key of pages
	Renewal     bool       // of a consent: begun by the partner's own user, without an invitation
	Authority   string     // where the browser is sent
	RedirectURI string     // where the answer must arrive
	Until       time.Time  // the end of the grant, as the partner read it
	Audiences   []mandate.Audience
}

// A Proof is what one browser holds of one sign-in, and what is derived from
// it. The server keeps a hash of Cookie only, so that a stolen database
// finishes nobody's sign-in.
type Proof struct {
	ID       string         // names the sign-in; letters, digits, "-" and "_"
	Cookie   mandate.Secret // 256 random bits
	State    mandate.Secret // derived; no "." in it
	Nonce    string         // derived
	Verifier mandate.Secret // derived, for PKCE
}

// A Transaction is a sign-in that has come back.
type Transaction struct {
	Partner     mandate.Partner
	SignIn      bool // this and the next two as it began
	To          string
	Renewal     bool
	User        string // as in the invitation
	Authority   string // this and the next as they began
	RedirectURI string
	Began       time.Time
	Until       time.Time
	Audiences   []mandate.Audience
	Compromised bool // as in [mandate.Consent]
}

// Transactions keeps sign-ins between the moment a browser leaves for Entra
// and the moment it comes back.
type Transactions interface {
	// Begin stores a sign-in for ten minutes. It may return the errors of
	// [Invitations], or one wrapping [mandate.ErrRateLimited] if too many
	// sign-ins are pending.
	Begin(context.Context, Start) (Proof, error)

	// Proof derives the whole proof from a sign-in's id and cookie, without
	// knowing whether there is such a sign-in. The error wraps
	// [ErrTransaction] if they cannot be ones.
	Proof(id string, cookie mandate.Secret) (Proof, error)

	// Consume marks the sign-in as come back, in one conditional update, so
	// that it returns nil once for each sign-in whatever runs beside it. If
	// the proof is wrong, or the sign-in is unknown, used or too old, or not
	// one of this site's, or its invitation was used meanwhile, the error wraps
	// [ErrTransaction] and nothing has changed.
	Consume(context.Context, Proof) (Transaction, error)
}

// Outcomes keeps how sign-ins ended, for one hour.
type Outcomes interface {
	// Finish stores the outcome of a consumed sign-in. If it has a receipt,
	// the invitation is used up at the same time.
	Finish(ctx context.Context, id string, o Outcome) error

	// Outcome returns the outcome to whoever has the proof, or an error
	// wrapping [mandate.ErrNotFound].
	Outcome(context.Context, Proof) (Outcome, error)
}

// A Consenter makes grants; [mandate.Broker] is one.
type Consenter interface {
	// Consent makes a grant out of an authorization code. The error is, or
	// wraps, a [*mandate.Refusal], which is recorded; after any error nothing
	// is stored, unless the refusal's Staged says that it waits.
	Consent(context.Context, mandate.Consent) (mandate.Grant, mandate.Receipt, error)

	// Refuse records a refusal that came before there was anything to redeem.
	// It returns r, joined with the error of recording it if there was one.
	Refuse(ctx context.Context, p mandate.Partner, r *mandate.Refusal, address string) error
}

// An AuthorizeRequest is what Entra's sign-in page is to be asked for.
type AuthorizeRequest struct {
	Application mandate.AppID
	Cloud       string
	Tenant      mandate.TenantID
	RedirectURI string
	State       string
	Nonce       string
	Challenge   string // PKCE, S256
	LoginHint   string // a user name, or empty
	SignIn      bool   // ask only who it is
}

// An Outcome is how a sign-in ended: with a receipt or a refusal. It holds no
// secret and survives encoding/json.
type Outcome struct {
	Partner mandate.Partner `json:"partner"`
	SignIn  bool            `json:"sign_in,omitempty"` // it was not for a consent
	Renewal bool            `json:"renewal,omitempty"` // the partner began by itself
	User    string          `json:"user,omitempty"`    // whom the invitation was for
	Time    time.Time       `json:"time"`
	Request string          `json:"request"` // id of the request that it was decided in, as in the log
	Receipt *Receipt        `json:"receipt,omitempty"`
	Refused *Refused        `json:"refused,omitempty"`
}

// A Receipt is what a partner gets for a consent: the grant without its token.
type Receipt struct {
	User        mandate.Identity          `json:"user"`
	UserName    string                    `json:"user_name"`
	Consented   time.Time                 `json:"consented"`
	Until       time.Time                 `json:"until"`
	Generation  int64                     `json:"generation"`
	Evidence    mandate.Evidence          `json:"evidence"`
	Audiences   []mandate.GrantedAudience `json:"audiences"`
	AgentGroups []string                  `json:"agent_groups"`
	Record      mandate.Receipt           `json:"record"`
}

// Refused is what a partner is told of a refusal.
type Refused struct {
	Reason        mandate.Reason   `json:"reason"`
	Audience      mandate.Audience `json:"audience,omitempty"`
	Code          int              `json:"code,omitempty"` // AADSTS number
	Description   string           `json:"description,omitempty"`
	CorrelationID string           `json:"correlation_id,omitempty"`
	TraceID       string           `json:"trace_id,omitempty"`
	Timestamp     string           `json:"timestamp,omitempty"`

	// Waits is set if everything was proven, and the consent waits until then
	// for the operator's decision.
	Waits time.Time `json:"waits,omitzero"`
}

func receipt(g mandate.Grant, record mandate.Receipt) *Receipt {
	return &Receipt{
		User: g.User, UserName: g.UserName, Consented: g.Consented, Until: g.Until, Generation: g.Generation,
		Evidence: g.Evidence, Audiences: g.Audiences, AgentGroups: g.AgentGroups, Record: record,
	}
}

// refused leaves out Detail and the underlying error: they are for the
// operator and the record.
func refused(r *mandate.Refusal) *Refused {
	out := &Refused{Reason: r.Reason, Audience: r.Audience}
	if r.Staged > 0 {
		out.Waits = time.Now().Add(mandate.CandidateLife).UTC().Truncate(time.Second)
	}
	if f := r.Fault; f != nil {
		out.Code, out.Description = f.Code(), f.Description
		out.CorrelationID, out.TraceID, out.Timestamp = f.CorrelationID, f.TraceID, f.Timestamp
	}
	return out
}
