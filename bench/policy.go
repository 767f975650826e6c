package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/policy"
)

// policyCase is one decision by a thousand rules, beside Cedar alone on the
// same rules and with the same context.
var policyCase = benchCase{rows: []string{"policy/decision", "policy/denial"}, run: runPolicy}

// policyRules is how many rules there are, of 20 callers for 25 partners.
const policyRules = 1000

func runPolicy(ctx context.Context, e *env) ([]row, error) {
	text := policyText()
	set, err := policy.Compile(policy.Source{{Name: "policy.cedar", Text: text}}, []mandate.Cloud{global})
	if err != nil {
		return nil, err
	}
	alone, err := cedarAlone(text)
	if err != nil {
		return nil, err
	}
	slices, rounds := choose(e, 101, 31), choose(e, 21, 7)
	// The median of slices of a fraction of a millisecond: a decision is so
	// short that most of the mean is what else the machine does.
	timed := func(n int, do func() bool, want bool) contender {
		return func(context.Context) (float64, error) {
			each := make([]float64, slices)
			for i := range each {
				start := time.Now()
				for range n {
					if do() != want {
						return 0, fmt.Errorf("decided otherwise than %v", want)
					}
				}
				each[i] = float64(time.Since(start).Nanoseconds()) / float64(n) / 1e3
			}
			return median(each), nil
		}
	}
	yes, no := policyRequest("sync"), policyRequest("other")
	v, err := e.interleave(ctx, "policy/decision", rounds,
		timed(20, func() bool { return set.Decide(yes).Allowed }, true),
		timed(2, alone, true),
		timed(4, func() bool { return set.Decide(no).Allowed }, false))
	if err != nil {
		return nil, err
	}
	return []row{
		compare("policy/decision", "us", v[0], v[1]).judge(&target{"value", "<=", 10}, "the index finds too many rules, or the context is too large"),
		compare("policy/denial", "us", v[2], v[1]).report(),
	}, nil
}

func policyText() string {
	var b strings.Builder
	for i := range policyRules {
		fmt.Fprintf(&b, `@id("rule-%d") @until("2099-01-01") @scopes("consented")
permit (principal == Caller::"caller-%d", action, resource in Partner::"partner-%d")
when { context.audience == Audience::"graph" && context.purpose in [Purpose::"p%d", Purpose::"sync"] && context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
`, i, i%20, i/20%25, i%7)
	}
	return b.String()
}

func policyRequest(purpose string) *mandate.Request {
	r := &mandate.Request{
		Caller: "caller-7", Use: mandate.UseToken, Partner: partnerN(9), Tenant: partnerN(10).Key.Partner, Audience: global.Audiences[mandate.Graph].Resource,
		Purpose: purpose, Address: netip.MustParseAddr("10.1.2.3"),
	}
	r.Partner.Name = "partner-9"
	return r
}

// cedarAlone returns the same decision by Cedar, which looks at every rule.
func cedarAlone(text string) (func() bool, error) {
	set, err := cedar.NewPolicySetFromBytes("policy.cedar", []byte(text))
	if err != nil {
		return nil, err
	}
	partner, customer := types.NewEntityUID("Partner", "partner-9"), types.NewEntityUID("Customer", "c")
	entities := types.EntityMap{customer: {UID: customer, Parents: types.NewEntityUIDSet(partner)}}
	return func() bool {
		d, _ := cedar.Authorize(set, entities, cedar.Request{
			Principal: types.NewEntityUID("Caller", "caller-7"), Action: types.NewEntityUID("Action", "token"), Resource: customer,
			Context: types.NewRecord(types.RecordMap{
				"audience": types.NewEntityUID("Audience", "graph"), "purpose": types.NewEntityUID("Purpose", "sync"), "ip": types.IPAddr(netip.MustParsePrefix("10.1.2.3/32")),
			}),
		})
		return d == cedar.Allow
	}, nil
}
