package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/policy"
)

// fakeApprovals asks and remembers as a store does.
type fakeApprovals struct {
	all  []mandate.Approval
	err  error
	full bool
	deaf bool // has not heard of what is asked
}

func (f *fakeApprovals) Approval(digest string) (*mandate.Approval, error) {
	for i := range f.all {
		if f.all[i].Digest() == digest && !f.deaf {
			return &f.all[i], f.err
		}
	}
	return nil, f.err
}

func (f *fakeApprovals) Ask(_ context.Context, a mandate.Approval) error {
	if f.full {
		return fmt.Errorf("%w: full", mandate.ErrRateLimited)
	}
	for _, first := range f.all {
		if first.Digest() == a.Digest() {
			return &mandate.AskedError{Approval: first}
		}
	}
	f.all = append(f.all, a)
	return f.err
}

func (f *fakeApprovals) Approvals() ([]mandate.Approval, error) { return f.all, f.err }

func (f *fakeApprovals) find(id string) int {
	return slices.IndexFunc(f.all, func(a mandate.Approval) bool { return a.ID == id })
}

func (f *fakeApprovals) Decide(_ context.Context, id string, say mandate.ApprovalState, by mandate.CallerID, decider string) error {
	a := &f.all[f.find(id)]
	if a.State != mandate.ApprovalWanted {
		return mandate.ErrExists
	}
	if err := a.Gives(by, decider, "https://login.test/x somebody"); err != nil && say == mandate.ApprovalGiven {
		return err
	}
	a.State, a.By, a.Decider, a.Decided = say, by, decider, time.Now()
	return f.err
}

func (f *fakeApprovals) WithdrawApproval(_ context.Context, id string) error {
	f.all = slices.Delete(f.all, f.find(id), f.find(id)+1)
	return f.err
}

func (f *fakeApprovals) UseApproval(_ context.Context, id string) error {
	if i := f.find(id); i < 0 || f.all[i].State != mandate.ApprovalGiven {
		return mandate.ErrNotFound
	}
	return f.WithdrawApproval(context.Background(), id)
}

// anApproval is what billing asks.
func anApproval() mandate.Approval {
	req := mandate.Request{Caller: "billing", Use: mandate.UseToken, Partner: contoso, Tenant: contosoID, Audience: "https://graph.test", Purpose: "support"}
	a := mandate.NewApproval(mandate.AskedBy("two", &req), time.Hour)
	a.ID = "abc"
	return a
}

// approvalScenes are those of TestOpenAPIAnswers.
func approvalScenes() []scene {
	wanted := func(w *world) {
		a := anApproval()
		a.Caller = "uid:77" // of somebody else than who runs the test
		w.approvals.all = []mandate.Approval{a}
	}
	down := func(w *world) { w.approvals.err = mandate.ErrUnavailable }
	decided := func(w *world) { wanted(w); w.approvals.all[0].State = mandate.ApprovalRefused }
	out := []scene{
		{op: "GET /v1/approvals", status: "200", damage: wanted},
		{op: "GET /v1/approvals", status: "503", damage: down},
		{op: "POST /v1/callers/{caller}/adopt", path: "/v1/callers/billing/adopt", status: "200", body: `{}`},
		{op: "POST /v1/callers/{caller}/adopt", path: "/v1/callers/billing/adopt", status: "400", body: `{"x":1}`},
		{op: "POST /v1/callers/{caller}/adopt", path: "/v1/callers/nobody/adopt", status: "404", body: `{}`},
		{op: "POST /v1/callers/{caller}/adopt", path: "/v1/callers/billing/adopt", status: "503", body: `{}`, damage: func(w *world) { w.store.err = mandate.ErrUnavailable }},
	}
	for verb, op := range map[string]string{"": "GET /v1/approvals/{id}", "/give": "POST /v1/approvals/{id}/give", "/refuse": "POST /v1/approvals/{id}/refuse", "/withdraw": "POST /v1/approvals/{id}/withdraw"} {
		path, bad := "/v1/approvals/abc"+verb, "/v1/approvals/a%20b"+verb
		out = append(out,
			scene{op: op, path: path, status: "200", body: `{}`, damage: wanted},
			scene{op: op, path: bad, status: "400", body: `{}`},
			scene{op: op, path: path, status: "404", body: `{}`},
			scene{op: op, path: path, status: "503", body: `{}`, damage: down})
		if verb == "/give" || verb == "/refuse" {
			out = append(out, scene{op: op, path: path, status: "409", body: `{}`, damage: decided})
		}
	}
	return out
}

// The names of acts are those that policies know, with the same effect, and
// whatever may make things looser has one.
func TestApprovalActNames(t *testing.T) {
	names := map[string]bool{}
	for op, name := range actNames {
		need, served := rights[op]
		if loosens, known := policy.Acts[name]; !served || !known || loosens != (need == loosensRight) || need == views || need == tightens {
			t.Errorf("%s is named %q: served %v, known %v, loosens %v", op, name, served, known, loosens)
		}
		names[name] = true
	}
	for op, need := range rights {
		if need == loosensRight && actNames[op] == "" {
			t.Errorf("%s makes things looser and has no name in actNames", op)
		}
	}
	if got, want := slices.Sorted(maps.Keys(names)), slices.Sorted(maps.Keys(policy.Acts)); !slices.Equal(got, want) {
		t.Errorf("acts %q, policies know %q", got, want)
	}
}

const loosensRight = loosens

func TestApprovalSecondPersonConfiguration(t *testing.T) {
	for _, tt := range []struct {
		acts []string
		ok   bool
	}{
		{nil, true}, {[]string{"policy apply", "caller add", "key rotate"}, true}, {[]string{"polcy apply"}, false}, {[]string{"policy apply", ""}, false},
		{[]string{"partner invite"}, false}, {[]string{"approval give"}, false}, {[]string{"grant suspend"}, false},
	} {
		if err := CheckSecondPerson(tt.acts); (err == nil) != tt.ok || err != nil && !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%q: got %v", tt.acts, err)
		}
	}
}

// The second person is a person where people sign in, whatever glass is broken,
// and has to be somebody else; yes, no and taking back are recorded first.
func TestApprovalGivenByAPerson(t *testing.T) {
	w, f, c := peopled(t, RoleSecurity)
	ctx := t.Context()
	w.approvals.all = []mandate.Approval{anApproval()}
	for _, client := range []*Client{w.operator, w.operator.BreakGlass("no time")} {
		if _, err := client.GiveApproval(ctx, "abc"); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "must be a person") {
			t.Errorf("a host account: %v", err)
		}
	}
	f.at = time.Now().Add(-time.Hour)
	if _, err := c.GiveApproval(ctx, "abc"); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("an hour after the sign-in: %v", err)
	}
	f.at, f.roles = time.Now(), []string{RoleOperator}
	if _, err := c.GiveApproval(ctx, "abc"); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("without the role: %v", err)
	}
	if w.approvals.all[0].State != mandate.ApprovalWanted {
		t.Fatalf("got %+v", w.approvals.all)
	}
	f.roles = []string{RoleSecurity}
	w.log.err = mandate.ErrUnavailable
	if _, err := c.GiveApproval(ctx, "abc"); !errors.Is(err, mandate.ErrUnavailable) || w.approvals.all[0].State != mandate.ApprovalWanted {
		t.Errorf("without a record: %v", err)
	}
	w.log.err = nil
	a, err := c.GiveApproval(ctx, "abc")
	if err != nil || a.State != mandate.ApprovalGiven || a.By != mandate.CallerID("oid:"+adaID.String()) || a.Decider != "https://login.test/x "+adaID.String() {
		t.Fatalf("%+v, %v", a, err)
	}
	told := len(w.notices.told)
	if told == 0 || w.notices.told[told-1].Kind != mandate.NoticeApproved {
		t.Errorf("who agreed is told to nobody: %+v", w.notices.told)
	}
	// Refusing and taking back make things tighter, so a host account may.
	if err := w.operator.WithdrawApproval(ctx, "abc"); err != nil || len(w.approvals.all) != 0 {
		t.Errorf("withdraw: %v", err)
	}
	w.approvals.all = []mandate.Approval{anApproval()}
	if a, err := w.operator.RefuseApproval(ctx, "abc"); err != nil || a.State != mandate.ApprovalRefused {
		t.Errorf("refuse: %+v, %v", a, err)
	}
	if len(w.notices.told) != told {
		t.Errorf("a refusal is told as a yes: %+v", w.notices.told[told:])
	}
	onRecord := false
	of := anApproval()
	of.Caller, of.Grant = "uid:77", contoso.Key
	w.approvals.all = []mandate.Approval{of}
	if _, err := w.operator.RefuseApproval(ctx, "abc"); err != nil {
		t.Error(err)
	}
	for _, line := range w.log.lines {
		var rec mandate.Record
		if err := json.Unmarshal(line, &rec); err == nil && rec.Grant != nil && *rec.Grant == contoso.Key && rec.Tenant == contosoID && rec.Approval == "abc" {
			onRecord = true
		}
	}
	if !onRecord {
		t.Errorf("what was said of a partner's grant is not among its records: %s", w.log.lines)
	}
	records := fmt.Sprintf("%s", w.log.lines)
	for _, want := range []string{"approval abc of billing: give", "approval abc of billing: withdraw", "approval abc of billing: refuse", `"kind":"denied"`} {
		if !strings.Contains(records, want) {
			t.Errorf("no record says %q: %s", want, records)
		}
	}
	for _, line := range w.log.lines {
		var rec mandate.Record
		if err := json.Unmarshal(line, &rec); err != nil || rec.Withdraws() {
			t.Errorf("%s passes for the withdrawal of a grant, or %v", line, err)
		}
	}
}

// An act that needs a second person is held up until one agrees to exactly that,
// once.
func TestApprovalOfAnAct(t *testing.T) {
	f := &fakeSignIns{roles: []string{RoleSecurity}, at: time.Now()}
	w := newWorld(t, func(c *Config) { c.SignIns, c.SecondPerson = f, []string{"caller add"} })
	c := must(NewOpenClient(w.tls.URL, w.tls.Client())).WithSession(mandate.NewSecret("mds_good"))
	ctx := t.Context()
	add := func(id string) error { _, err := c.AddCaller(ctx, id); return err }
	var denied *mandate.DeniedError
	for range 2 {
		if err := add("x"); !errors.As(err, &denied) || denied.Decision.Approval == "" || !strings.Contains(err.Error(), "mandate approval give "+denied.Decision.Approval) {
			t.Fatalf("got %v", err)
		}
	}
	first := denied.Decision.Approval
	w.approvals.deaf = true
	if err := add("x"); !errors.As(err, &denied) || denied.Decision.Approval != first {
		t.Errorf("asked at the same time as at another replica: %v, want approval %s", err, first)
	}
	w.approvals.deaf = false
	if len(w.approvals.all) != 1 || len(w.store.added) != 0 {
		t.Fatalf("asked %+v, added %v", w.approvals.all, w.store.added)
	}
	a := &w.approvals.all[0]
	if a.ID != denied.Decision.Approval || a.Act != "caller add" || !strings.Contains(a.Detail, `"id":"x"`) || a.Requester != "https://login.test/x "+adaID.String() || a.Lasts != 3600 {
		t.Errorf("asked %+v", a)
	}
	if _, err := c.GiveApproval(ctx, a.ID); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "yourself") {
		t.Errorf("given by who asked: %v", err)
	}
	if err := w.approvals.Decide(ctx, a.ID, mandate.ApprovalGiven, "oid:ben", "https://login.test/x ben"); err != nil {
		t.Fatal(err)
	}
	if err := add("y"); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("something else: %v", err)
	}
	w.approvals.all[0].Expires = time.Now()
	if err := add("x"); !errors.Is(err, mandate.ErrDenied) || len(w.store.added) != 0 {
		t.Errorf("when the yes is over: %v", err)
	}
	w.approvals.all[0].Expires = time.Now().Add(time.Hour)
	w.log.err = mandate.ErrUnavailable
	if err := add("x"); !errors.Is(err, mandate.ErrUnavailable) || len(w.store.added) != 0 || w.approvals.all[0].ID != denied.Decision.Approval && len(w.approvals.all) != 2 {
		t.Errorf("without a record: %v", err)
	}
	w.log.err = nil
	if err := add("x"); err != nil || len(w.store.added) != 1 {
		t.Errorf("with the yes: %v, added %v", err, w.store.added)
	}
	if err := add("x"); !errors.Is(err, mandate.ErrDenied) || len(w.store.added) != 1 {
		t.Errorf("a second time: %v, added %v", err, w.store.added)
	}
	// What needs none, and what makes things tighter, goes on.
	if _, err := c.RotateCaller(ctx, "billing", RotateCallerRequest{}); err != nil {
		t.Errorf("another act: %v", err)
	}
	if err := c.RemoveCaller(ctx, "billing"); err != nil {
		t.Errorf("tightening: %v", err)
	}
	// The glass is at the socket: over the network there is none to break.
	if _, err := c.BreakGlass("fire").AddCaller(ctx, "w"); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("with the glass broken over the network: %v", err)
	}
	// With the glass broken nobody is waited for, and everybody knows.
	if _, err := w.operator.BreakGlass("fire").AddCaller(ctx, "z"); err != nil || len(w.store.added) != 2 {
		t.Errorf("with the glass broken: %v", err)
	}
	w.approvals.full = true
	if err := add("more"); !errors.Is(err, mandate.ErrRateLimited) {
		t.Errorf("when too much is asked: %v", err)
	}
	if records := fmt.Sprintf("%s", w.log.lines); !strings.Contains(records, "use approval "+denied.Decision.Approval+", given by oid:ben, for caller add") || !strings.Contains(records, "break glass") {
		t.Errorf("records: %s", records)
	}
}

// What a second person is shown has no secret, and what was sent is all in the
// digest.
func TestApprovalShowsNoSecret(t *testing.T) {
	const long = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	act := &policy.Act{Caller: "uid:1", Name: "grant import"}
	seen := map[string]bool{}
	for _, body := range []string{
		`{"refresh_token":"` + canary + `","term":1}`, `{"refresh_token":"` + canary + `","term":2}`, `{"refresh_token":"other","term":2}`,
		`{"a":[{"user_token":"` + canary + `"}]}`, `{"keys":"` + long + canary + `"}`, `not JSON ` + canary,
	} {
		r := httptest.NewRequest("POST", "/v1/grants/contoso/import", strings.NewReader(body))
		asked, err := asking(httptest.NewRecorder(), r, act)
		if err != nil || strings.Contains(asked.Detail, canary) || seen[asked.Content] || len(asked.Detail) > 3000 {
			t.Errorf("%.60s: got %+v, %v", body, asked, err)
		}
		seen[asked.Content] = true
		again := make([]byte, len(body))
		if n, _ := r.Body.Read(again); string(again[:n]) != body {
			t.Errorf("%.60s: the body is not there any more", body)
		}
	}
	r := httptest.NewRequest("POST", "/v1/grants/fabrikam/import", strings.NewReader(`{"refresh_token":"`+canary+`","term":1}`))
	if asked, err := asking(httptest.NewRecorder(), r, act); err != nil || seen[asked.Content] {
		t.Errorf("another path: %+v, %v", asked, err)
	}
	files := policy.Source{{Name: "p.cedar", Text: "x"}}
	if got := summary("policy apply", must(json.Marshal(ApplyRequest{Files: files, After: 7}))); got != "version "+files.Version()+" in the place of number 7" {
		t.Errorf("a policy: %s", got)
	}
}

// fakeRules forbid an act.
type fakeRules struct{ forbids string }

func (f fakeRules) Administer(a *policy.Act) mandate.Decision {
	if a.Name == f.forbids {
		return mandate.Decision{Rule: "no", Reason: fmt.Sprintf("forbidden of %s with %v from %q about %q, loosens %v", a.Caller, a.Roles, a.Address, a.Partner, a.Loosens)}
	}
	return mandate.Decision{Allowed: true, Shadow: []string{"trial"}}
}

// A rule narrows what roles allow, but for what makes things tighter, what only
// looks, and who breaks the glass.
func TestPolicyOfOperators(t *testing.T) {
	f := &fakeSignIns{roles: []string{RoleSecurity}, at: time.Now()}
	rules := &fakeRules{"grant resume"}
	w := newWorld(t, func(c *Config) { c.SignIns, c.Rules = f, rules })
	c := must(NewOpenClient(w.tls.URL, w.tls.Client())).WithSession(mandate.NewSecret("mds_good"))
	ctx := t.Context()
	resume := func(c *Client) error { _, err := c.Act(ctx, contosoID.String(), "resume", ActRequest{}); return err }
	err := resume(c)
	if !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), `[security] from "127.0.0.1" about "contoso", loosens true`) {
		t.Errorf("got %v", err)
	}
	var rec mandate.Record
	if err := json.Unmarshal(w.log.lines[len(w.log.lines)-1], &rec); err != nil || rec.Kind != mandate.KindDenied || rec.Rule != "no" || rec.Caller != mandate.CallerID("oid:"+adaID.String()) || rec.Address == "" {
		t.Errorf("recorded %+v, %v", rec, err)
	}
	if _, err := c.Act(ctx, "contoso", "suspend", ActRequest{}); err != nil {
		t.Errorf("tightening: %v", err)
	}
	if _, err := c.Act(ctx, "contoso", "rollback", ActRequest{}); err != nil || !strings.Contains(w.logged.String(), "shadow mode") {
		t.Errorf("another act: %v", err)
	}
	if err := resume(w.operator.BreakGlass("fire")); err != nil {
		t.Errorf("with the glass broken: %v", err)
	}
	// Without people who sign in, host accounts are narrowed all the same.
	w.server.cfg.SignIns = nil
	if err := resume(w.operator); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "--break-glass") {
		t.Errorf("at the socket: %v", err)
	}
	if err := resume(w.operator.BreakGlass("fire")); err != nil {
		t.Errorf("at the socket, with the glass broken: %v", err)
	}
	rules.forbids = "partner invite"
	if _, err := w.operator.Invite(ctx, goodInvite); !errors.Is(err, mandate.ErrDenied) || !strings.Contains(err.Error(), "loosens false") {
		t.Errorf("what makes nothing looser: %v", err)
	}
}
