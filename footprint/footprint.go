// Package footprint compares what a partner consented to with what was used of
// it, and proposes the smaller manifest that would have done.
//
// It is pure: records of the audit log go in, a report comes out. What it
// cannot know it says: a token that was handed out may have been used for
// anything within its scopes, so only calls that this server made itself tell
// which permission was needed. Wherever there is doubt the scope stays.
package footprint

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Subject says whose rights are looked at, and for how long.
type Subject struct {
	Partner   string
	Grant     mandate.Grant    // what was consented; without its refresh token
	Customer  mandate.TenantID // zero means every tenant
	Days      int
	From, To  time.Time
	Audiences map[mandate.Audience]string // short names
}

// A Report is what was used of a consent, and what would have done.
type Report struct {
	Partner   string           `json:"partner"`
	Customer  mandate.TenantID `json:"customer,omitzero"`
	Days      int              `json:"days"`
	From      time.Time        `json:"from"`
	To        time.Time        `json:"to"`
	Consented time.Time        `json:"consented"`
	Audiences []Audience       `json:"audiences"`
	Proposed  []Permission     `json:"proposed"`
	Manifest  string           `json:"manifest"` // YAML for the application in the configuration
	Required  []Required       `json:"required"` // requiredResourceAccess of the registration
	Unnamed   []Permission     `json:"unnamed"`  // proposed, and not in Required: their ids are not known here
	Notes     []string         `json:"notes"`
}

// An Audience is what was consented and used of one API.
type Audience struct {
	API      string           `json:"api"` // short name, or the resource
	Resource mandate.Audience `json:"resource"`
	Verdict  string           `json:"verdict"` // [Keep] or [Drop]
	Tokens   int64            `json:"tokens"`  // handed out
	Calls    int64            `json:"calls"`   // made here
	Last     time.Time        `json:"last,omitzero"`
	Callers  []string         `json:"callers"`
	Purposes []string         `json:"purposes"`
	Tenants  []Tenant         `json:"tenants"`
	Scopes   []Scope          `json:"scopes"`
	Paths    []Path           `json:"paths"`
}

// A Tenant is how often an API was used for one tenant.
type Tenant struct {
	Tenant mandate.TenantID `json:"tenant"`
	Tokens int64            `json:"tokens"`
	Calls  int64            `json:"calls"`
}

// A Path is a way in which an API was called through this server.
type Path struct {
	Method string          `json:"method"`
	Path   string          `json:"path"` // with {id} for what names somebody or something
	Calls  int64           `json:"calls"`
	Last   time.Time       `json:"last"`
	Needs  []mandate.Scope `json:"needs"` // any of these would do, the least first; none if that is not known
}

// The verdicts.
const (
	Keep    = "keep"    // was needed
	Drop    = "drop"    // was not
	Unknown = "unknown" // may have been, so it stays
	Add     = "add"     // does instead of a larger one that is dropped
)

// A Scope is what becomes of a permission, and why.
type Scope struct {
	Scope   mandate.Scope `json:"scope"`
	Carried int64         `json:"carried"` // by how many tokens that were handed out
	Verdict string        `json:"verdict"`
	Why     string        `json:"why"`
}

// maxPaths bounds how many paths of an API are told apart: whoever calls may
// make them up.
const maxPaths = 500

// use is what was counted of one audience.
type use struct {
	Audience
	callers, purposes map[string]bool
	tenants           map[mandate.TenantID]*Tenant
	carried           map[mandate.Scope]int64
	paths             map[string]*Path
}

// Measure reads the records of the time in question, in any order, and says
// what was used. It looks only at those of the subject's application and
// partner, and at nothing that was refused.
func Measure(s Subject, records iter.Seq2[mandate.Record, error]) (Report, error) {
	all := make(map[mandate.Audience]*use)
	for _, a := range s.Grant.Audiences {
		all[a.Audience] = newUse(s, a.Audience)
	}
	for r, err := range records {
		if err != nil {
			return Report{}, err
		}
		if !s.about(&r) {
			continue
		}
		if all[r.Audience] == nil {
			all[r.Audience] = newUse(s, r.Audience)
		}
		all[r.Audience].add(&r)
	}
	return s.report(all), nil
}

// about reports whether a record is of a use of the subject's rights. What this
// server itself asked for names no use; what it needs is known, and no proof
// that anybody needed the rest of what its tokens carried.
func (s *Subject) about(r *mandate.Record) bool {
	return r.Kind == mandate.KindIssued && r.Use != "" && r.Grant != nil && *r.Grant == s.Grant.Key && r.Audience != "" &&
		(s.Customer.IsZero() || r.Tenant == s.Customer) && !r.Time.Before(s.From) && r.Time.Before(s.To)
}

func newUse(s Subject, a mandate.Audience) *use {
	return &use{
		Audience: Audience{API: cmp.Or(s.Audiences[a], string(a)), Resource: a},
		callers:  make(map[string]bool), purposes: make(map[string]bool), tenants: make(map[mandate.TenantID]*Tenant),
		carried: make(map[mandate.Scope]int64), paths: make(map[string]*Path),
	}
}

func (u *use) add(r *mandate.Record) {
	t := u.tenants[r.Tenant]
	if t == nil {
		t = &Tenant{Tenant: r.Tenant}
		u.tenants[r.Tenant] = t
	}
	u.callers[string(r.Caller)], u.purposes[r.Purpose] = true, true
	u.Last = later(u.Last, r.Time)
	if r.Use == mandate.UseCall {
		u.Calls++
		t.Calls++
		u.called(r)
		return
	}
	u.Tokens++
	t.Tokens++
	for _, scope := range r.Granted {
		u.carried[scope]++
	}
}

// called counts a call by what it called. A record whose personal data was
// erased does not tell, and counts as a path that is not known.
func (u *use) called(r *mandate.Record) {
	method, path, ok := strings.Cut(r.Detail, " ")
	if ok {
		path = template(u.API, path)
	} else {
		method, path = "?", "?"
	}
	key := method + " " + path
	if u.paths[key] == nil && len(u.paths) >= maxPaths {
		method, path, key = "?", "?", "? ?"
	}
	p := u.paths[key]
	if p == nil {
		p = &Path{Method: method, Path: path, Needs: needs(u.API, method, path)}
		u.paths[key] = p
	}
	p.Calls++
	p.Last = later(p.Last, r.Time)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settle sorts what was counted.
func (u *use) settle() {
	u.Callers, u.Purposes = sorted(u.callers), sorted(u.purposes)
	u.Tenants, u.Paths = []Tenant{}, []Path{}
	for _, t := range slices.SortedFunc(maps.Values(u.tenants), func(a, b *Tenant) int {
		return cmp.Or(cmp.Compare(b.Tokens+b.Calls, a.Tokens+a.Calls), cmp.Compare(a.Tenant.String(), b.Tenant.String()))
	}) {
		u.Tenants = append(u.Tenants, *t)
	}
	for _, key := range slices.Sorted(maps.Keys(u.paths)) {
		u.Paths = append(u.Paths, *u.paths[key])
	}
}

func sorted(set map[string]bool) []string {
	return append([]string{}, slices.Sorted(maps.Keys(set))...)
}
