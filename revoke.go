package mandate

import (
	"fmt"
	"strings"
	"time"
)

// A Revocation shuts a part of what would be handed out, whatever policy says,
// until somebody lifts it. It is security state: revoking and lifting raise the
// epoch, so that they are in force in every replica within a second, ordered
// with the records of tokens. Nothing is destroyed by it.
type Revocation struct {
	ID     string    `json:"id"`
	Reach  Reach     `json:"reach"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	By     CallerID  `json:"by"`
}

// A Reach is what a revocation covers: the requests that fit all of its fields.
// A zero field fits every request, so the zero Reach covers everything.
//
// Customer covers what is done in that tenant, and calls whose path names it:
// Partner Center has customers in the partner's own tenant, and tells them apart
// by the path alone.
type Reach struct {
	Partner  GrantKey `json:"partner,omitzero"`
	Customer TenantID `json:"customer,omitzero"`
	Caller   CallerID `json:"caller,omitempty"`
	Audience Audience `json:"audience,omitempty"`
}

// Covers reports whether a request is within the reach.
func (r *Reach) Covers(q *Request) bool {
	return (r.Partner == GrantKey{} || r.Partner == q.Partner.Key) &&
		(r.Customer.IsZero() || r.Customer == q.Tenant || q.names(r.Customer)) &&
		(r.Caller == "" || r.Caller == q.Caller) &&
		(r.Audience == "" || r.Audience == q.Audience)
}

// names reports whether the path of a call has a tenant's ID in it. Others read
// an ID in capitals, in braces and without its hyphens, too.
func (r *Request) names(t TenantID) bool {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }
	return r.Use == UseCall && strings.Contains(plain(r.Path), plain(t.String()))
}

// String says in words what is covered.
func (r *Reach) String() string {
	var parts []string
	if r.Partner != (GrantKey{}) {
		parts = append(parts, "partner "+r.Partner.Partner.String())
	}
	if !r.Customer.IsZero() {
		parts = append(parts, "tenant "+r.Customer.String())
	}
	if r.Caller != "" {
		parts = append(parts, "caller "+string(r.Caller))
	}
	if r.Audience != "" {
		parts = append(parts, "audience "+string(r.Audience))
	}
	if parts == nil {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// Revocations knows what is revoked.
type Revocations interface {
	// Revoked returns a revocation that covers the request, or nil. The answer
	// is of the current epoch or of a later one. The error wraps
	// [ErrUnavailable] if it is not known. It is called on every request.
	Revoked(*Request) (*Revocation, error)
}

// denial is the decision that a revocation stands for.
func (r *Revocation) denial() Decision {
	return Decision{Rule: "revocation " + r.ID, Reason: fmt.Sprintf("%s was revoked on %s by %s (%s); an operator with the role security can lift it: mandate revoke lift %s",
		r.Reach.String(), stamp(r.Since), r.By, r.Reason, r.ID)}
}

// revoked makes the decision, if the request is revoked.
func (a *attempt) revoked() (bool, error) {
	if a.cfg.Revocations == nil {
		return false, nil
	}
	r, err := a.cfg.Revocations.Revoked(a.req)
	if err != nil || r == nil {
		return false, err
	}
	a.decision = r.denial()
	return true, nil
}
