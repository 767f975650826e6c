package policy

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// fakeKeeper has whatever a test puts in force.
type fakeKeeper struct {
	mu  sync.Mutex // guards the rest
	v   *Version
	err error
}

func (f *fakeKeeper) Policy() (*Version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.v, f.err
}

func (f *fakeKeeper) put(n int64, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.v = &Version{n, Source{{"p.cedar", text}}}
}

func TestPolicyEngineFollows(t *testing.T) {
	k := new(fakeKeeper)
	e := NewEngine(EngineConfig{Keeper: k, Clouds: clouds()})
	h := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p"}
	req, _, _ := h.Request(clouds())
	decides := func(what string, allowed bool, number int64, broken bool) {
		t.Helper()
		d := e.Decide(req)
		_, n, why, err := e.InForce()
		if d.Allowed != allowed || n != number || (why != nil) != broken || err != nil {
			t.Errorf("%s: decided %+v by number %d, broken %v, %v", what, d, n, why, err)
		}
	}
	decides("no policy", false, 0, false)
	k.put(1, "nonsense")
	decides("a broken first one", false, 0, true)
	k.put(2, good)
	decides("a good one", true, 2, false)
	k.put(3, "permit")
	decides("a broken one leaves the one before", true, 2, true)
	k.put(4, `@id("no") forbid (principal, action, resource);`+good)
	decides("one that forbids", false, 4, false)
	k.put(2, good)
	decides("one of before, seen late", false, 4, false)
	k.err = mandate.ErrUnavailable
	if d := e.Decide(req); d.Allowed || !strings.HasPrefix(d.Reason, "no rule") {
		t.Errorf("a policy that is not known: %+v", d)
	}
	if _, _, _, err := e.InForce(); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// What operators do is forbidden by the rules in force and by nothing else;
// whoever is to put the first in force can.
func TestPolicyEngineOfOperators(t *testing.T) {
	k := new(fakeKeeper)
	e := NewEngine(EngineConfig{Keeper: k, Clouds: clouds()})
	act := &Act{Caller: "uid:1", Name: "policy apply", Loosens: true}
	if d := e.Administer(act); !d.Allowed {
		t.Errorf("no policy: %+v", d)
	}
	k.put(1, good)
	if d := e.Administer(act); !d.Allowed || d.Policy == "" {
		t.Errorf("no rule about it: %+v", d)
	}
	k.put(2, `@id("no") forbid (principal, action == Action::"administer", resource);`+good)
	if d := e.Administer(act); d.Allowed || d.Rule != "no" {
		t.Errorf("forbidden: %+v", d)
	}
	k.err = mandate.ErrUnavailable
	if d := e.Administer(act); d.Allowed || !strings.HasPrefix(d.Reason, "no rule") {
		t.Errorf("a policy that is not known: %+v", d)
	}
}

// No request is decided by an old policy once the keeper names a new one,
// however many ask meanwhile.
func TestPolicyEngineSwitchesAtOnce(t *testing.T) {
	k := new(fakeKeeper)
	e := NewEngine(EngineConfig{Keeper: k, Clouds: clouds()})
	h := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p"}
	req, _, _ := h.Request(clouds())
	k.put(1, good)
	var group sync.WaitGroup
	for n := int64(2); n < 40; n++ {
		text := good
		if n%2 == 0 {
			text = strings.Replace(good, `Purpose::"p"`, `Purpose::"q"`, 1)
		}
		k.put(n, text)
		for range 4 {
			group.Go(func() {
				if d := e.Decide(req); d.Allowed != (n%2 == 1) {
					t.Errorf("number %d: got %+v", n, d)
				}
			})
		}
		group.Wait()
	}
}

func TestPolicyExplain(t *testing.T) {
	s := table(t)
	for _, row := range rows(t) {
		req, at, err := row.Request(clouds())
		if err != nil {
			t.Fatal(err)
		}
		e, d := s.Explain(req, nil, at), s.decide(req, s.index.find(req), nil, at)
		if e.Allowed != d.Allowed || e.Rule != d.Rule || e.Policy != s.Version() {
			t.Errorf("%s: explained %+v, decided %+v", row.Name, e, d)
		}
		for _, v := range e.Rules {
			if v.Holds != (len(v.Missing) == 0) || v.File != "rules.cedar" || v.Line == 0 {
				t.Errorf("%s: got %+v", row.Name, v)
			}
			if e.Allowed && v.Holds && !v.Shadow && v.Effect == "forbid" {
				t.Errorf("%s: allowed, though %s forbids", row.Name, v.Rule)
			}
		}
	}
	h := Hypothetical{Caller: "auditor", Partner: "contoso", Customer: litware, Audience: "graph", Purpose: "audit", IP: "192.0.2.1", At: "2026-06-03T10:00:00Z"}
	req, at, _ := h.Request(clouds())
	e := s.Explain(req, nil, at)
	if len(e.Rules) == 0 || e.Rules[0].Rule != "office" || strings.Join(e.Rules[0].Missing, "|") != `context.ip.isInRange(ip("10.20.0.0/16"))|needs a ticket` {
		t.Errorf("got %+v", e)
	}
}

func TestPolicyChangesAndDryRun(t *testing.T) {
	compile := func(text, groups string) *Set {
		t.Helper()
		s, err := Compile(Source{{"p.cedar", text}, {GroupsFile, groups}}, clouds())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	b := strings.NewReplacer(`"a"`, `"b"`, `== Caller::"b"`, `in CallerGroup::"g"`).Replace(good)
	before := compile(good+b, "callers: {g: [x]}")
	after := compile("// another layout\n"+strings.Join(strings.Fields(good), " ")+b+strings.Replace(good, `"a"`, `"c"`, 1), "callers: {g: [x, y]}")
	var got []string
	for _, c := range before.Changes(after) {
		got = append(got, c.Change+" "+c.Rule)
	}
	if strings.Join(got, ", ") != "changed b, added c" {
		t.Errorf("got %v", got)
	}
	if c := after.Changes(before); len(c) != 2 || c[1].Change != "removed" {
		t.Errorf("got %v", c)
	}
	if c := (*Set)(nil).Changes(before); len(c) != 2 {
		t.Errorf("from nothing: %v", c)
	}

	h := Hypothetical{Caller: "y", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p"}
	req, _, _ := h.Request(clouds())
	rec := &mandate.Record{
		Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Kind: mandate.KindDenied, Caller: req.Caller, Use: req.Use, Partner: "c", Grant: &req.Partner.Key,
		Tenant: req.Tenant, Audience: req.Audience, Purpose: req.Purpose,
	}
	run := NewDryRun(before, after)
	for _, kind := range []string{mandate.KindDenied, mandate.KindDecided, mandate.KindIssued, mandate.KindFailed, mandate.KindChanged} {
		rec.Kind = kind
		run.Add(rec)
	}
	run.Add(&mandate.Record{Kind: mandate.KindDenied})
	if e := run.Effects(); run.Requests != 2 || len(e) != 1 || e[0].Count != 2 || !strings.HasPrefix(e[0].Before, "deny: no rule") || e[0].After != "allow by rule b" {
		t.Errorf("%d requests, %+v", run.Requests, e)
	}
}

const oldRules = `
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
    callers: [desk, billing, "uid:1000"]
    partners: [contoso, fabrikam]
    customers: [22222222-2222-2222-2222-222222222222]
    audiences: [graph]
    scopes: [User.Read, Directory.Read.All]
    purposes: [support]
    uses: [token]
    until: 2100-06-30
    max_token_life: 70m
`

func TestPolicyConvert(t *testing.T) {
	src, err := Convert("rules.yaml", []byte(oldRules), clouds())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(src, clouds())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		h    Hypothetical
		want string // the rule
	}{
		{Hypothetical{Caller: "billing", Partner: "contoso", Audience: "partnercenter", Purpose: "invoice"}, "billing-all"},
		{Hypothetical{Caller: "billing", Partner: "contoso", Customer: litware, Audience: "graph", Purpose: "invoice"}, "billing-all"},
		{Hypothetical{Caller: "billing", Partner: "contoso", Customer: adatum, Audience: "graph", Purpose: "support"}, "billing-all"},
		{Hypothetical{Caller: "desk", Partner: "fabrikam", Customer: adatum, Audience: "graph", Purpose: "support"}, "support-adatum"},
		{Hypothetical{Caller: "uid:1000", Partner: "fabrikam", Customer: adatum, Audience: "graph", Purpose: "support", Scopes: []string{"User.Read"}}, "support-adatum"},
		{Hypothetical{Caller: "desk", Partner: "contoso", Audience: "graph", Purpose: "support"}, ""},
		{Hypothetical{Caller: "desk", Partner: "contoso", Customer: litware, Audience: "graph", Purpose: "support"}, ""},
		{Hypothetical{Caller: "desk", Partner: "contoso", Customer: adatum, Audience: "graph", Purpose: "support", Path: "/x"}, ""},
		{Hypothetical{Caller: "desk", Partner: "contoso", Customer: adatum, Audience: "graph", Purpose: "support", Scopes: []string{"Mail.Read"}}, ""},
		{Hypothetical{Caller: "billing", Partner: "fabrikam", Audience: "partnercenter", Purpose: "invoice"}, ""},
	} {
		req, _, err := tt.h.Request(clouds())
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Decide(req); d.Rule != tt.want || d.Allowed != (tt.want != "") || d.Rule == "support-adatum" && d.MaxTokenLife != 70*time.Minute {
			t.Errorf("%+v: got %+v", tt.h, d)
		}
	}
	for _, bad := range []string{"rules: [{name: a}]", "rules: [{}]", "rulez: []", strings.Replace(oldRules, "customers: all", "customers: some", 1), strings.Replace(oldRules, "partnercenter", "mail", 1), strings.Replace(oldRules, "2100-01-01", "never", 1)} {
		if _, err := Convert("rules.yaml", []byte(bad), clouds()); err == nil {
			t.Errorf("%.60q: no error", bad)
		}
	}
}
