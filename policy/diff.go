package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// A RuleChange is one rule in which two policies differ.
type RuleChange struct {
	Change string `json:"change"` // "added", "removed" or "changed"
	Rule   string `json:"rule"`
	Effect string `json:"effect"` // "permit" or "forbid"; of the new one if there is one
	File   string `json:"file"`
	Line   int    `json:"line"`
}

// Changes lists the rules in which next differs from s, which may be nil. Where
// a rule stands, and how it is laid out, is no difference.
func (s *Set) Changes(next *Set) []RuleChange {
	out := []RuleChange{}
	before := map[string]*rule{}
	if s != nil {
		before = s.byName
	}
	for _, r := range next.rules {
		switch old := before[r.name]; {
		case old == nil:
			out = append(out, r.change("added"))
		case !bytes.Equal(old.cedar.MarshalCedar(), r.cedar.MarshalCedar()) || s.members(old) != next.members(r):
			out = append(out, r.change("changed"))
		}
	}
	if s != nil {
		for _, r := range s.rules {
			if next.byName[r.name] == nil {
				out = append(out, r.change("removed"))
			}
		}
	}
	return out
}

func (r *rule) change(what string) RuleChange {
	return RuleChange{what, r.name, r.effect(), r.file, r.line}
}

// members writes who is in the groups that a rule names.
func (s *Set) members(r *rule) string {
	named := map[string][]string{}
	text := string(r.cedar.MarshalCedar())
	for kind, all := range map[string]map[string][]string{"CallerGroup": s.groups.Callers, "PartnerGroup": s.groups.Partners, "PurposeGroup": s.groups.Purposes} {
		for name, list := range all {
			if uid := entity(kind, name); strings.Contains(text, uid) {
				named[uid] = slices.Compact(slices.Sorted(slices.Values(list)))
			}
		}
	}
	var b strings.Builder
	for _, uid := range slices.Sorted(maps.Keys(named)) {
		fmt.Fprintln(&b, uid, named[uid])
	}
	return b.String()
}

// RequestOf returns the request that a record is about, or false if it is about
// none.
func RequestOf(rec *mandate.Record) (*mandate.Request, bool) {
	if rec.Caller == "" || rec.Grant == nil || rec.Audience == "" || useOf(rec.Use) == 0 {
		return nil, false
	}
	req := &mandate.Request{
		Caller: rec.Caller, Use: rec.Use, Partner: mandate.Partner{Name: rec.Partner, Key: *rec.Grant}, Tenant: rec.Tenant, Audience: rec.Audience,
		Scopes: rec.Asked, Purpose: rec.Purpose, Ticket: rec.Ticket, Detail: rec.Detail, MFATime: rec.MFATime,
	}
	req.Address, _ = netip.ParseAddr(rec.Address) // zero for a local one
	if rec.Use == mandate.UseCall {
		req.Method, req.Path, _ = strings.Cut(rec.Detail, " ")
	}
	return req, true
}

// YesOf returns what a second person had said when a request was recorded: yes,
// if it was allowed by that.
func YesOf(rec *mandate.Record) Approvals {
	if rec.Approval == "" || rec.Kind == mandate.KindDenied {
		return nil
	}
	return yes(rec.Time)
}

// decides reports whether a record is the first of its request.
func decides(rec *mandate.Record) bool {
	switch rec.Kind {
	case mandate.KindDecided, mandate.KindDenied:
		return true
	case mandate.KindIssued:
		return rec.Cached
	}
	return false
}

// An Effect is a kind of request that two policies decide differently.
type Effect struct {
	Caller   mandate.CallerID `json:"caller"`
	Use      mandate.Use      `json:"use"`
	Partner  string           `json:"partner"`
	Tenant   mandate.TenantID `json:"tenant"`
	Audience mandate.Audience `json:"audience"`
	Purpose  string           `json:"purpose"`
	Detail   string           `json:"detail,omitempty"` // what is called
	Before   string           `json:"before"`           // "allow by rule billing"
	After    string           `json:"after"`            // "deny: no rule allows it"
	Count    int              `json:"count"`
	Last     time.Time        `json:"last"`
}

// A DryRun holds what was recorded against a policy that is not in force.
type DryRun struct {
	before, after *Set
	effects       map[Effect]*Effect // by all but Count and Last
	Requests      int                // that were decided anew
}

// NewDryRun compares two policies; before may be nil, and denies everything.
func NewDryRun(before, after *Set) *DryRun {
	return &DryRun{before: before, after: after, effects: map[Effect]*Effect{}}
}

// maxEffects bounds what is listed.
const maxEffects = 10_000

// Add decides the request of a record again, as of its time, by both policies.
func (d *DryRun) Add(rec *mandate.Record) {
	req, ok := RequestOf(rec)
	if !ok || !decides(rec) {
		return
	}
	d.Requests++
	second := YesOf(rec)
	before := mandate.Decision{Reason: "there was no policy"}
	if d.before != nil {
		before = d.before.decide(req, d.before.index.find(req), second, rec.Time)
	}
	after := d.after.decide(req, d.after.index.find(req), second, rec.Time)
	if before.Allowed == after.Allowed && before.Rule == after.Rule && before.Consented == after.Consented &&
		slices.Equal(before.Scopes, after.Scopes) && before.MaxTokenLife == after.MaxTokenLife {
		return
	}
	key := Effect{
		Caller: req.Caller, Use: req.Use, Partner: req.Partner.Name, Tenant: req.Tenant, Audience: req.Audience, Purpose: req.Purpose, Detail: req.Detail,
		Before: outcome(before), After: outcome(after),
	}
	e := d.effects[key]
	if e == nil && len(d.effects) >= maxEffects {
		return
	}
	if e == nil {
		e = new(key)
		d.effects[key] = e
	}
	e.Count++
	if rec.Time.After(e.Last) {
		e.Last = rec.Time
	}
}

// outcome writes a decision in a few words, with what it lets a token be.
func outcome(d mandate.Decision) string {
	if !d.Allowed {
		return "deny: " + d.Reason
	}
	text := "allow by rule " + d.Rule
	if !d.Consented {
		text += ", scopes " + strings.Join(d.Scopes, " ")
	}
	if d.MaxTokenLife > 0 {
		text += ", at most " + d.MaxTokenLife.String()
	}
	return text
}

// Effects lists what would change, the most frequent first.
func (d *DryRun) Effects() []Effect {
	out := make([]Effect, 0, len(d.effects))
	for _, e := range d.effects {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Effect) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Detail, b.Detail), cmp.Compare(a.Purpose, b.Purpose))
	})
	return out
}
