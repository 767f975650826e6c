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
	"github.com/mandate-sam/mandate/footprint"
	"github.com/mandate-sam/mandate/internal/web"
)

// usageWithin bounds the answer of the page about what was used: months of
// records are read for it.
const usageWithin = 4 * time.Minute

// A usagePage compares what was agreed with what was used.
type usagePage struct {
	Person   Person
	App      *Application
	Given    bool
	Days     int
	Customer string
	Report   footprint.Report
	Names    map[string]string // of customers, by tenant
}

// maxTenants is how many customers the page lists.
const maxTenants = 50

// usage shows what of a consent was used.
func (p *Portal) usage(w http.ResponseWriter, r *http.Request, who Person) error {
	q := r.URL.Query()
	if name := web.Duplicate(q); name != "" {
		return mandate.Invalid(name, "is given twice")
	}
	page := &usagePage{Person: who, Days: 90}
	if days := q.Get("days"); days != "" && days != "90" {
		if page.Days = 30; days != "30" {
			return mandate.Invalid("days", "is neither 30 nor 90")
		}
	}
	var customer mandate.TenantID
	var err error
	if s := q.Get("customer"); s != "" {
		if customer, err = mandate.ParseTenantID(s); err != nil {
			return mandate.Invalid("customer", "is not a tenant ID")
		}
		page.Customer = customer.String()
	}
	if page.App, err = p.application(who.Partner.Key); err != nil {
		return err
	}
	if err := takes(w, usageWithin); err != nil {
		return err
	}
	if page.Names, err = p.cfg.Records.Names(r.Context(), who.Partner.Key); err != nil {
		return err
	}
	page.Report, err = p.cfg.Records.Usage(r.Context(), who.Partner.Key, page.Days, customer)
	if page.Given = err == nil; !page.Given && !errors.Is(err, mandate.ErrNotFound) {
		return err
	}
	return p.show(w, http.StatusOK, "usage", "What was agreed, and what was used", page)
}

// A usedAPI is an API with what was used of it, in plain words.
type usedAPI struct {
	Name, Says  string
	Permissions []usedPermission
	Last        time.Time
}

// A usedPermission is a permission with what became of it.
type usedPermission struct {
	grantedScope
	Verdict, Class string
}

// verdicts are what a permission's verdict is called, and its colour.
var verdicts = map[string][2]string{
	footprint.Keep:    {"Needed", "good"},
	footprint.Unknown: {"May have been needed", "notyet"},
	footprint.Drop:    {"Not used", "bad"},
	footprint.Add:     {"Would do instead", "notyet"},
}

// APIs are the agreed APIs, those that were used first.
func (p *usagePage) APIs() []usedAPI {
	var out []usedAPI
	for _, a := range p.Report.Audiences {
		u := usedAPI{Name: p.App.apiName(a.Resource), Last: a.Last, Says: uses(a.Tokens + a.Calls)}
		for _, s := range a.Scopes {
			v := verdicts[s.Verdict]
			u.Permissions = append(u.Permissions, usedPermission{p.App.granted(u.Name, s.Scope), cmp.Or(v[0], s.Verdict), cmp.Or(v[1], "notyet")})
		}
		out = append(out, u)
	}
	return out
}

func uses(n int64) string {
	switch n {
	case 0:
		return "Never used"
	case 1:
		return "Used once"
	}
	return "Used " + grouped(n) + " times"
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// Unused is how many permissions could go.
func (p *usagePage) Unused() int {
	n := 0
	for _, a := range p.Report.Audiences {
		for _, s := range a.Scopes {
			if s.Verdict == footprint.Drop {
				n++
			}
		}
	}
	return n
}

// Where is the customer that is looked at, or empty.
func (p *usagePage) Where() string {
	if p.Customer == "" {
		return ""
	}
	return named(p.Customer, p.Person, p.Names)
}

// Young reports whether the consent is younger than the time looked at.
func (p *usagePage) Young() bool { return p.Report.Consented.After(p.Report.From) }

// URL leads to the same page for another time or customer.
func (p *usagePage) URL(days int, customer string) string {
	q := url.Values{"days": {strconv.Itoa(days)}}
	if customer != "" {
		q.Set("customer", customer)
	}
	return "/partner/usage?" + q.Encode()
}

// Tenants are the customers for which something was used, the most used first.
func (p *usagePage) Tenants() []choice {
	all := p.tenants()
	return all[:min(len(all), maxTenants)]
}

// More is how many customers are not listed.
func (p *usagePage) More() int { return max(0, len(p.tenants())-maxTenants) }

func (p *usagePage) tenants() []choice {
	if p.Customer != "" {
		return nil
	}
	count := make(map[string]int64)
	for _, a := range p.Report.Audiences {
		for _, t := range a.Tenants {
			count[t.Tenant.String()] += t.Tokens + t.Calls
		}
	}
	var out []choice
	for t, n := range count {
		out = append(out, choice{Value: t, Text: named(t, p.Person, p.Names) + ": " + strings.ToLower(uses(n))})
	}
	slices.SortFunc(out, func(a, b choice) int {
		return cmp.Or(cmp.Compare(count[b.Value], count[a.Value]), strings.Compare(a.Value, b.Value))
	})
	return out
}
