package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

// good is a rule that everything is right with, on lines 2 to 6.
const good = `
@id("a")
@until("2100-01-01")
@scopes("consented")
permit (principal == Caller::"b", action, resource in Partner::"c")
when { context.audience == Audience::"graph" && context.purpose == Purpose::"p" };
`

// A rule about a path that no path can be never holds, and one that forbids
// would be relied on.
func TestPolicyRefusesPathsInCapitals(t *testing.T) {
	for condition, bad := range map[string]bool{
		`context.path like "/v1.0/me/authenticationmethods*"`:                 false,
		`context.path == "/v1.0/me"`:                                          false,
		`context.path like "/v1.0/me/authenticationMethods*"`:                 true,
		`context.path like "*/authenticationMethods"`:                         true,
		`context.path == "/v1.0/Me"`:                                          true,
		`"/v1.0/Me" != context.path`:                                          true,
		`["/v1.0/me", "/v1.0/Me"].contains(context.path)`:                     true,
		`context.method == "GET" && context.path like "/v1.0/me*"`:            false,
		`context.ticket like "INC*" && context.path == "/v1.0/me"`:            false,
		`(if context.ticket == "" then context.path else "/x") like "/v1/Me"`: true,
	} {
		text := `@id("no") forbid (principal, action == Action::"call", resource) when { ` + condition + ` };`
		_, err := Compile(Source{{"p.cedar", text}}, clouds())
		if bad != (err != nil) || bad && !strings.Contains(err.Error(), "rules see paths in lower case") {
			t.Errorf("%s: %v", condition, err)
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	const someCustomer = `resource == Customer::"` + adatum + `"`
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{`@id("a")`, ``, "p.cedar:3: @id: is required"},
		{`@id("a")`, `@id("a b")`, "is not a name"},
		{`@id("a")`, `@id("a") @id("b")`, "p.cedar:2:13: "},
		{`@until("2100-01-01")`, ``, `rule "a": @until: is required: every right has an end`},
		{`@until("2100-01-01")`, `@until("never")`, "neither a date"},
		{`@until("2100-01-01")`, `@until("2100-02-30")`, "neither a date"},
		{`@until("2100-01-01")`, `@untill("2100-01-01")`, "did you mean @until?"},
		{`@scopes("consented")`, ``, "@scopes: is required"},
		{`@scopes("consented")`, `@scopes("")`, "names of scopes"},
		{`@scopes("consented")`, `@scopes("consented User.Read")`, "either"},
		{`@scopes("consented")`, `@scopes("*")`, "no wildcards"},
		{`@scopes("consented")`, `@scopes("User.*")`, "no wildcards"},
		{`@scopes("consented")`, `@scopes("consented") @ticket("maybe")`, `can only be "required"`},
		{`@scopes("consented")`, `@scopes("consented") @shadow("false")`, `can only be "true"`},
		{`@scopes("consented")`, `@scopes("consented") @customers("some")`, `can only be "all"`},
		{`@scopes("consented")`, `@scopes("consented") @max_token_life("1s")`, "from 5m to 28h"},
		{`@scopes("consented")`, `@scopes("consented") @approval("a boss")`, "second person"},
		{`@scopes("consented")`, `@scopes("consented") @approval("24h1s")`, "from 1m to 24h"},
		{`, action,`, `, action == Action::"administer",`, "administer can only be forbidden"},
		{`@scopes("consented")`, `@scopes("consented") @purpose("x")`, "is no annotation"},
		{`principal == Caller::"b"`, `principal`, "principal: must be named"},
		{`principal == Caller::"b"`, `principal is Caller`, "principal: must be named"},
		{`Caller::"b"`, `Caller::"*"`, "no wildcards"},
		{`Caller::"b"`, `Caller::""`, "is not a name"},
		{`Caller::"b"`, `Partner::"b"`, "p.cedar:2: "},
		{`== Caller::"b"`, `in CallerGroup::"g"`, "is not in groups.yaml"},
		{`in Partner::"c"`, `in PartnerGroup::"g"`, "is not in groups.yaml"},
		{`resource in Partner::"c"`, `resource`, "must be in a partner"},
		{`resource in Partner::"c"`, someCustomer, "must be in a partner"},
		{`resource in Partner::"c"`, `resource is Customer`, "must be in a partner"},
		{`context.audience == Audience::"graph" && `, ``, "must say for which audience"},
		{` && context.purpose == Purpose::"p"`, ``, "must say for which purpose"},
		{`when { context.audience == Audience::"graph" && context.purpose == Purpose::"p" }`, ``, "must say for which audience"},
		{`Purpose::"p" }`, `Purpose::"p" && context.ticket == "/INC" && context.ticket like "INC*" }`, ""},
		{`Audience::"graph"`, `Audience::"grph"`, "not an audience of any configured cloud"},
		{`Audience::"graph"`, `Audience::"https://graph.microsoft.com"`, `is written Audience::"graph"`},
		{`Audience::"graph"`, `"graph"`, "p.cedar:2: "},
		{`context.purpose == Purpose::"p"`, `context.purpos == Purpose::"p"`, "purpos"},
		{`Purpose::"p"`, `Purpose::"p p"`, "is not a name"},
		{`Purpose::"p"`, `Purpose::"p" && resource == Customer::"` + strings.ToUpper("abcdefab-0000-4000-8000-000000000000") + `"`, "lower case"},
		{`Purpose::"p"`, `Purpose::"p" && resource == Customer::"contoso.onmicrosoft.com"`, "lower case"},
		{`Purpose::"p"`, `Purpose::"p" && context.method == "GET"`, "method"},
		{`Purpose::"p"`, `Purpose::"p" && context.ip.isInRange(ip("10.0.0.0/8"))`, "optional"},
		{`Purpose::"p"`, `Purpose::"p" && resource.frozen`, "frozen"},
		{`Purpose::"p"`, `Purpose::"p" && principal in Nobody::"x"`, "Nobody"},
		{`@scopes("consented")`, `@scopes("consented") @customers("all")`, ""},
		{`};`, `}`, "p.cedar:7:1"},
		{`};`, `}; nonsense`, "p.cedar:"},
		{`};`, `&& ` + strings.Repeat("(", 70) + "true" + strings.Repeat(")", 70) + `};`, "nested more than 64 deep"},
		{`};`, `} when { ` + strings.Repeat("true && ", maxNodes) + `true };`, "more than 5000 parts"},
		{`};`, `};` + good, `"a" is the rule at p.cedar:2 already`},
		{`permit (principal == Caller::"b", action, resource in Partner::"c")`, `@customers("all") permit (principal == Caller::"b", action, resource in Partner::"c")`, ""},
		{`context.audience`, someCustomer + ` && context.audience`, ""},
	} {
		text := strings.Replace(good, tt.old, tt.new, 1)
		_, err := Compile(Source{{"p.cedar", text}}, clouds())
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%q for %q: %v", tt.new, tt.old, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "p.cedar:")):
			t.Errorf("%.200q for %q: got %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}

// A rule about what operators do can only forbid, and names the one server.
func TestPolicyRefusesRulesAboutOperators(t *testing.T) {
	for text, want := range map[string]string{
		`@id("x") forbid (principal, action == Action::"administer", resource == Server::"mandate");`:                                                                       "",
		`@id("x") forbid (principal, action == Action::"administer", resource == Server::"other");`:                                                                         "there is one only",
		`@id("x") forbid (principal, action == Action::"administer", resource == Customer::"22222222-2222-2222-2222-222222222222");`:                                        "applicable action",
		`@id("x") forbid (principal, action == Action::"administer", resource) when { context.purpose == Purpose::"p" };`:                                                   "not found",
		`@id("x") forbid (principal, action, resource) when { context.act == "backup" };`:                                                                                   "not found",
		`@id("x") @until("2100-01-01") @scopes("consented") permit (principal == Caller::"b", action in [Action::"call", Action::"administer"], resource in Partner::"c");`: "can only be forbidden",
	} {
		_, err := Compile(Source{{"p.cedar", text}}, clouds())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// A rule for all customers may not name some: what it excludes would still be
// within reach of a token of the partner's own tenant.
func TestPolicyAllCustomersNamesNone(t *testing.T) {
	text := strings.Replace(strings.Replace(good, "permit", `@customers("all") permit`, 1), "};", `} unless { resource == Customer::"`+adatum+`" };`, 1)
	if _, err := Compile(Source{{"p.cedar", text}}, clouds()); err == nil || !strings.Contains(err.Error(), "contradicts") {
		t.Errorf("got %v", err)
	}
}

func TestPolicyRefusesEveryMistakeAtOnce(t *testing.T) {
	bad := strings.Replace(good, `@until("2100-01-01")`, "", 1)
	_, err := Compile(Source{{"b.cedar", bad + strings.Replace(bad, `"a"`, `"b"`, 1)}, {"c.cedar", "permit"}, {GroupsFile, "callers: {g: ['*']}"}}, clouds())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"b.cedar:2: ", "b.cedar:8: ", "c.cedar:", "groups.yaml: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestPolicyRefusesGroupFiles(t *testing.T) {
	for in, want := range map[string]string{
		"callers: {g: [a]}\n": "", "": "", "callers: [a]": "groups.yaml:1:", "caller: {g: [a]}": `did you mean "callers"?`,
		"partners: {'g g': [a]}": "is not a name", "purposes: {g: [a, 'b*']}": "no wildcards", "callers:\n  g:\n    ! 0": "groups.yaml:",
	} {
		_, err := Compile(Source{{GroupsFile, in}}, clouds())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

func TestPolicyRefusesFiles(t *testing.T) {
	for _, src := range []Source{
		{{"../p.cedar", ""}}, {{"p.yaml", ""}}, {{"p.cedar", ""}, {"p.cedar", ""}}, {{"a/b.cedar", ""}}, {{".cedar\n", ""}},
		{{"p.cedar", strings.Repeat(" ", maxFile+1)}},
	} {
		if _, err := Compile(src, clouds()); err == nil {
			t.Errorf("%.40q: no error", src[0].Name)
		}
	}
	var many Source
	for i := range maxFiles + 1 {
		many = append(many, File{fmt.Sprintf("%03d.cedar", i), ""})
	}
	if _, err := Compile(many, clouds()); err == nil {
		t.Error("too many files: no error")
	}
}

func TestPolicyRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "absent")); err == nil {
		t.Error("an absent path: no error")
	}
	for name, text := range map[string]string{"b.cedar": "", "a.cedar": good, GroupsFile: "", "a_test.yaml": "x", "notes.txt": "y"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	src, err := Read(dir)
	if err != nil || len(src) != 3 || src[0].Name != "a.cedar" || src[2].Name != GroupsFile {
		t.Fatalf("got %v, %v", src, err)
	}
	before := src.Version()
	if src[0].Text += " "; src.Version() == before {
		t.Error("another text has the same version")
	}
	if one, err := Read(filepath.Join(dir, "a.cedar")); err != nil || len(one) != 1 {
		t.Errorf("one file: %v, %v", one, err)
	}
	if _, err := Read(filepath.Join(dir, "notes.txt")); err == nil {
		t.Error("a file of another kind: no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "b.cedar"), make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a long file: %v", err)
	}
}

// The moment at which a right ends is the end of its last day in UTC.
func TestPolicyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // 2000-01-01
		s, err := Compile(Source{{"p.cedar", strings.Replace(good, "2100-01-01", "2000-06-30", 1)}}, clouds())
		if err != nil {
			t.Fatal(err)
		}
		h := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p"}
		req, _, _ := h.Request(clouds())
		time.Sleep(time.Until(time.Date(2000, 7, 1, 0, 0, 0, 0, time.UTC)) - time.Nanosecond)
		if d := s.Decide(req); !d.Allowed {
			t.Errorf("on its last day: %+v", d)
		}
		time.Sleep(time.Nanosecond)
		if d := s.Decide(req); d.Allowed || !strings.Contains(d.Reason, "ended on 2000-07-01T00:00:00Z") {
			t.Errorf("after its end: %+v", d)
		}
	})
}

// approvals approves everything at a time.
type approvals time.Time

func (a approvals) Approved(string, *mandate.Request) (string, time.Time) {
	return "abc", time.Time(a)
}

func TestPolicyApprovalIsTimeBound(t *testing.T) {
	s, err := Compile(Source{{"p.cedar", strings.Replace(good, "permit", `@approval("4h") permit`, 1)}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	h := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p"}
	req, now, _ := h.Request(clouds())
	for _, tt := range []struct {
		name string
		by   Approvals
		want bool
	}{
		{"nobody", nil, false}, {"never", approvals{}, false}, {"just now", approvals(now), true}, {"nearly 4h ago", approvals(now.Add(time.Nanosecond - 4*time.Hour)), true},
		{"4h ago", approvals(now.Add(-4 * time.Hour)), false}, {"in the future", approvals(now.Add(time.Second)), false},
	} {
		d := s.decide(req, s.index.find(req), tt.by, now)
		if d.Allowed != tt.want || d.Rule != "a" || !d.Allowed && (!strings.Contains(d.Reason, "second person") || d.NeedsApproval != 4*time.Hour) ||
			d.Allowed && (d.Approval != "abc" || d.NeedsApproval != 0) {
			t.Errorf("%s: got %+v", tt.name, d)
		}
	}
}

// The own tenant's id among the customers does not make a rule for some
// customers one for all.
func TestConfusedDeputyOwnTenantAsCustomer(t *testing.T) {
	text := strings.Replace(good, "};", ` && resource in [Partner::"c", Customer::"`+contoso+`"] };`, 1)
	s, err := Compile(Source{{"p.cedar", strings.Replace(text, `, Customer::"`+contoso+`"]`, `]`, 1)}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	h := Hypothetical{Caller: "b", Partner: "c", Audience: "graph", Purpose: "p"}
	req, _, _ := h.Request(clouds())
	if d := s.Decide(req); d.Allowed {
		t.Errorf("got %+v", d)
	}
}

// A caller, a partner or a purpose that is named as a group is not in it.
func TestConfusedDeputyNamesOfGroups(t *testing.T) {
	text := strings.NewReplacer(`== Caller::"b"`, `in CallerGroup::"b"`, `in Partner::"c"`, `in PartnerGroup::"c"`, `== Purpose::"p"`, `in PurposeGroup::"p"`).Replace(good)
	s, err := Compile(Source{{"p.cedar", text}, {GroupsFile, "callers: {b: [x]}\npartners: {c: [y]}\npurposes: {p: [z]}"}}, clouds())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		caller, partner, purpose string
		want                     bool
	}{{"x", "y", "z", true}, {"b", "y", "z", false}, {"x", "c", "z", false}, {"x", "y", "p", false}} {
		h := Hypothetical{Caller: tt.caller, Partner: tt.partner, Purpose: tt.purpose, Customer: adatum, Audience: "graph"}
		req, _, _ := h.Request(clouds())
		if d := s.Decide(req); d.Allowed != tt.want {
			t.Errorf("%+v: got %+v", tt, d)
		}
	}
}
