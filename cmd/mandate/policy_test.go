package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/policy"
)

// somePolicies is a policy in force that never changes.
type somePolicies struct{}

func (somePolicies) Status(context.Context) (api.PolicyStatus, error) {
	return api.PolicyStatus{
		Number: 3, Latest: 3, Version: "v3", Rules: 1, By: "uid:7", Configured: "/etc/policy", Differs: "version v9",
		Files: []policy.File{{Name: "a.cedar", Text: "// nothing\n"}}, Earlier: []api.PolicyVersion{{Number: 2, Version: "v2"}},
	}, nil
}

func (somePolicies) Dry(_ context.Context, _ policy.Source, since time.Time) (api.PolicyDiff, error) {
	d := api.PolicyDiff{InForce: 3, Latest: 3, Version: "v4", Rules: []policy.RuleChange{{Change: "added", Rule: "a", Effect: "permit", File: "a.cedar", Line: 1}}, Effects: []policy.Effect{}}
	if !since.IsZero() {
		d.Requests = 12
		d.Effects = []policy.Effect{{Caller: "billing", Use: "token", Partner: "contoso", Purpose: "invoice", Before: "allow by rule a", After: "deny: no rule", Count: 7}}
	}
	return d, nil
}

func (somePolicies) Apply(context.Context, policy.Source, int64, mandate.By) (int64, error) {
	return 4, nil
}

func (somePolicies) Explain(context.Context, api.ExplainRequest) (api.PolicyExplanation, error) {
	return api.PolicyExplanation{Explanation: policy.Explanation{
		Reason: "no rule allows it", Policy: "v3",
		Rules: []policy.View{{Rule: "a", Effect: "permit", File: "a.cedar", Line: 1, Missing: []string{`context.purpose == Purpose::"invoice"`}}},
	}}, nil
}

// That nothing is in force is told with its reason, and what to do.
func TestPolicyShowBroken(t *testing.T) {
	for _, tt := range []struct {
		st   api.PolicyStatus
		want []string
	}{
		{api.PolicyStatus{}, []string{"no policy is in force: everything is denied"}},
		{api.PolicyStatus{Latest: 4, Broken: "a.cedar:1: no @id"}, []string{"none is in force: everything is denied", "number 4, which cannot be used; apply another: a.cedar:1: no @id", "are what was applied last"}},
		{api.PolicyStatus{Number: 3, Version: "v3", Latest: 4, Broken: "x", Differs: "version v9"}, []string{"v3", "number 4, which cannot be used", "are not what was applied last (version v9)"}},
	} {
		var out strings.Builder
		if err := (&cli{stdio: stdio{out: &out}}).printPolicy(tt.st, false); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%+v: %q is not in %s", tt.st, want, out.String())
			}
		}
	}
}
