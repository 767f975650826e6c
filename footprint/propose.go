package footprint

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mandate-sam/mandate"
)

func (s *Subject) report(all map[mandate.Audience]*use) Report {
	r := Report{
		Partner: s.Partner, Customer: s.Customer, Days: s.Days, From: s.From, To: s.To, Consented: s.Grant.Consented,
		Audiences: []Audience{}, Proposed: []Permission{}, Required: []Required{}, Unnamed: []Permission{},
	}
	for _, name := range s.order(all) {
		u := all[name]
		u.settle()
		u.judge(s)
		r.Audiences = append(r.Audiences, u.Audience)
		for _, scope := range u.Scopes {
			if scope.Verdict != Drop {
				r.Proposed = append(r.Proposed, Permission{u.API, scope.Scope})
			}
		}
	}
	r.Notes = s.notes(&r)
	r.Manifest = manifest(&r)
	r.Required, r.Unnamed = required(r.Proposed)
	return r
}

// order returns the audiences as they were consented to, then the others.
func (s *Subject) order(all map[mandate.Audience]*use) []mandate.Audience {
	var out []mandate.Audience
	for _, a := range s.Grant.Audiences {
		if !slices.Contains(out, a.Audience) {
			out = append(out, a.Audience)
		}
	}
	for _, a := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// consented returns the scopes that the consent has for an audience. One that
// was added later has those that its tokens carried.
func (s *Subject) consented(u *use) []mandate.Scope {
	for _, a := range s.Grant.Audiences {
		if a.Audience == u.Resource {
			return mandate.NormalScopes(a.Scopes)
		}
	}
	return mandate.NormalScopes(slices.Collect(maps.Keys(u.carried)))
}

// judge says what becomes of every scope of an audience.
func (u *use) judge(s *Subject) {
	consented := s.consented(u)
	own := [][]mandate.Scope{}
	if s.Customer.IsZero() {
		own = ownNeeds(u.API)
	}
	if u.Verdict = Keep; len(own) == 0 && u.Tokens+u.Calls == 0 {
		u.Verdict = Drop
	}
	called, unknown := u.calledFor(consented)
	larger := u.Tokens > 0 || unknown != nil // whether larger scopes stay anyway
	chosen := choose(slices.Concat(own, called), consented, larger)
	u.Scopes = []Scope{}
	for _, scope := range consented {
		v := Scope{Scope: scope, Carried: u.carried[scope]}
		switch {
		case chosen[scope]:
			v.Verdict, v.Why = Keep, u.reason(scope, called)
		case v.Carried > 0:
			v.Verdict, v.Why = Unknown, fmt.Sprintf("%d token(s) with it were handed out, and what they were used for is not known here", v.Carried)
		case unknown != nil:
			v.Verdict, v.Why = Unknown, fmt.Sprintf("what %s %s needs is not known here", unknown.Method, unknown.Path)
		case u.Tokens+u.Calls == 0:
			v.Verdict, v.Why = Drop, "the API was never used"
		case u.Calls == 0:
			v.Verdict, v.Why = Drop, "no token that was handed out carried it"
		default:
			v.Verdict, v.Why = Drop, "no call needed it"
		}
		u.Scopes = append(u.Scopes, v)
	}
	for _, scope := range slices.Sorted(maps.Keys(chosen)) {
		if !slices.Contains(consented, scope) {
			u.Scopes = append(u.Scopes, Scope{Scope: scope, Verdict: Add, Why: "does instead of a larger one"})
		}
	}
}

// calledFor returns what the calls needed, and a path of which that is not
// known, if there is one. So is one whose call none of the consented scopes
// would have allowed: then the table is wrong about it.
func (u *use) calledFor(consented []mandate.Scope) (needed [][]mandate.Scope, unknown *Path) {
	for i := range u.Paths {
		p := &u.Paths[i]
		if !overlap(p.Needs, consented) {
			unknown = p
			continue
		}
		needed = append(needed, p.Needs)
	}
	return needed, unknown
}

// reason says why a scope was chosen.
func (u *use) reason(scope mandate.Scope, called [][]mandate.Scope) string {
	if slices.ContainsFunc(called, func(n []mandate.Scope) bool { return slices.Contains(n, scope) }) {
		return "calls need it"
	}
	return "this server needs it, to prove consents or to list customers"
}

// choose returns scopes that meet all needs: for each the least, unless one
// that is there anyway will do. Where larger scopes stay, nothing is added
// beside them. What no consented scope meets is left as it is: it was not
// there before.
func choose(needed [][]mandate.Scope, consented []mandate.Scope, larger bool) map[mandate.Scope]bool {
	chosen := make(map[mandate.Scope]bool)
	slices.SortStableFunc(needed, func(a, b []mandate.Scope) int { return len(a) - len(b) }) // those without a choice first
	for _, needs := range needed {
		if !overlap(needs, consented) || slices.ContainsFunc(needs, func(s mandate.Scope) bool { return chosen[s] }) {
			continue
		}
		least := needs[0]
		if larger {
			least = needs[slices.IndexFunc(needs, func(s mandate.Scope) bool { return slices.Contains(consented, s) })]
		}
		chosen[least] = true
	}
	return chosen
}

func overlap(a, b []mandate.Scope) bool {
	return slices.ContainsFunc(a, func(s mandate.Scope) bool { return slices.Contains(b, s) })
}

// notes says what a reader must know before acting on the report.
func (s *Subject) notes(r *Report) []string {
	notes := []string{"Records that were dropped from the log, and calls made with tokens past this server, are not seen. What a query or a body asked for is not recorded."}
	if s.Grant.Consented.After(s.From) {
		notes = append(notes, "The consent is younger than the time looked at: what runs once a month may not have run under it.")
	}
	if !s.Customer.IsZero() {
		notes = append(notes, "This is about one customer: it proposes what the consent in that customer's tenant could be, not the registration, which serves all.")
	}
	for _, a := range r.Audiences {
		if a.Tokens > 0 {
			notes = append(notes, fmt.Sprintf("Tokens for %s were handed out: which of their scopes were used only Microsoft's logs tell. Calls through this server would.", a.API))
		}
	}
	return notes
}
