package portal

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// months is how many months can be looked at.
const months = 13

// monthForm is how a month is written in a URL.
const monthForm = "2006-01"

// partner shows the grant and what was done with it.
func (p *Portal) partner(w http.ResponseWriter, r *http.Request, who Person) error {
	filter, err := readFilter(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}
	page, err := p.partnerPage(r, who, filter)
	if err != nil {
		return err
	}
	return p.show(w, http.StatusOK, "partner", "The consent of "+who.Partner.DisplayName, page)
}

// downloadWithin bounds a download, over a slow line too.
const downloadWithin = 30 * time.Minute

// download sends the partner's own records with their proofs. One that broke
// off lacks its end, which whoever verifies it is told.
func (p *Portal) download(w http.ResponseWriter, r *http.Request, who Person) error {
	if err := takes(w, downloadWithin); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="mandate-records.jsonl"`)
	if err := p.cfg.Records.Export(r.Context(), who.Partner.Key, w); err != nil {
		w.Header().Del("Content-Disposition") // what follows is a page, if nothing was sent yet
		return err
	}
	return nil
}

func (p *Portal) partnerPage(r *http.Request, who Person, f Filter) (*partnerPage, error) {
	app, err := p.application(who.Partner.Key)
	if err != nil {
		return nil, err
	}
	page := &partnerPage{Person: who, App: app, Filter: f, Now: time.Now()}
	page.Grant, page.Used, err = p.cfg.Records.Grant(r.Context(), who.Partner.Key)
	if err != nil && !errors.Is(err, mandate.ErrNotFound) {
		return nil, err
	}
	page.Given = err == nil
	if page.Names, err = p.cfg.Records.Names(r.Context(), who.Partner.Key); err != nil {
		return nil, err
	}
	page.History, err = p.cfg.Records.History(r.Context(), who.Partner.Key, f)
	return page, err
}

// readFilter reads what somebody wants to see. What cannot be meant is an
// error and not an empty page, which would look like an answer.
func readFilter(q url.Values, now time.Time) (Filter, error) {
	f := Filter{Month: firstOf(now), Caller: q.Get("caller"), Customer: q.Get("customer")}
	if name := web.Duplicate(q); name != "" {
		return f, mandate.Invalid(name, "is given twice")
	}
	if s := q.Get("month"); s != "" {
		at, err := time.Parse(monthForm, s)
		if err != nil || at.After(now) || at.Year() < 2000 {
			return f, mandate.Invalid("month", "is not a month such as 2026-11")
		}
		f.Month = at
	}
	if len(f.Caller) > 200 {
		return f, mandate.Invalid("caller", "is too long")
	}
	if f.Customer != "" {
		t, err := mandate.ParseTenantID(f.Customer)
		if err != nil {
			return f, mandate.Invalid("customer", "is not a tenant ID")
		}
		f.Customer = t.String()
	}
	if s := q.Get("before"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return f, mandate.Invalid("before", "is not the number of a record")
		}
		f.Before = n
	}
	return f, nil
}

// firstOf returns the first moment of a time's month.
func firstOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// A partnerPage shows a grant and its history.
type partnerPage struct {
	Person  Person
	App     *Application
	Grant   mandate.Grant
	Given   bool      // there is a grant
	Used    time.Time // last; zero if never
	Filter  Filter
	History History
	Names   map[string]string // of customers, by tenant
	Now     time.Time
}

// MayRenew and MayWithdraw are what the person may do.
func (p *partnerPage) MayRenew() bool    { return p.Person.may(mandate.PartnerRenewer) }
func (p *partnerPage) MayWithdraw() bool { return p.Person.may(mandate.PartnerWithdrawer) }

// State says in plain words how the consent stands.
func (p *partnerPage) State() string {
	switch {
	case !p.Given:
		return "No consent"
	case p.Grant.State == mandate.StateActive && !p.Now.Before(p.Grant.Until):
		return "Ended"
	case p.Grant.State == mandate.StateActive:
		return "Active"
	case p.Grant.State == mandate.StateSuspended:
		return "Suspended: it is kept, and cannot be used"
	case p.Grant.State == mandate.StateWithdrawn:
		return "Withdrawn: nothing can be done with it"
	case p.Grant.State == mandate.StateCandidate:
		return "Waiting for a decision of " + p.App.Publisher
	}
	return "Not active: " + string(p.Grant.State)
}

// Works reports whether the consent can be used now.
func (p *partnerPage) Works() bool { return p.State() == "Active" }

// Class is the colour of the state.
func (p *partnerPage) Class() string {
	switch s := p.State(); {
	case s == "Active":
		return "good"
	case strings.HasPrefix(s, "Waiting"):
		return "notyet"
	}
	return "bad"
}

// MFA lists the evidence as on the receipt.
func (p *partnerPage) MFA() []proven {
	return (&receiptPage{Outcome{Receipt: &Receipt{Evidence: p.Grant.Evidence}}, p.App, true}).MFA()
}

// A grantedScope is a permission that was granted, in plain words.
type grantedScope struct{ API, Scope, Meaning string }

// Scopes lists what was granted. A scope that the configuration does not know
// has no meaning, and is shown all the same.
func (p *partnerPage) Scopes() []grantedScope {
	var out []grantedScope
	for _, a := range p.Grant.Audiences {
		api := p.App.apiName(a.Audience)
		for _, s := range a.Scopes {
			out = append(out, p.App.granted(api, s))
		}
	}
	return out
}

// granted returns a permission on an API with its meaning.
func (a *Application) granted(api string, s mandate.Scope) grantedScope {
	i := slices.IndexFunc(a.Permissions, func(x Permission) bool { return x.API == api && x.Scope == s })
	if i < 0 {
		return grantedScope{api, s, "A permission that has no description here."}
	}
	return grantedScope{api, s, a.Permissions[i].Meaning}
}

// A choice is an option of a filter.
type choice struct {
	Value, Text string
	Chosen      bool
}

// Months are the months to choose from, this one first.
func (p *partnerPage) Months() []choice {
	out := make([]choice, 0, months+1)
	for i := range months {
		at := firstOf(p.Now).AddDate(0, -i, 0)
		out = append(out, choice{at.Format(monthForm), at.Format("January 2006"), at.Equal(p.Filter.Month)})
	}
	if !slices.ContainsFunc(out, func(c choice) bool { return c.Chosen }) {
		out = append(out, choice{p.Filter.Month.Format(monthForm), p.Month(), true})
	}
	return out
}

// Month is the month that is shown.
func (p *partnerPage) Month() string { return p.Filter.Month.Format("January 2006") }

// Callers are the programs and people to choose from.
func (p *partnerPage) Callers() []choice {
	return choices(p.History.Callers, p.Filter.Caller, p.App.callerName)
}

// Customers are the tenants to choose from.
func (p *partnerPage) Customers() []choice {
	out := choices(p.History.Customers, p.Filter.Customer, func(s string) string { return named(s, p.Person, p.Names) })
	slices.SortStableFunc(out, func(a, b choice) int { return strings.Compare(strings.ToLower(a.Text), strings.ToLower(b.Text)) })
	return out
}

// named names a tenant for people, by its ID if nobody knows a name. Names come
// from outside.
func named(tenant string, who Person, names map[string]string) string {
	if tenant == who.Partner.Key.Partner.String() {
		return "your own tenant"
	}
	return cmp.Or(names[tenant], tenant)
}

func choices(all []string, chosen string, text func(string) string) []choice {
	out := make([]choice, 0, len(all)+1)
	for _, s := range all {
		out = append(out, choice{s, text(s), s == chosen})
	}
	if chosen != "" && !slices.Contains(all, chosen) {
		out = append(out, choice{chosen, text(chosen), true})
	}
	return out
}

// OlderURL leads to the next page, under the same filter.
func (p *partnerPage) OlderURL() string { return p.url(p.History.Older) }

// NewestURL leads to the first page.
func (p *partnerPage) NewestURL() string { return p.url(0) }

func (p *partnerPage) url(before int64) string {
	q := url.Values{"month": {p.Filter.Month.Format(monthForm)}}
	for name, value := range map[string]string{"caller": p.Filter.Caller, "customer": p.Filter.Customer} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if before > 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	return "/partner?" + q.Encode() + "#uses"
}

// An eventLine is an event in plain words.
type eventLine struct {
	Event
	Title, Class, By, For, Where, Tenant, API string
}

// Lines are the events of the page.
func (p *partnerPage) Lines() []eventLine {
	out := make([]eventLine, 0, len(p.History.Events))
	for _, e := range p.History.Events {
		l := eventLine{Event: e, Title: titles[e.Kind], Class: "notyet", By: p.App.callerName(e.Caller), For: p.App.purposeName(&e)}
		if l.Title == "" {
			l.Title = "Recorded: " + e.Kind
		}
		switch e.Kind {
		case mandate.KindIssued, mandate.KindConsented:
			l.Class = "good"
		case mandate.KindDenied, mandate.KindFailed, mandate.KindRefused:
			l.Class = "bad"
		}
		// A change or a consent is about the grant, and reached nobody's tenant.
		if !e.Tenant.IsZero() && e.Kind != mandate.KindChanged && e.Kind != mandate.KindConsented {
			l.Where = named(e.Tenant.String(), p.Person, p.Names)
			l.Tenant = e.Tenant.String()
		}
		if e.Audience != "" {
			l.API = p.App.apiName(e.Audience)
		}
		l.Detail = plainDetail.Replace(l.Detail)
		out = append(out, l)
	}
	return out
}

// titles says what the kinds of records mean.
var titles = map[string]string{
	mandate.KindDecided:   "Allowed, not yet used",
	mandate.KindIssued:    "Used",
	mandate.KindDenied:    "Denied",
	mandate.KindFailed:    "Failed",
	mandate.KindConsented: "Consent given",
	mandate.KindStaged:    "Consent waits for a decision",
	mandate.KindRefused:   "Sign-in refused",
	mandate.KindChanged:   "Noted",
}
