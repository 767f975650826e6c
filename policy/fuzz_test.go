package policy

import (
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// Whatever is in the files, reading them ends in an error or in a policy whose
// decisions are the same by the index and by full evaluation.
func FuzzPolicyCompile(f *testing.F) {
	rules, err := os.ReadFile("testdata/table/rules.cedar")
	if err != nil {
		f.Fatal(err)
	}
	groups, err := os.ReadFile("testdata/table/groups.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(rules), string(groups))
	f.Add(good, "")
	f.Add(strings.Replace(good, "};", "&& [[[context]]].contains([[context]]) };", 1), "callers: {b: []}")
	f.Add(strings.Replace(good, "};", `&& (if context has ip then !!!context.ip.isLoopback() else - - -1 < 0) };`, 1), "purposes: [")
	h := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p", IP: "10.0.0.1"}
	req, at, err := h.Request(clouds())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, rules, groups string) {
		if len(rules)+len(groups) > 64<<10 {
			return
		}
		s, err := Compile(Source{{"p.cedar", rules}, {GroupsFile, groups}}, clouds())
		if err != nil {
			return
		}
		a, b := s.decide(req, s.index.find(req), nil, at), s.decideByAll(req, nil, at)
		if !same(a, b) {
			t.Errorf("by index %+v, by all %+v", a, b)
		}
		if e := s.Explain(req, nil, at); e.Allowed != a.Allowed {
			t.Errorf("explained %+v, decided %+v", e, a)
		}
		if !a.Allowed && a.Rule == "" && !strings.HasPrefix(a.Reason, "no rule") {
			t.Errorf("denied for %q", a.Reason)
		}
	})
}

// Every matcher at once: whatever a request says, what is allowed is what the
// rule says in other words.
func FuzzPolicyDecide(f *testing.F) {
	s := table(f)
	for _, row := range rows(f) {
		f.Add(row.Caller, row.Partner, row.Customer, row.Audience, row.Purpose, row.Ticket, row.IP, row.Method, row.Path, strings.Join(row.Scopes, " "), int64(1780480800), row.Use == "call")
	}
	f.Fuzz(func(t *testing.T, caller, partner, customer, audience, purpose, ticket, ip, method, path, scopes string, at int64, call bool) {
		req := &mandate.Request{
			Caller: mandate.CallerID(caller), Use: mandate.UseToken, Purpose: purpose, Ticket: ticket, Method: method, Path: path,
			Scopes: mandate.NormalScopes(strings.Fields(scopes)), Audience: mandate.Audience(audience),
		}
		if call {
			req.Use = mandate.UseCall
		}
		req.Partner.Name = partner
		req.Partner.Key.Cloud = "global"
		req.Partner.Key.Partner, _ = mandate.ParseTenantID(contoso)
		if req.Tenant, _ = mandate.ParseTenantID(customer); req.Tenant.IsZero() {
			req.Tenant = req.Partner.Key.Partner
		}
		cloud := clouds()[0]
		if a, err := cloud.Resolve(audience); err == nil {
			req.Audience = a
		}
		req.Address, _ = netip.ParseAddr(ip)
		now := time.Unix(at%(1<<34), 0)
		a, b := s.decide(req, s.index.find(req), nil, now), s.decideByAll(req, nil, now)
		if !same(a, b) {
			t.Fatalf("by index %+v, by all %+v", a, b)
		}
		if a.Allowed != inOtherWords(req, cloud.Alias(req.Audience), now) {
			t.Errorf("%+v at %s: got %+v", req, now.UTC(), a)
		}
	})
}

var (
	belowCustomer = regexp.MustCompile(`^[^/]*/[^/]*/customers/([^/]*)`)
	notHex        = regexp.MustCompile(`[^0-9a-fA-F]`)
	guid          = regexp.MustCompile(`^(.{8})(.{4})(.{4})(.{4})(.{12})$`)
)

// inOtherWords is the policy of the decision table, written in Go.
func inOtherWords(r *mandate.Request, api string, now time.Time) bool {
	const frozen = "44444444-4444-4444-4444-444444444444"
	now = now.UTC()
	path := strings.ToLower(r.Path)
	customer := ""
	if !r.OwnTenant() {
		customer = r.Tenant.String()
	} else if m := belowCustomer.FindStringSubmatch(path); m != nil && r.Use == mandate.UseCall && api == "partnercenter" {
		id, err := url.PathUnescape(m[1])
		switch digits := notHex.ReplaceAllString(id, ""); {
		case err != nil || len(digits) > 32:
			return false
		case len(digits) == 32 && digits != strings.ReplaceAll(r.Tenant.String(), "-", ""):
			customer = guid.ReplaceAllString(digits, "$1-$2-$3-$4-$5")
		}
	}
	token, p := r.Use == mandate.UseToken, r.Partner.Name
	at := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	within := func(list ...string) bool {
		for _, s := range r.Scopes {
			if !strings.Contains(" "+strings.Join(list, " ")+" ", " "+s+" ") {
				return false
			}
		}
		return true
	}
	freeze := now.After(at(2027, 1, 1, 0)) && now.Before(at(2027, 2, 1, 0)) && p == "contoso"
	if freeze || r.Caller == "worm" || customer == frozen && r.Purpose != "invoice" {
		return false
	}
	end := at(2031, 1, 1, 0)
	ip := r.Address.Unmap()
	office := netip.MustParsePrefix("10.20.0.0/16")
	day := now.Weekday()
	switch r.Caller {
	case "billing", "desk", "helpdesk":
		if r.Caller == "billing" && p == "contoso" && (api == "partnercenter" || api == "graph") && (r.Purpose == "invoice" || r.Purpose == "credit") {
			return now.Before(end)
		}
		if token && (p == "contoso" || p == "fabrikam") && (customer == adatum || customer == frozen) && api == "graph" && r.Purpose == "support" {
			return within("User.Read", "Directory.Read.All") && now.Before(at(2030, 7, 1, 0))
		}
		return r.Caller == "desk" && !token && p == "contoso" && customer == adatum && api == "partnercenter" && r.Purpose == "support" &&
			r.Method == "GET" && strings.HasPrefix(path, "/v1/customers/"+adatum+"/") && now.Before(at(2030, 12, 31, 12))
	case "auditor":
		return token && p == "contoso" && customer != "" && api == "graph" && r.Purpose == "audit" && strings.TrimSpace(r.Ticket) != "" &&
			ip.IsValid() && office.Contains(ip.WithZone("")) && day != time.Saturday && day != time.Sunday && now.Before(end)
	case "batch":
		return token && p == "fabrikam" && customer != "" && api == "arm" && r.Purpose == "sync" && now.Hour() >= 22 && within("user_impersonation") && now.Before(end)
	}
	return false
}

func FuzzPolicyConvert(f *testing.F) {
	f.Add([]byte(oldRules))
	f.Add([]byte("rules:\n  - name: a\n    callers:\n      ! 0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Convert("rules.yaml", data, clouds())
	})
}
