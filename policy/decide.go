package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"

	"github.com/mandate-sam/mandate"
)

// Approvals knows what a second person has agreed to.
type Approvals interface {
	// Approved returns the ID of the yes that rule be used for what req asks,
	// and when it was said; or a zero time. It must not wait.
	Approved(rule string, req *mandate.Request) (id string, at time.Time)
}

// Decide implements [mandate.Policy], for requests that nobody has approved.
func (s *Set) Decide(req *mandate.Request) mandate.Decision { return s.approve(req, nil) }

// approve decides a request. Approvals may be nil: then there are none.
func (s *Set) approve(req *mandate.Request, approvals Approvals) mandate.Decision {
	return s.decideOnce(req, approvals, time.Now())
}

// decideOnce decides a request, unless the same was decided before and that
// still holds.
func (s *Set) decideOnce(req *mandate.Request, approvals Approvals, now time.Time) mandate.Decision {
	a, whole := askedBy(req)
	if whole {
		if d, ok := s.memo.recall(&a, now); ok {
			return d
		}
	}
	found := s.index.find(req)
	d := s.decide(req, found, approvals, now)
	if whole {
		s.memo.note(&a, &found, &d, now)
	}
	return d
}

// decideByAll decides by every rule, and with the whole context.
func (s *Set) decideByAll(req *mandate.Request, approvals Approvals, now time.Time) mandate.Decision {
	return s.decide(req, candidates{[4][]*rule{s.rules}, useOf(req.Use), true}, approvals, now)
}

func (s *Set) decide(req *mandate.Request, found candidates, approvals Approvals, now time.Time) (d mandate.Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = mandate.Decision{Policy: s.version, Reason: "no rule: the policy could not be evaluated"}
		}
	}()
	w, err := s.world(req, now, found.wants())
	if err != nil {
		return mandate.Decision{Policy: s.version, Reason: "no rule allows it: " + err.Error()}
	}
	v := s.evaluate(req, w, &found, approvals, now)
	if d := v.decision(); d.Rule != "" || v.failed != nil {
		return d
	}
	d = mandate.Decision{Policy: s.version, Shadow: v.shadow, Reason: "no rule allows it"}
	if w, err = s.world(req, now, everything); err == nil {
		d.Reason += s.nearest(w, &v, &found)
	}
	return d
}

// A verdict is what the rules say of one request.
type verdict struct {
	set    *Set
	failed *rule    // could not be evaluated
	forbid *rule    // the first that forbids
	permit *rule    // the best that permits
	miss   *rule    // one whose conditions hold, and which needs something else
	lacks  need     // what that is
	second string   // ID of the yes that permit needs, and has
	shadow []string // rules in shadow mode that hold
}

// evaluate asks Cedar, and then the annotations, of every rule that was found.
func (s *Set) evaluate(req *mandate.Request, w *world, found *candidates, approvals Approvals, now time.Time) verdict {
	v := verdict{set: s}
	decision, diagnostic := cedar.Authorize(found, w, w.Request)
	for _, e := range diagnostic.Errors {
		// A rule that forbids and fails would be skipped by Cedar, so any
		// failure is a denial. One in shadow mode decides nothing.
		if r := s.byName[string(e.PolicyID)]; !r.shadow {
			v.failed = first(v.failed, r)
		}
	}
	for _, e := range diagnostic.Reasons {
		r := s.byName[string(e.PolicyID)]
		v.weigh(r, r.lacks(req, w, approvals, now))
	}
	if decision == cedar.Deny && len(diagnostic.Reasons) > 0 {
		// Cedar names only the rules that forbid; those that permit are asked
		// by themselves, since a rule in shadow mode must not hide them.
		permits := found.permits()
		_, diagnostic = cedar.Authorize(permits, w, w.Request)
		for _, e := range diagnostic.Reasons {
			r := s.byName[string(e.PolicyID)]
			v.weigh(r, r.lacks(req, w, approvals, now))
		}
	}
	slices.Sort(v.shadow)
	if v.permit != nil && v.permit.approval > 0 {
		v.second, _ = approvals.Approved(v.permit.name, req)
	}
	return v
}

// permits returns the rules of c that permit.
func (c *candidates) permits() *candidates {
	out := &candidates{uses: c.uses}
	for i, list := range c.lists {
		for _, r := range list {
			if r.permit {
				out.lists[i] = append(out.lists[i], r)
			}
		}
	}
	return out
}

// weigh adds a rule whose conditions hold.
func (v *verdict) weigh(r *rule, lacks need) {
	switch {
	case lacks != needNothing:
		if r.permit && !r.shadow && (v.miss == nil || lacks > v.lacks || lacks == v.lacks && r.order < v.miss.order) {
			v.miss, v.lacks = r, lacks
		}
	case r.shadow:
		v.shadow = append(v.shadow, r.name)
	case !r.permit:
		v.forbid = first(v.forbid, r)
	case v.permit == nil || r.consented != v.permit.consented:
		if v.permit == nil || r.consented {
			v.permit = r
		}
	default:
		v.permit = first(v.permit, r)
	}
}

// first returns the one that is earlier in the files. It makes decisions the
// same in whatever order rules are found.
func first(a, b *rule) *rule {
	if a == nil || b.order < a.order {
		return b
	}
	return a
}

// decision returns what follows, or a decision without a rule if nothing
// speaks of the request.
func (v *verdict) decision() mandate.Decision {
	d := mandate.Decision{Policy: v.set.version, Shadow: v.shadow}
	switch {
	case v.failed != nil:
		d.Rule, d.Reason = v.failed.name, fmt.Sprintf("rule %q could not be evaluated, and what cannot be evaluated is denied", v.failed.name)
	case v.forbid != nil:
		d.Rule, d.Reason = v.forbid.name, fmt.Sprintf("forbidden by rule %q", v.forbid.name)
	case v.permit != nil:
		r := v.permit
		d.Allowed, d.Rule, d.Reason = true, r.name, r.reason
		d.Consented, d.Scopes, d.MaxTokenLife, d.Approval = r.consented, r.scopes, r.maxTokenLife, v.second
	case v.miss != nil && v.lacks == needApproval:
		d.Rule, d.Reason = v.miss.name, fmt.Sprintf("rule %q %s", v.miss.name, v.miss.explain(v.lacks))
		d.NeedsApproval = v.miss.approval
	}
	return d
}

// A need is what a request lacks for a rule whose conditions hold, in the order
// in which they are looked at: a greater one is a nearer miss.
type need int

const (
	needAllCustomers need = iota
	needScopes
	needTime
	needTicket
	needApproval
	needNothing
)

// lacks returns what req lacks for r, whose conditions hold.
//
// A rule without @customers("all") never gives out a token of the partner's
// own tenant: such a token reaches every customer, since Partner Center's
// customers are named in the URL only.
func (r *rule) lacks(req *mandate.Request, w *world, approvals Approvals, now time.Time) need {
	switch {
	case !r.permit && (r.until.IsZero() || now.Before(r.until)):
		return needNothing
	case !r.permit:
		return needTime
	case !r.allCustomers && w.Resource.Type == typePartner:
		return needAllCustomers
	case !r.allowsAsked(req.Scopes):
		return needScopes
	case !now.Before(r.until):
		return needTime
	case r.ticket && strings.TrimSpace(req.Ticket) == "":
		return needTicket
	case r.approval > 0 && !r.approved(req, approvals, now):
		return needApproval
	}
	return needNothing
}

func (r *rule) approved(req *mandate.Request, approvals Approvals, now time.Time) bool {
	if approvals == nil {
		return false
	}
	_, at := approvals.Approved(r.name, req)
	return !at.IsZero() && !at.After(now) && now.Before(at.Add(r.approval))
}

// explain says of r what a request lacks.
func (r *rule) explain(n need) string {
	switch n {
	case needAllCustomers:
		return `is for customers one at a time, and a token of the partner's own tenant reaches all of them; it would need @customers("all")`
	case needScopes:
		return fmt.Sprintf("allows only the scopes %v", r.scopes)
	case needTime:
		return "ended on " + r.until.UTC().Format(time.RFC3339)
	case needTicket:
		return "needs a ticket"
	case needApproval:
		return fmt.Sprintf("needs the yes of a second person, good for %s", r.approval)
	}
	return "holds"
}
