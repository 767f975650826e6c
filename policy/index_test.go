package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// same reports whether two decisions differ in nothing but the hint about what
// came nearest.
func same(a, b mandate.Decision) bool {
	return a.Allowed == b.Allowed && a.Rule == b.Rule && a.Policy == b.Policy && a.Consented == b.Consented &&
		slices.Equal(a.Scopes, b.Scopes) && a.MaxTokenLife == b.MaxTokenLife && slices.Equal(a.Shadow, b.Shadow) &&
		a.NeedsApproval == b.NeedsApproval && a.Approval == b.Approval &&
		(a.Rule == "" || a.Reason == b.Reason)
}

func TestPolicyIndexAgreesOnTable(t *testing.T) {
	s := table(t)
	for _, row := range rows(t) {
		if act, at, _ := row.Administers(); act != nil {
			if a, b := s.administer(act, s.index.about(row.Caller, row.Partner, useAdminister), at), s.administerByAll(act, at); !same(a, b) {
				t.Errorf("%s:\nby index %+v\nby all   %+v", row.Name, a, b)
			}
			continue
		}
		req, at, err := row.Request(clouds())
		if err != nil {
			t.Fatal(err)
		}
		second, err := row.Yes(at)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := s.decide(req, s.index.find(req), second, at), s.decideByAll(req, second, at); !same(a, b) {
			t.Errorf("%s:\nby index %+v\nby all   %+v", row.Name, a, b)
		}
	}
}

// A dice makes policies and requests out of few words, so that they meet.
type dice struct{ *rand.Rand }

func (d dice) of(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) caller() string   { return d.of("a", "b", "c", "d") }
func (d dice) partner() string  { return d.of("p", "q", "r") }
func (d dice) audience() string { return d.of("graph", "arm", "partnercenter") }
func (d dice) purpose() string  { return d.of("x", "y", "z") }
func (d dice) customer() string { return d.of(adatum, litware) }

func (d dice) principal(permit bool) string {
	switch n := d.IntN(5); {
	case n == 0 && !permit:
		return "principal"
	case n == 1 && !permit:
		return "principal is Caller"
	case n <= 2:
		return fmt.Sprintf("principal in CallerGroup::%q", d.of("g", "h", "none"))
	case n == 3:
		return fmt.Sprintf("principal in Caller::%q", d.caller())
	}
	return fmt.Sprintf("principal == Caller::%q", d.caller())
}

func (d dice) resource(permit bool) string {
	switch n := d.IntN(7); {
	case n == 0 && !permit:
		return "resource"
	case n == 1 && !permit:
		return fmt.Sprintf("resource == Customer::%q", d.customer())
	case n == 2 && !permit:
		return "resource is Customer"
	case n <= 3:
		return fmt.Sprintf("resource in PartnerGroup::%q", d.of("g", "h"))
	case n == 4:
		return fmt.Sprintf("resource is Customer in Partner::%q", d.partner())
	case n == 5:
		return fmt.Sprintf("resource == Partner::%q", d.partner())
	}
	return fmt.Sprintf("resource in Partner::%q", d.partner())
}

func (d dice) condition() string {
	terms := []string{
		fmt.Sprintf("context.audience in [Audience::%q, Audience::%q]", d.audience(), d.audience()),
		fmt.Sprintf("(context.purpose == Purpose::%q || context.purpose in PurposeGroup::%q)", d.purpose(), d.of("g", "h")),
	}
	for _, extra := range []string{
		`context has ip && context.ip.isInRange(ip("10.0.0.0/8"))`, `context.mfa_age < duration("5h")`, `context.ticket != ""`,
		`context.weekday + 9223372036854775804 > 0`, // fails from Thursday on
		`context.asked.containsAny(["S", "T"])`, `!(resource is Partner)`, `principal in CallerGroup::"g"`, `resource in PartnerGroup::"h"`,
	} {
		if d.IntN(6) == 0 {
			terms = append(terms, extra)
		}
	}
	return strings.Join(terms, " && ")
}

// ofOperators is a rule about what operators do.
func (d dice) ofOperators(n int) string {
	return fmt.Sprintf("@id(\"r%d\") forbid (%s, action == Action::\"administer\", %s) when { %s };\n", n, d.principal(false),
		d.of("resource", `resource == Server::"mandate"`, `resource in PartnerGroup::"g"`, fmt.Sprintf("resource in Partner::%q", d.partner())),
		d.of("context.loosens", `context.act == "backup"`, `context.roles.contains("operator")`, `context.weekday + 9223372036854775804 > 0`))
}

// second is somebody who has agreed to some of what some rules are for.
func (d dice) second(at time.Time) Approvals {
	if d.IntN(6) == 0 {
		return nil
	}
	said := someRules{}
	for n := range 40 {
		if d.IntN(4) > 0 {
			said[fmt.Sprintf("r%d", n)] = at.Add(-time.Duration(d.IntN(70)) * time.Minute)
		}
	}
	return said
}

// someRules are approved, each at a time.
type someRules map[string]time.Time

func (s someRules) Approved(rule string, _ *mandate.Request) (string, time.Time) {
	return "for " + rule, s[rule]
}

func (d dice) rule(n int) string {
	if d.IntN(8) == 0 {
		return d.ofOperators(n)
	}
	var b strings.Builder
	permit := d.IntN(6) > 0
	fmt.Fprintf(&b, "@id(\"r%d\") ", n)
	if d.IntN(8) == 0 {
		b.WriteString(`@shadow("true") `)
	}
	effect := "forbid"
	if permit {
		effect = "permit"
		fmt.Fprintf(&b, "@until(%q) @scopes(%q) ", d.of("2026-01-01", "2030-01-01"), d.of("consented", "S", "S T"))
		for _, a := range []string{`@ticket("required") `, `@customers("all") `, `@approval("1h") `, `@max_token_life("1h") `} {
			if d.IntN(4) == 0 {
				b.WriteString(a)
			}
		}
	}
	fmt.Fprintf(&b, "%s (%s, %s, %s) when { %s };\n", effect, d.principal(permit),
		d.of("action", `action == Action::"token"`, `action in [Action::"call", Action::"token"]`, `action == Action::"call"`), d.resource(permit), d.condition())
	return b.String()
}

func (d dice) policy(t testing.TB) *Set {
	var b strings.Builder
	for n := range 1 + d.IntN(40) {
		b.WriteString(d.rule(n))
	}
	groups := fmt.Sprintf("callers: {g: [a, %s, a], h: [%s], none: []}\npartners: {g: [p, %s], h: [q]}\npurposes: {g: [x], h: [y, %s]}\n", d.caller(), d.caller(), d.partner(), d.purpose())
	s, err := Compile(Source{{"p.cedar", b.String()}, {GroupsFile, groups}}, clouds())
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	return s
}

func (d dice) request(t testing.TB) (*mandate.Request, time.Time) {
	h := Hypothetical{
		Caller: d.of("a", "b", "c", "d", "nobody"), Partner: d.of("p", "q", "r", "s"), Customer: d.of("", adatum, litware), Audience: d.audience(),
		Purpose: d.of("x", "y", "z", "w"), Ticket: d.of("", "T"), IP: d.of("", "10.1.1.1", "192.0.2.1"), MFAAge: d.of("", "1h", "9h"),
		At: d.of("2025-06-02T10:00:00Z", "2025-06-07T10:00:00Z", "2027-06-02T10:00:00Z"),
	}
	h.Scopes = [][]string{nil, {"S"}, {"S", "T"}, {"U"}}[d.IntN(4)]
	if d.IntN(3) == 0 {
		h.Use, h.Method, h.Path = "call", "GET", "/v1/customers/"+d.customer()+"/x"
	}
	req, at, err := h.Request(clouds())
	if err != nil {
		t.Fatal(err)
	}
	return req, at
}

// The index answers as full evaluation does, on policies and requests that
// nobody thought of.
func TestPolicyIndexAgreesOnRandomPolicies(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))}
	allowed, ruled, agreed, held := 0, 0, 0, 0
	for range 150 {
		s := d.policy(t)
		for range 60 {
			req, at := d.request(t)
			second := d.second(at)
			a, b := s.decide(req, s.index.find(req), second, at), s.decideByAll(req, second, at)
			act := &Act{Caller: req.Caller, Name: d.of("backup", "policy apply"), Loosens: d.IntN(2) == 0, Roles: []string{d.of("operator", "security")}, Partner: d.of("", "p", "q", "r")}
			x, y := s.administer(act, s.index.about(string(act.Caller), act.Partner, useAdminister), at), s.administerByAll(act, at)
			if !same(x, y) {
				t.Fatalf("for %+v\nby index %+v\nby all   %+v", act, x, y)
			}
			if !x.Allowed {
				held++
			}
			if !same(a, b) {
				var text strings.Builder
				for _, r := range s.rules {
					text.Write(r.cedar.MarshalCedar())
				}
				t.Fatalf("for %+v\nby index %+v\nby all   %+v\n%s", req, a, b, text.String())
			}
			if a.Approval != "" {
				agreed++
			}
			if a.Allowed {
				allowed++
			} else if a.Rule != "" {
				ruled++
			}
		}
	}
	if allowed < 100 || ruled < 100 || agreed < 5 || held < 100 {
		t.Errorf("%d allowed, %d of them by a second person, %d denied by a rule, %d acts forbidden: too few to show anything", allowed, agreed, ruled, held)
	}
}

// A rule for many callers and many partners is found by its callers alone, and
// decides as ever.
func TestPolicyIndexOfLargeGroups(t *testing.T) {
	groups := "callers:\n  many: [" + numbered("c", 50) + "]\npartners:\n  many: [" + numbered("p", 50) + "]\n"
	s, err := Compile(Source{{GroupsFile, groups}, {"p.cedar", `@id("r") @until("2100-01-01") @scopes("consented")
		permit (principal in CallerGroup::"many", action, resource in PartnerGroup::"many") when { context.audience == Audience::"graph" && context.purpose == Purpose::"x" };`}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.index.both) != 0 || len(s.index.callers) != 50 {
		t.Errorf("index has %d pairs and %d callers", len(s.index.both), len(s.index.callers))
	}
	for caller, want := range map[string]bool{"c7": true, "c50": false} {
		h := Hypothetical{Caller: caller, Partner: "p49", Customer: adatum, Audience: "graph", Purpose: "x"}
		req, at, _ := h.Request(clouds())
		if d := s.decide(req, s.index.find(req), nil, at); d.Allowed != want {
			t.Errorf("%s: got %+v", caller, d)
		}
	}
}

func numbered(prefix string, n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return strings.Join(all, ", ")
}

// thousand is a policy of 1,000 rules for 20 callers and 25 partners.
func thousand(t testing.TB) *Set {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `@id("rule-%d") @until("2100-01-01") @scopes("consented")
permit (principal == Caller::"caller-%d", action, resource in Partner::"partner-%d")
when { context.audience == Audience::"graph" && context.purpose in [Purpose::"p%d", Purpose::"sync"] };
`, i, i%20, (i/20)%25, i%7)
	}
	s, err := Compile(Source{{"p.cedar", b.String()}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func BenchmarkDecide(b *testing.B) {
	s := thousand(b)
	h := Hypothetical{Caller: "caller-7", Partner: "partner-9", Customer: adatum, Audience: "graph", Purpose: "sync", IP: "10.1.1.1"}
	req, at, err := h.Request(clouds())
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name   string
		decide func() mandate.Decision
	}{
		{"index", func() mandate.Decision { return s.Decide(req) }},
		{"all", func() mandate.Decision { return s.decideByAll(req, nil, at) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := way.decide(); !d.Allowed {
					b.Fatalf("got %+v", d)
				}
			}
		})
	}
	b.Run("denied", func(b *testing.B) {
		req.Purpose = "other"
		for b.Loop() {
			s.Decide(req)
		}
	})
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			thousand(b)
		}
	})
}
