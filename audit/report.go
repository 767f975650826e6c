package audit

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Usage is how often a partner's rights were used in one way.
type Usage struct {
	Chain    string           `json:"chain"`
	Partner  string           `json:"partner"` // short name
	Caller   mandate.CallerID `json:"caller"`
	Purpose  string           `json:"purpose"`
	Tenant   mandate.TenantID `json:"tenant,omitzero"`
	Audience mandate.Audience `json:"audience"`
	Issued   int64            `json:"issued"` // tokens handed out, or used for a call
	Denied   int64            `json:"denied"`
	Failed   int64            `json:"failed"`
	Possibly int64            `json:"possibly_issued"` // allowed, and what came of it is not recorded: the server ended in between
	First    time.Time        `json:"first"`
	Last     time.Time        `json:"last"`
	Scopes   []mandate.Scope  `json:"scopes,omitempty"` // that tokens carried
}

type usageKey struct {
	chain, purpose string
	caller         mandate.CallerID
	tenant         mandate.TenantID
	audience       mandate.Audience
}

// kindsOfUse are those of records about using a grant. The others are about
// what became of it.
var kindsOfUse = []string{mandate.KindIssued, mandate.KindDecided, mandate.KindDenied, mandate.KindFailed, mandate.KindRefreshed}

// inFlight is how old a request is at least of which nothing more is awaited.
const inFlight = 5 * time.Minute

// Report says whose rights were used by whom, for which customer and purpose,
// the most used first.
func (l *Log) Report(ctx context.Context, q Query) ([]Usage, error) {
	all, names := make(map[usageKey]*Usage), make(map[string]string)
	ended := make(map[string]bool) // requests whose outcome, but not beginning, was seen
	begun := time.Now().Add(-inFlight)
	for e, err := range l.Each(ctx, q) {
		if err != nil {
			return nil, err
		}
		// An operator's act that failed is about a partner, and uses nothing.
		if e.Grant == nil || e.Caller == "" || e.Audience == "" || !slices.Contains(kindsOfUse, e.Kind) {
			continue
		}
		if names[e.Chain] == "" {
			names[e.Chain] = e.Partner
		}
		k := usageKey{e.Chain, e.Purpose, e.Caller, e.Tenant, e.Audience}
		u := all[k]
		if u == nil {
			u = &Usage{Chain: e.Chain, Partner: e.Partner, Caller: e.Caller, Purpose: e.Purpose, Tenant: e.Tenant, Audience: e.Audience, Last: e.Time}
			all[k] = u
		}
		u.add(&e.Record)
		switch {
		case e.Kind != mandate.KindDecided:
			if !e.Cached && e.Kind != mandate.KindDenied {
				ended[e.Request] = true
			}
		case ended[e.Request]:
			delete(ended, e.Request)
		case e.Time.Before(begun) && q.Kind == "":
			u.Possibly++
		}
	}
	out := make([]Usage, 0, len(all))
	for _, u := range slices.SortedFunc(maps.Values(all), func(a, b *Usage) int {
		return cmp.Or(cmp.Compare(b.Issued, a.Issued), cmp.Compare(a.Chain, b.Chain), b.Last.Compare(a.Last))
	}) {
		u.Partner = cmp.Or(u.Partner, names[u.Chain])
		out = append(out, *u)
	}
	return out, nil
}

func (u *Usage) add(r *mandate.Record) {
	u.First = r.Time // the newest come first
	switch r.Kind {
	case mandate.KindIssued:
		u.Issued++
	case mandate.KindDenied:
		u.Denied++
	case mandate.KindFailed:
		u.Failed++
	}
	for _, s := range r.Granted {
		if !slices.Contains(u.Scopes, s) {
			u.Scopes = append(u.Scopes, s)
		}
	}
	slices.Sort(u.Scopes)
}
