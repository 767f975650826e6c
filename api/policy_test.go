package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/policy"
)

// fakePolicies is one policy that is always in force.
type fakePolicies struct {
	err     error
	applied []int64 // the numbers that were to be replaced
	by      mandate.By
}

func (f *fakePolicies) Status(context.Context) (PolicyStatus, error) {
	return PolicyStatus{Number: 3, Version: "v3", Rules: 1, Files: []policy.File{{Name: "a.cedar", Text: "x"}}, Earlier: []PolicyVersion{{Number: 2, Version: "v2", By: "uid:1"}}}, f.err
}

func (f *fakePolicies) Dry(_ context.Context, files policy.Source, since time.Time) (PolicyDiff, error) {
	if len(files) == 0 {
		return PolicyDiff{}, mandate.Invalid("files", "are none")
	}
	d := PolicyDiff{InForce: 3, Latest: 3, Version: "v4", Rules: []policy.RuleChange{{Change: "added", Rule: "r", Effect: "permit", File: "a.cedar", Line: 1}}, Effects: []policy.Effect{}}
	if !since.IsZero() {
		d.Requests, d.Effects = 1, []policy.Effect{{Caller: "billing", Use: mandate.UseToken, Count: 1}}
	}
	return d, f.err
}

func (f *fakePolicies) Apply(_ context.Context, _ policy.Source, after int64, by mandate.By) (int64, error) {
	f.applied, f.by = append(f.applied, after), by
	if after != 3 {
		return 0, fmt.Errorf("%w: another is in force", mandate.ErrExists)
	}
	return 4, f.err
}

func (f *fakePolicies) Explain(_ context.Context, in ExplainRequest) (PolicyExplanation, error) {
	if in.Index != nil && *in.Index > 9 {
		return PolicyExplanation{}, mandate.ErrNotFound
	}
	return PolicyExplanation{Explanation: policy.Explanation{Reason: "no rule allows it", Policy: "v3", Rules: []policy.View{{Rule: "r", Effect: "permit", Missing: []string{"x"}}}}}, f.err
}

// policyScenes are those of TestOpenAPIAnswers.
func policyScenes() []scene {
	const files = `"files":[{"name":"a.cedar","text":"x"}]`
	down := func(w *world) { w.policies.err = mandate.ErrUnavailable }
	return []scene{
		{op: "GET /v1/policy", status: "200"},
		{op: "GET /v1/policy", status: "503", damage: down},
		{op: "POST /v1/policy", status: "200", body: `{` + files + `,"after":3}`},
		{op: "POST /v1/policy", status: "400", body: `{"files":[],"after":3}`},
		{op: "POST /v1/policy", status: "400", body: `{` + files + `,"after":3,"ticket":"<b>"}`},
		{op: "POST /v1/policy", status: "409", body: `{` + files + `,"after":2}`},
		{op: "POST /v1/policy", status: "503", body: `{` + files + `,"after":3}`, damage: down},
		{op: "POST /v1/policy/diff", status: "200", body: `{` + files + `,"days":30}`},
		{op: "POST /v1/policy/diff", status: "400", body: `{` + files + `,"days":-1}`},
		{op: "POST /v1/policy/diff", status: "503", body: `{` + files + `}`, damage: down},
		{op: "POST /v1/policy/explain", status: "200", body: `{"index":9}`},
		{op: "POST /v1/policy/explain", status: "200", body: `{"request":{"caller":"a","partner":"b","audience":"graph","purpose":"c"}}`},
		{op: "POST /v1/policy/explain", status: "400", body: `{}`},
		{op: "POST /v1/policy/explain", status: "400", body: `{"index":1,"request":{"caller":"a","partner":"b","audience":"graph","purpose":"c"}}`},
		{op: "POST /v1/policy/explain", status: "404", body: `{"index":10}`},
		{op: "POST /v1/policy/explain", status: "503", body: `{"index":1}`, damage: down},
	}
}

func TestPolicyApplyCarriesWhoAndWhat(t *testing.T) {
	w := newWorld(t)
	in := ApplyRequest{Files: []policy.File{{Name: "a.cedar", Text: strings.Repeat("x", 100<<10)}}, After: 3, Ticket: "CHG-1"}
	if out, err := w.operator.ApplyPolicy(t.Context(), in); err != nil || out.Number != 4 || out.Replaced != 3 || out.Version != "v4" || len(out.Rules) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	if p := w.policies; len(p.applied) != 1 || p.applied[0] != 3 || p.by.Ticket != "CHG-1" || !strings.HasPrefix(string(p.by.Caller), "uid:") {
		t.Errorf("got %+v", p)
	}
	if _, err := w.operator.Policy(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.operator.DiffPolicy(t.Context(), DiffRequest{Files: in.Files}); err != nil {
		t.Error(err)
	}
	if _, err := w.operator.ExplainPolicy(t.Context(), ExplainRequest{Index: new(int64)}); err != nil {
		t.Error(err)
	}
}
