package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// The roles of operators who sign in.
const (
	RoleViewer   = "viewer"   // sees everything, changes nothing
	RoleOperator = "operator" // invites, calls, and whatever makes things tighter
	RoleSecurity = "security" // and whatever makes things looser
)

// A right is what an operation needs.
type right int

// The rights. What is not in the table of rights is loosening: the strictest.
const (
	loosens  right = iota // may let more happen than before
	views                 // changes nothing
	acts                  // the daily work
	tightens              // never needs a second person, and is never held up
)

var rights = map[string]right{
	"POST /v1/tokens": acts, "POST /v1/call": acts,
	"GET /v1/partners": views, "POST /v1/partners": acts, "GET /v1/partners/{partner}": views,
	"GET /v1/partners/{partner}/usage": views, "GET /v1/partners/{partner}/customers": views, "GET /v1/customers/{tenant}": views, "POST /v1/partners/{partner}/customers/refresh": acts,
	"GET /v1/partners/{partner}/users": views, "POST /v1/partners/{partner}/users": loosens, "POST /v1/partners/{partner}/users/disallow": tightens,
	"GET /v1/grants": views, "GET /v1/grants/{partner}": views,
	"POST /v1/grants/{partner}/suspend": tightens, "POST /v1/grants/{partner}/withdraw": tightens, "POST /v1/grants/{partner}/discard": tightens,
	"POST /v1/grants/{partner}/resume": loosens, "POST /v1/grants/{partner}/rollback": loosens,
	"POST /v1/grants/{partner}/approve": loosens, "POST /v1/grants/{partner}/import": loosens,
	"GET /v1/forecast": views, "GET /metrics": views, "GET /v1/status": views,
	"GET /v1/audit": views, "GET /v1/audit/search": views, "GET /v1/audit/report": views, "GET /v1/audit/export": views, "GET /v1/audit/state": views,
	"POST /v1/audit/erase": loosens, "POST /v1/audit/drop": loosens, // what is gone proves nothing any more
	"GET /v1/callers": views, "GET /v1/callers/{caller}": views,
	"POST /v1/callers": loosens, "POST /v1/callers/{caller}/credentials": loosens, "POST /v1/callers/{caller}/rotate": loosens,
	"POST /v1/callers/{caller}/adopt": loosens, "POST /v1/callers/{caller}/expire": tightens, "POST /v1/callers/{caller}/remove": tightens,
	"GET /v1/keys": views, "POST /v1/keys/rotate": loosens, "POST /v1/keys/reload": loosens, "POST /v1/keys/retire": loosens, "POST /v1/keys/rewrap": loosens,
	"GET /v1/credentials": views, "POST /v1/credentials/rotate": loosens,
	"GET /v1/lockdown": views, "POST /v1/lockdown": tightens, "POST /v1/lockdown/end": loosens,
	"GET /v1/notices": views, "GET /v1/notices/{id}": views, "POST /v1/notices/{id}/retry": acts,
	// Who can redirect what people are told can hide what they do.
	"GET /v1/partners/{partner}/contacts": views, "POST /v1/partners/{partner}/contacts": loosens, "POST /v1/partners/{partner}/contacts/remove": loosens,
	"GET /v1/revocations": views, "POST /v1/revocations": tightens, "POST /v1/revocations/{id}/lift": loosens,
	"GET /v1/approvals": views, "GET /v1/approvals/{id}": views, givePath: loosens,
	"POST /v1/approvals/{id}/refuse": tightens, "POST /v1/approvals/{id}/withdraw": tightens,
	"GET /v1/policy": views, "POST /v1/policy": loosens, "POST /v1/policy/diff": views, "POST /v1/policy/explain": views,
	"GET /v1/backup": acts, "POST /v1/restore/finish": loosens,
}

// stepUp is how old a sign-in may be for what makes things looser.
const stepUp = 10 * time.Minute

// suffices reports whether roles are enough for a right.
func suffices(roles []string, need right) bool {
	switch need {
	case views:
		return len(roles) > 0
	case acts, tightens:
		return slices.Contains(roles, RoleOperator) || slices.Contains(roles, RoleSecurity)
	}
	return slices.Contains(roles, RoleSecurity)
}

// check reports why an operator who has signed in may not do something now.
func (o *Operator) check(need right, now time.Time) error {
	switch {
	case !suffices(o.Roles, need):
		return forbid("your roles (%s) do not allow this", strings.Join(o.Roles, ", "))
	case need == loosens && o.SignedIn.IsZero():
		return forbid("this needs a sign-in that is less than %v old, and the issuer does not say when you signed in: its ID tokens need the claim auth_time", stepUp)
	case need == loosens && now.Sub(o.SignedIn) >= stepUp:
		return forbid("this needs a sign-in that is less than %v old: mandate login", stepUp)
	}
	return nil
}

func forbid(format string, args ...any) error {
	return &mandate.DeniedError{Decision: mandate.Decision{Reason: fmt.Sprintf(format, args...)}}
}

// headerBreakGlass has the reason for a loosening act over the socket, where
// people are to sign in.
const headerBreakGlass = "Mandate-Break-Glass"

const maxReason = 200

// operatorKey is the context key of *Operator.
type operatorKey struct{}

// signedIn returns the operator who makes a request, or nil at the socket.
func signedIn(ctx context.Context) *Operator {
	o, _ := ctx.Value(operatorKey{}).(*Operator)
	return o
}

// ownerOf names who registers something: a person by issuer and object, so that
// nobody else can come to be the same.
func ownerOf(r *http.Request, caller mandate.CallerID) string {
	if o := signedIn(r.Context()); o != nil {
		return o.Issuer + " " + o.User.Object.String()
	}
	return string(caller)
}
