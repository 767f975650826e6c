package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/policy"
)

// apply puts a policy in force.
func (d *Demo) apply(t *testing.T, files ...policy.File) (api.PolicyApplied, error) {
	t.Helper()
	st, err := d.Operator.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Operator.ApplyPolicy(t.Context(), api.ApplyRequest{Files: files, After: st.Number, Ticket: "CHG-1"})
}

// ruleFor is a rule for the operator of the tests, with what is inserted.
func ruleFor(annotations, resource, condition string) policy.File {
	return policy.File{Name: "demo.cedar", Text: fmt.Sprintf(`@id("mine") @until("2100-01-01") %s
permit (principal == Caller::"uid:%d", action, %s)
when { context.purpose == Purpose::"demo" && %s };`, annotations, os.Getuid(), resource, condition)}
}

// What a caller with one customer, one API and one purpose tries to get beyond
// them is denied, recorded as denied, and asks nothing of Entra.
func TestConfusedDeputy(t *testing.T) {
	d, _ := begin(t, Config{})
	d.consent(t)
	rule := ruleFor(`@scopes("consented")`, `resource in Partner::"contoso"`, fmt.Sprintf(
		`context.audience in [Audience::"graph", Audience::"partnercenter"] && resource == Customer::"%s"`, emulator.AdatumTenant))
	if _, err := d.apply(t, rule); err != nil {
		t.Fatal(err)
	}
	good := api.TokenRequest{Partner: Partner, Tenant: emulator.AdatumTenant, Audience: "graph", Purpose: Purpose}
	if _, err := d.Operator.Token(t.Context(), good); err != nil {
		t.Fatalf("what the rule allows: %v", err)
	}
	for name, change := range map[string]func(*api.TokenRequest){
		"another partner":             func(r *api.TokenRequest) { r.Partner = "fabrikam" },
		"another partner's tenant id": func(r *api.TokenRequest) { r.Partner = emulator.FabrikamTenant },
		"partner in another case":     func(r *api.TokenRequest) { r.Partner = "Contoso" },
		"partner by its domain":       func(r *api.TokenRequest) { r.Partner = "contoso.onmicrosoft.com" },
		"the customer as the partner": func(r *api.TokenRequest) { r.Partner = emulator.AdatumTenant },
		"another customer":            func(r *api.TokenRequest) { r.Tenant = emulator.LitwareTenant },
		"another partner's customer":  func(r *api.TokenRequest) { r.Tenant = emulator.WingtipTenant },
		"the partner's own tenant":    func(r *api.TokenRequest) { r.Tenant = "" },
		"own tenant by its id":        func(r *api.TokenRequest) { r.Tenant = emulator.ContosoTenant },
		"Partner Center's token":      func(r *api.TokenRequest) { r.Tenant, r.Audience = "", "partnercenter" },
		"tenant by its domain":        func(r *api.TokenRequest) { r.Tenant = "adatum.onmicrosoft.com" },
		"tenant common":               func(r *api.TokenRequest) { r.Tenant = "common" },
		"tenant with a path":          func(r *api.TokenRequest) { r.Tenant = emulator.AdatumTenant + "/oauth2" },
		"another audience":            func(r *api.TokenRequest) { r.Audience = "arm" },
		"audience by an alias":        func(r *api.TokenRequest) { r.Audience = "Graph" },
		"audience by a look-alike":    func(r *api.TokenRequest) { r.Audience = "https://graph.microsoft.com.evil.example" },
		"audience with a path":        func(r *api.TokenRequest) { r.Audience = d.Emulator.Endpoints().Graph + "/v1.0" },
		"scope by wildcard":           func(r *api.TokenRequest) { r.Scopes = []string{"*"} },
		"scope of another API":        func(r *api.TokenRequest) { r.Scopes = []string{"https://management.azure.com/.default"} },
		"another purpose":             func(r *api.TokenRequest) { r.Purpose = "support" },
		"purpose in another case":     func(r *api.TokenRequest) { r.Purpose = "Demo" },
		"purpose with a zero width":   func(r *api.TokenRequest) { r.Purpose = "demo\u200b" },
		"purpose in Cyrillic":         func(r *api.TokenRequest) { r.Purpose = "d\u0435mo" },
		"purpose in full width":       func(r *api.TokenRequest) { r.Purpose = "\uff44emo" },
		"purpose with a newline":      func(r *api.TokenRequest) { r.Purpose = "demo\n" },
		"purpose by wildcard":         func(r *api.TokenRequest) { r.Purpose = "*" },
		"no purpose":                  func(r *api.TokenRequest) { r.Purpose = "" },
		"claims that are cut off":     func(r *api.TokenRequest) { r.Claims = `{"access_token":{"nbf":` },
		"claims without end": func(r *api.TokenRequest) {
			r.Claims = `{"access_token":{"nbf":{"value":"` + strings.Repeat("1", 4<<10) + `"}}}`
		},
	} {
		r := good
		change(&r)
		d.denied(t, name, func() error { _, err := d.Operator.Token(t.Context(), r); return err })
	}
	for name, c := range map[string]api.CallRequest{
		"all customers":            {Method: "GET", Path: "/v1/customers"},
		"another customer by path": {Method: "GET", Path: "/v1/customers/" + emulator.LitwareTenant + "/users"},
		"a path that climbs":       {Method: "GET", Path: "/v1/customers/" + emulator.AdatumTenant + "/../" + emulator.LitwareTenant},
		"an encoded slash":         {Method: "GET", Path: "/v1/customers/" + emulator.AdatumTenant + "%2f..%2f" + emulator.LitwareTenant},
		"another host":             {Method: "GET", Path: "https://evil.example/v1/customers/" + emulator.AdatumTenant},
	} {
		c.Partner, c.Audience, c.Purpose = Partner, "partnercenter", Purpose
		d.denied(t, name, func() error { _, err := d.Operator.Call(t.Context(), c); return err })
	}
	// The gateway serves the one customer, though the token would reach all.
	c := api.CallRequest{Partner: Partner, Audience: "partnercenter", Purpose: Purpose, Method: "GET", Path: "/v1/customers/" + emulator.AdatumTenant}
	if a, err := d.Operator.Call(t.Context(), c); err != nil || a.Status != 200 {
		t.Errorf("the customer of the rule: %+v, %v", a, err)
	}
	// Who revokes a customer means these calls, too.
	if _, err := d.Operator.Revoke(t.Context(), api.RevokeRequest{Customer: emulator.AdatumTenant, Reason: "INC-7"}); err != nil {
		t.Fatal(err)
	}
	d.denied(t, "the customer of the rule, revoked", func() error { _, err := d.Operator.Call(t.Context(), c); return err })
	d.lift(t)
	// A token that carries more than the rule names is obtained, and kept back.
	rule = ruleFor(`@scopes("User.Read")`, `resource in Partner::"contoso"`, fmt.Sprintf(`context.audience == Audience::"graph" && resource == Customer::"%s"`, emulator.AdatumTenant))
	if _, err := d.apply(t, rule); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Operator.Token(t.Context(), good); !errors.Is(err, mandate.ErrWiderThanRule) {
		t.Errorf("a token wider than the rule: %v", err)
	}
}

// lift lifts whatever is revoked.
func (d *Demo) lift(t *testing.T) {
	t.Helper()
	all, err := d.Operator.Revocations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if err := d.Operator.Lift(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// denied wants do to be refused, by one record and without asking Entra.
func (d *Demo) denied(t *testing.T, name string, do func() error) {
	t.Helper()
	before, _ := d.records(t)
	asked := len(d.Emulator.TokenRequests())
	err := do()
	if !errors.Is(err, mandate.ErrDenied) && !errors.Is(err, mandate.ErrInvalid) && !errors.Is(err, mandate.ErrUnknownPartner) {
		t.Errorf("%s: got %v", name, err)
	}
	after, last := d.records(t)
	if len(after) != len(before)+1 || last.Kind != mandate.KindDenied || last.Caller == "" || last.Rule == "" && !strings.HasPrefix(last.Reason, "no rule") && !strings.HasPrefix(last.Reason, "denied: no rule") {
		t.Errorf("%s: recorded %v, the last as %+v", name, after[len(before):], last)
	}
	if n := len(d.Emulator.TokenRequests()) - asked; n != 0 {
		t.Errorf("%s: Entra was asked %d times", name, n)
	}
}

// A policy that is applied decides the next request; a wrong one changes
// nothing; and what was decided before can still be explained by the policy of
// then.
func TestPolicyApply(t *testing.T) {
	d, _ := begin(t, Config{})
	d.consent(t)
	if err := d.ask(t); err != nil {
		t.Fatal(err)
	}
	first, err := d.Operator.Policy(t.Context())
	if err != nil || first.Number != 1 || first.By != "configuration" || first.Differs != "" || len(first.Files) != 2 {
		t.Fatalf("at the start %+v, %v", first, err)
	}
	index := d.lastIndex(t)

	stop := policy.File{Name: "stop.cedar", Text: `@id("stop") forbid (principal, action, resource) when { context.purpose == Purpose::"demo" };`}
	diff, err := d.Operator.DiffPolicy(t.Context(), api.DiffRequest{Files: append(first.Files, stop), Days: 30})
	if err != nil || diff.Requests == 0 || len(diff.Effects) != 1 || !strings.HasPrefix(diff.Effects[0].After, "deny") || len(diff.Rules) != 1 {
		t.Errorf("dry run: %+v, %v", diff, err)
	}
	if err := d.ask(t); err != nil {
		t.Errorf("after a dry run: %v", err)
	}
	if a, err := d.apply(t, append(first.Files, stop)...); err != nil || a.Number != 2 || a.Replaced != 1 || a.Version == first.Version || len(a.Rules) != 1 {
		t.Fatalf("applied %+v, %v", a, err)
	}
	if _, last := d.records(t); last.Kind != mandate.KindChanged || last.Ticket != "CHG-1" || !strings.Contains(last.Detail, "in force") {
		t.Errorf("recorded %+v", last)
	}
	if err := d.ask(t); !errors.Is(err, mandate.ErrDenied) || contains(err.Error(), `forbidden by rule "stop"`) != nil {
		t.Errorf("under the new policy: %v", err)
	}
	if _, err := d.apply(t, policy.File{Name: "a.cedar", Text: "permit (principal, action, resource);"}); !errors.Is(err, mandate.ErrInvalid) || contains(err.Error(), "a.cedar:1", "@id") != nil {
		t.Errorf("a wrong policy: %v", err)
	}
	if _, err := d.Operator.ApplyPolicy(t.Context(), api.ApplyRequest{Files: first.Files, After: 1}); !errors.Is(err, mandate.ErrExists) {
		t.Errorf("a policy that was compared with another: %v", err)
	}
	st, err := d.Operator.Policy(t.Context())
	if err != nil || st.Number != 2 || st.Latest != 2 || st.Differs == "" || len(st.Earlier) != 1 || st.Rules != 3 {
		t.Errorf("now %+v, %v", st, err)
	}
	e, err := d.Operator.ExplainPolicy(t.Context(), api.ExplainRequest{Index: &index})
	if err != nil || !e.Allowed || e.Rule != "demo-operator" || e.Policy != first.Version || e.Note != "" {
		t.Errorf("the decision of then: %+v, %v", e, err)
	}
	if e, err = d.Operator.ExplainPolicy(t.Context(), api.ExplainRequest{Index: &index, Files: st.Files}); err != nil || e.Allowed || e.Rule != "stop" {
		t.Errorf("by the policy of now: %+v, %v", e, err)
	}
	h := policy.Hypothetical{Caller: "demo-service", Partner: Partner, Audience: "graph", Purpose: "other"}
	if e, err = d.Operator.ExplainPolicy(t.Context(), api.ExplainRequest{Request: &h}); err != nil || e.Allowed || e.Rule != "" || len(e.Rules) == 0 || len(e.Rules[0].Missing) != 1 {
		t.Errorf("a request that nobody made: %+v, %v", e, err)
	}
}

// lastIndex returns the number of the last record.
func (d *Demo) lastIndex(t *testing.T) int64 {
	t.Helper()
	lines, err := d.Operator.Audit(t.Context(), 1)
	if err != nil || len(lines) != 1 {
		t.Fatal(err)
	}
	var rec struct {
		Index int64 `json:"index"`
	}
	if err := json.Unmarshal(lines[0], &rec); err != nil {
		t.Fatal(err)
	}
	return rec.Index
}

// After a restart what was applied is in force, not the configured files; and
// the log and the status say so. Files that are gone do not matter then, but a
// new database needs them.
func TestPolicyAfterRestart(t *testing.T) {
	d, log := begin(t, Config{})
	d.consent(t)
	none := policy.File{Name: "none.cedar", Text: "// nobody may have anything\n"}
	if _, err := d.apply(t, none); err != nil {
		t.Fatal(err)
	}
	d.stopProduct(t)
	fresh := func(s string) string {
		return strings.NewReplacer("policy: policy", "policy: absent", "data: data", "data: elsewhere", "key_file: keys/mandate.key", "key_file: elsewhere.key").Replace(s)
	}
	if err := d.startAgain(t, fresh); err == nil || contains(err.Error(), "absent") != nil {
		t.Errorf("a new database without files: %v", err)
	}
	gone := func(s string) string { return strings.ReplaceAll(s, "policy: policy", "policy: absent") }
	if err := d.startAgain(t, gone); err != nil {
		t.Fatal(err)
	}
	if err := contains(log.String(), "the policy in force is not the configured one", "absent"); err != nil {
		t.Error(err)
	}
}

// Rules in shadow mode, tickets and networks reach the record and the decision
// through the whole system.
func TestPolicyShadowAndTicket(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	d.consent(t)
	rule := ruleFor(`@scopes("consented") @customers("all") @ticket("required")`, `resource in Partner::"contoso"`, `context.audience == Audience::"graph" && !(context has ip)`)
	shadow := policy.File{Name: "shadow.cedar", Text: `@id("later") @shadow("true") forbid (principal, action, resource) when { context.mfa_age > duration("1ms") };`}
	if _, err := d.apply(t, rule, shadow); err != nil {
		t.Fatal(err)
	}
	r := api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose}
	if _, err := d.Operator.Token(t.Context(), r); !errors.Is(err, mandate.ErrDenied) || contains(err.Error(), "needs a ticket") != nil {
		t.Errorf("without a ticket: %v", err)
	}
	time.Sleep(2 * time.Millisecond)
	r.Ticket = "INC-1"
	if _, err := d.Operator.Token(t.Context(), r); err != nil {
		t.Errorf("with a ticket: %v", err)
	}
	if _, last := d.records(t); last.Kind != mandate.KindIssued || len(last.Shadow) != 1 || last.Shadow[0] != "later" || last.Rule != "mine" {
		t.Errorf("recorded %+v", last)
	}
}

// A policy that is applied at one replica decides in all of them within a
// second, under load: after that not one token is handed out by the old one.
func TestPolicyInAllReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	st, err := f.Operator.Policy(t.Context())
	if err != nil || st.Number != 1 {
		t.Fatalf("three replicas began with %+v, %v", st, err)
	}
	var changed atomic.Int64 // when it was acknowledged, in Unix nanoseconds
	var asked, late atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				_, err := f.replicas[i%3].ask(ctx, "graph", "")
				asked.Add(1)
				if c := changed.Load(); err == nil && c > 0 && begun.Sub(time.Unix(0, c)) > time.Second {
					late.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Second)
	stopRule := policy.File{Name: "stop.cedar", Text: `@id("stop") forbid (principal, action, resource);`}
	if _, err := f.apply(t, append(st.Files, stopRule)...); err != nil {
		t.Fatal(err)
	}
	changed.Store(time.Now().UnixNano())
	time.Sleep(3 * time.Second)
	stop()
	group.Wait()
	if late.Load() > 0 || asked.Load() < 100 {
		t.Errorf("%d tokens were handed out later than a second after the change, of %d requests", late.Load(), asked.Load())
	}
	for _, r := range f.replicas {
		if _, err := r.ask(t.Context(), "graph", ""); !errors.Is(err, mandate.ErrDenied) {
			t.Errorf("%s: %v", r.name, err)
		}
		if st, err := r.client.Policy(t.Context()); err != nil || st.Number != 2 {
			t.Errorf("%s: %+v, %v", r.name, st, err)
		}
	}
}

// A rule about the age of MFA is held against the consent's proven sign-in.
func TestPolicyMFAAge(t *testing.T) {
	d, _ := begin(t, Config{})
	d.consent(t)
	p, err := d.Operator.Partner(t.Context(), Partner)
	if err != nil || p.Grant == nil || p.Grant.Evidence == nil || p.Grant.Evidence.AuthTime.IsZero() {
		t.Fatalf("the time of the sign-in is not proven: %+v, %v", p.Grant, err)
	}
	for condition, want := range map[string]error{`<= duration("1h")`: nil, `> duration("1h")`: mandate.ErrDenied, `> duration("36000d")`: mandate.ErrDenied} {
		rule := ruleFor(`@scopes("consented") @customers("all")`, `resource in Partner::"contoso"`, `context.audience == Audience::"graph" && context.mfa_age `+condition)
		if _, err := d.apply(t, rule); err != nil {
			t.Fatal(err)
		}
		err := d.ask(t)
		if !errors.Is(err, want) || want != nil && contains(err.Error(), "age of MFA") != nil {
			t.Errorf("%s: %v", condition, err)
		}
	}
}
