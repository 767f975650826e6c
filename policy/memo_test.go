package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// What is remembered is what full evaluation decides, whatever was asked before
// and whichever way the clock is moved.
func TestPolicyMemoAgreesOnRandomPolicies(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(2, uint64(time.Now().UnixNano())))}
	recalled := 0
	for range 300 {
		s := d.few(t)
		for range 20 {
			req, _ := d.request(t)
			for range 4 {
				other, at := d.request(t)
				req.Ticket, req.Address, req.MFATime = other.Ticket, other.Address, other.MFATime
				second := agreed(at.Add(-time.Duration(d.IntN(70)) * time.Minute))
				if a, ok := askedBy(req); ok {
					if _, ok := s.memo.recall(&a, at); ok {
						recalled++
					}
				}
				if a, b := s.decideOnce(req, second, at), s.decideByAll(req, second, at); !same(a, b) {
					t.Fatalf("for %+v\nfrom memory %+v\nby all      %+v", req, a, b)
				}
			}
		}
	}
	if recalled < 100 {
		t.Errorf("%d decisions came from memory: too few to show anything", recalled)
	}
}

// agreed is somebody who has said yes to everything, at that time.
type agreed time.Time

func (a agreed) Approved(string, *mandate.Request) (string, time.Time) {
	return "them", time.Time(a)
}

// few is a policy of few rules, which seldom look at more than is remembered.
func (d dice) few(t testing.TB) *Set {
	var text string
	for n := range 2 + d.IntN(6) {
		if d.IntN(8) == 0 {
			text += d.rule(n)
			continue
		}
		effect := d.of("permit", "permit", "forbid")
		text += fmt.Sprintf("@id(\"r%d\") @until(%q) %s", n, d.of("2026-01-01", "2030-01-01"), d.of("", "", "", `@shadow("true") `))
		if effect == "permit" {
			text += fmt.Sprintf(`@scopes(%q) @customers("all") %s`, d.of("consented", "S T"), d.of("", "", "", `@ticket("required") `))
		}
		text += fmt.Sprintf("%s (principal in CallerGroup::\"g\", action, resource in Partner::%q) when { context.audience != Audience::%q && context.purpose != Purpose::%q };\n", effect, d.partner(), d.audience(), d.purpose())
	}
	s, err := Compile(Source{{"p.cedar", text}, {GroupsFile, "callers: {g: [a, b], h: [c], none: []}\npartners: {g: [p, q], h: [q]}\npurposes: {g: [x], h: [y, z]}\n"}}, clouds())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return s
}

// A remembered decision ends with the first rule that may speak of its request,
// and does not hold before it was made.
func TestPolicyMemoKnowsTheTime(t *testing.T) {
	s, err := Compile(Source{{"p.cedar", `
@id("a") @until("2027-01-01") @scopes("consented") @customers("all")
permit (principal == Caller::"a", action, resource in Partner::"p") when { context.audience == Audience::"graph" && context.purpose == Purpose::"x" };
@id("b") @until("2026-01-01T12:00:00Z")
forbid (principal == Caller::"a", action, resource in Partner::"p") when { context.purpose == Purpose::"x" };
`}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	req, _, err := (&Hypothetical{Caller: "a", Partner: "p", Audience: "graph", Purpose: "x"}).Request(clouds())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   string
		want bool
	}{
		{"2026-01-01T11:00:00Z", false}, {"2026-01-01T12:00:00Z", true}, {"2026-01-01T11:59:59Z", false}, {"2026-06-01T00:00:00Z", true},
		{"2027-01-01T23:59:59Z", true}, {"2027-01-02T00:00:00Z", false},
	} {
		at, err := time.Parse(time.RFC3339, step.at)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.decideOnce(req, nil, at); d.Allowed != step.want {
			t.Errorf("at %s: got %+v", step.at, d)
		}
		a, _ := askedBy(req)
		if _, ok := s.memo.recall(&a, at); ok != step.want {
			t.Errorf("at %s: remembered: %v", step.at, ok)
		}
	}
}

// What a rule may judge by more than is remembered is judged every time.
func TestPolicyMemoLeavesOut(t *testing.T) {
	at := time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC) // a Monday
	for _, tt := range []struct {
		annotation, condition string
		change                func(*mandate.Request)
		after                 time.Duration
	}{
		{condition: `context has ip && context.ip.isInRange(ip("10.0.0.0/8"))`, change: func(r *mandate.Request) { r.Address = netip.MustParseAddr("192.0.2.1") }},
		{condition: `context.mfa_age < duration("2h")`, change: func(r *mandate.Request) { r.MFATime = time.Time{} }},
		{condition: `context.ticket == "T"`, change: func(r *mandate.Request) { r.Ticket = "other" }},
		{condition: `context.now < datetime("2026-06-01T11:00:00Z")`, after: 2 * time.Hour},
		{condition: `context.weekday == 1`, after: 24 * time.Hour},
		{annotation: `@ticket("required")`, change: func(r *mandate.Request) { r.Ticket = "" }},
		{annotation: `@approval("1h")`, after: 2 * time.Hour},
	} {
		if tt.condition == "" {
			tt.condition = "true"
		}
		s, err := Compile(Source{{"p.cedar", `@id("a") @until("2100-01-01") @scopes("consented") @customers("all") ` + tt.annotation + `
permit (principal == Caller::"a", action, resource in Partner::"p") when { context.audience == Audience::"graph" && context.purpose == Purpose::"x" && ` + tt.condition + ` };`}}, clouds())
		if err != nil {
			t.Fatal(err)
		}
		req, _, err := (&Hypothetical{Caller: "a", Partner: "p", Audience: "graph", Purpose: "x", IP: "10.0.0.1", Ticket: "T"}).Request(clouds())
		if err != nil {
			t.Fatal(err)
		}
		req.MFATime = at.Add(-time.Hour)
		second := agreed(at)
		if d := s.decideOnce(req, second, at); !d.Allowed {
			t.Errorf("%s%s: got %+v", tt.annotation, tt.condition, d)
		}
		if tt.change != nil {
			tt.change(req)
		}
		if d := s.decideOnce(req, second, at.Add(tt.after)); d.Allowed {
			t.Errorf("%s%s: allowed from memory", tt.annotation, tt.condition)
		}
	}
}

// A place that has another request's decision has none.
func TestPolicyMemoComparesAll(t *testing.T) {
	s := thousand(t)
	a, b := asked{caller: "a"}, asked{caller: "b"}
	for _, place := range s.memo.of(&b) {
		place.Store(&remembered{what: a, decision: mandate.Decision{Allowed: true}})
	}
	if d, ok := s.memo.recall(&b, time.Now()); ok {
		t.Errorf("got %+v", d)
	}
}

// Of two requests that want the same place both are remembered.
func TestPolicyMemoHasTwoPlaces(t *testing.T) {
	s, now := thousand(t), time.Now()
	a, b := asked{caller: "a"}, asked{caller: "b"}
	s.memo.of(&b)[0].Store(&remembered{what: a})
	s.memo.note(&b, &candidates{}, &mandate.Decision{Allowed: true, Rule: "r"}, now)
	if d, ok := s.memo.recall(&b, now); !ok || d.Rule != "r" {
		t.Errorf("got %+v, %v", d, ok)
	}
	if r := s.memo.of(&b)[0].Load(); r.what != a {
		t.Errorf("the first place has %+v", r.what)
	}
}

// Every field of a request is part of what is remembered, or an attribute whose
// rules are not, or nothing that policy looks at. A field that is new must be
// put in one of the three.
func TestPolicyMemoKnowsEveryField(t *testing.T) {
	attribute := []string{"Ticket", "Address", "MFATime", "Method", "Path"}
	ignored := []string{"ID", "Claims", "MinLifetime", "Refused", "Detail", "User", "Bound"}
	part := []string{"Caller", "Use", "Partner", "Tenant", "Audience", "Scopes", "Purpose"}
	known := make(map[string]bool)
	for _, list := range [][]string{attribute, ignored, part} {
		for _, name := range list {
			known[name] = true
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[mandate.Request]()) {
		if !known[f.Name] {
			t.Errorf("Request.%s: may a decision depend on it? Then it is to be in asked, or an attribute", f.Name)
		}
	}
	req := func() *mandate.Request {
		r, _, err := (&Hypothetical{Caller: "a", Partner: "p", Audience: "graph", Purpose: "x", Scopes: []string{"S"}}).Request(clouds())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before, _ := askedBy(req())
	without := before
	without.scopes = ""
	for name, change := range map[string]func(*mandate.Request){
		"caller":      func(r *mandate.Request) { r.Caller = "b" },
		"name":        func(r *mandate.Request) { r.Partner.Name = "q" },
		"key":         func(r *mandate.Request) { r.Partner.Key.Cloud = "other" },
		"tenant":      func(r *mandate.Request) { r.Tenant = mandate.TenantID{} },
		"audience":    func(r *mandate.Request) { r.Audience += "x" },
		"purpose":     func(r *mandate.Request) { r.Purpose = "y" },
		"scopes":      func(r *mandate.Request) { r.Scopes = []string{"S", "T"} },
		"use":         func(r *mandate.Request) { r.Use = mandate.UseCall },
		"joined":      func(r *mandate.Request) { r.Scopes = []string{"S\nT"} },
		"empty scope": func(r *mandate.Request) { r.Scopes = []string{""} },
	} {
		r := req()
		change(r)
		a, whole := askedBy(r)
		want := name != "use" && name != "joined" && name != "empty scope"
		if whole != want || whole && (a == before || a == without) {
			t.Errorf("another %s: got %+v, %v", name, a, whole)
		}
	}
}

// A decision that is remembered costs no allocation.
func TestPolicyMemoAllocates(t *testing.T) {
	s := thousand(t)
	req, _, err := (&Hypothetical{Caller: "caller-7", Partner: "partner-9", Customer: adatum, Audience: "graph", Purpose: "sync", IP: "10.1.1.1"}).Request(clouds())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { s.Decide(req) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}
