package policy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

const (
	contoso = "11111111-1111-1111-1111-111111111111"
	adatum  = "22222222-2222-2222-2222-222222222222"
	litware = "33333333-3333-3333-3333-333333333333"
)

const rules = `
rules:
  - name: billing-all
    callers: [billing]
    partners: [contoso]
    customers: all
    audiences: [partnercenter, "https://graph.microsoft.com"]
    scopes: consented
    purposes: [invoice, support]
    until: 2100-01-01
  - name: support-adatum
    callers: [desk, billing]
    partners: [contoso, fabrikam]
    customers: [22222222-2222-2222-2222-222222222222]
    audiences: [graph]
    scopes: [User.Read, Directory.Read.All]
    purposes: [support]
    uses: [token]
    until: 2000-06-30
    max_token_life: 70m
  - name: desk-calls
    callers: [desk]
    partners: [contoso]
    customers: all
    audiences: [arm]
    scopes: [user_impersonation]
    purposes: [support]
    uses: call
    until: 2100-01-01T00:00:00Z
`

func clouds() []mandate.Cloud { return []mandate.Cloud{mandate.Clouds()["global"]} }

func tenant(s string) mandate.TenantID {
	t, err := mandate.ParseTenantID(s)
	if err != nil {
		panic(err)
	}
	return t
}

func parse(t *testing.T, s string) *Policy {
	t.Helper()
	p, err := Parse("rules.yaml", []byte(strings.Replace(s, "uses: call", "uses: [call]", 1)), clouds())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(caller, partner, tnt, audience, purpose string, use mandate.Use, scopes ...string) *mandate.Request {
	cloud := clouds()[0]
	a, err := cloud.Resolve(audience)
	if err != nil {
		a = mandate.Audience(audience)
	}
	return &mandate.Request{
		Caller: mandate.CallerID(caller), Use: use, Tenant: tenant(tnt), Audience: a, Purpose: purpose, Scopes: scopes,
		Partner: mandate.Partner{Name: partner, Key: mandate.GrantKey{Cloud: "global", Partner: tenant(contoso)}},
	}
}

func TestDecide(t *testing.T) {
	const tok, call = mandate.UseToken, mandate.UseCall
	for _, tt := range []struct {
		name string
		req  *mandate.Request
		want string // the rule, or a part of the reason for denying
	}{
		{"own tenant by all", request("billing", "contoso", contoso, "partnercenter", "invoice", tok), "billing-all"},
		{"customer by all", request("billing", "contoso", litware, "graph", "invoice", tok), "billing-all"},
		{"a call too", request("billing", "contoso", contoso, "graph", "invoice", call), "billing-all"},
		{"consented beats a list", request("billing", "contoso", adatum, "graph", "support", tok), "billing-all"},
		{"named customer", request("desk", "contoso", adatum, "graph", "support", tok), "support-adatum"},
		{"named customer of another partner", request("desk", "fabrikam", adatum, "graph", "support", tok), "support-adatum"},
		{"asked scope within", request("desk", "contoso", adatum, "graph", "support", tok, "User.Read"), "support-adatum"},
		{"use named", request("desk", "contoso", contoso, "arm", "support", call), "desk-calls"},

		{"unknown caller", request("nobody", "contoso", contoso, "graph", "support", tok), "no rule allows it"},
		{"caller in another case", request("Billing", "contoso", contoso, "graph", "support", tok), "no rule allows it"},
		{"other partner", request("billing", "fabrikam", contoso, "partnercenter", "invoice", tok), "other audiences"},
		{"partner of no rule", request("billing", "tailspin", contoso, "graph", "invoice", tok), "other partners"},
		{"other audience", request("billing", "contoso", contoso, "arm", "invoice", tok), "other audiences"},
		{"unresolved audience", request("billing", "contoso", contoso, "https://graph.microsoft.com.evil.example", "invoice", tok), "other audiences"},
		{"other purpose", request("billing", "contoso", contoso, "graph", "curiosity", tok), `no purpose "curiosity"`},
		{"purpose of another rule", request("desk", "contoso", adatum, "graph", "invoice", tok), `no purpose "invoice"`},
		{"other use", request("desk", "contoso", contoso, "arm", "support", tok), `use "token"`},
		{"other customer", request("desk", "contoso", litware, "graph", "support", tok), "other customers"},
		{"own tenant by a rule for some", request("desk", "contoso", contoso, "graph", "support", tok), "`customers: all`"},
		{"asked scope beyond", request("desk", "contoso", adatum, "graph", "support", tok, "Mail.Read"), "only the scopes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // 2000-01-01
				d := parse(t, rules).Decide(tt.req)
				if d.Allowed && d.Rule != tt.want || !d.Allowed && (d.Rule != "" || !strings.Contains(d.Reason, tt.want)) {
					t.Errorf("got %+v, want %q", d, tt.want)
				}
				if d.Policy == "" || d.Reason == "" {
					t.Errorf("decision %+v lacks its policy or reason", d)
				}
			})
		})
	}
}

func TestDecideNamesOwnTenantInRuleList(t *testing.T) {
	// Listing the partner's own tenant as a customer does not make a rule for
	// some customers a rule for all.
	p := parse(t, strings.ReplaceAll(rules, adatum, contoso))
	if d := p.Decide(request("desk", "contoso", contoso, "graph", "support", mandate.UseToken)); d.Allowed {
		t.Errorf("got %+v, want a denial", d)
	}
}

func TestDecideCloud(t *testing.T) {
	req := request("billing", "contoso", contoso, "graph", "invoice", mandate.UseToken)
	req.Partner.Key.Cloud = "custom"
	if d := parse(t, rules).Decide(req); d.Allowed {
		t.Errorf("a rule of one cloud allowed %+v in another", d)
	}
}

func TestDecideEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parse(t, rules)
		req := request("desk", "contoso", adatum, "graph", "support", mandate.UseToken)
		time.Sleep(time.Until(time.Date(2000, 7, 1, 0, 0, 0, 0, time.UTC)) - time.Nanosecond)
		d := p.Decide(req)
		if !d.Allowed || d.MaxTokenLife != 70*time.Minute || d.Consented || len(d.Scopes) != 2 {
			t.Errorf("on its last day the rule gave %+v", d)
		}
		time.Sleep(time.Nanosecond)
		if d := p.Decide(req); d.Allowed || !strings.Contains(d.Reason, "ended on 2000-07-01T00:00:00Z") {
			t.Errorf("after its end the rule gave %+v", d)
		}
	})
}

func TestEmptyDeniesAll(t *testing.T) {
	for _, s := range []string{"", "rules: []\n"} {
		d := parse(t, s).Decide(request("billing", "contoso", contoso, "graph", "invoice", mandate.UseToken))
		if d.Allowed || d.Reason != "no rule allows it" {
			t.Errorf("no rules: %+v", d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = `{name: a, callers: [b], partners: [c], customers: all, audiences: [graph], scopes: consented, purposes: [p], until: 2100-01-01}`
	if _, err := Parse("r", []byte("rules: ["+good+"]"), clouds()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"name: a, ", "", "name: must be"},
		{"name: a", "name: 'a b'", "name: must be"},
		{"callers: [b]", "callers: []", "callers: is required"},
		{"callers: [b], ", "", "callers: is required"},
		{"callers: [b]", "callers: ['*']", "no wildcards"},
		{"partners: [c], ", "", "partners: is required"},
		{"customers: all, ", "", "customers: is required"},
		{"customers: all", "customers: [all, " + adatum + "]", "either `all` or a list"},
		{"customers: all", "customers: some", "neither `all` nor a tenant id"},
		{"audiences: [graph], ", "", "audiences: is required"},
		{"audiences: [graph]", "audiences: [grph]", "not an audience of any configured cloud"},
		{"scopes: consented, ", "", "scopes: is required"},
		{"scopes: consented", "scopes: [consented, User.Read]", "either `consented` or a list"},
		{"scopes: consented", "scopes: ['User Read']", "not a scope's name"},
		{"purposes: [p], ", "", "purposes: is required"},
		{"until: 2100-01-01", "until: never", "neither a date"},
		{", until: 2100-01-01", "", "every right has an end"},
		{"until", "uses: [steal], until", "is not a name"},
		{"until", "max_token_life: 1s, until", "from 5m to 28h"},
		{"until", "purpose: x, until", `unknown key "purpose"; did you mean "purposes"?`},
		{good, good + ", " + good, "already a rule of that name"},
		{good, strings.Repeat("{}, ", maxRules) + "{}", "more than 10000 rules"},
		{"callers: [b]", "callers: [b" + strings.Repeat(",b", maxEntries) + "]", "more than"},
	} {
		in := "rules: [" + strings.Replace(good, tt.old, tt.new, 1) + "]"
		if _, err := Parse("r.yaml", []byte(in), clouds()); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "r.yaml:") {
			t.Errorf("Parse(%.200s) = %v, want %q", in, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(rules))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data, clouds())
		if err != nil {
			return
		}
		p.Decide(request("billing", "contoso", contoso, "graph", "invoice", mandate.UseToken))
	})
}
