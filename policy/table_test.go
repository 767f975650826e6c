package policy

import (
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

const (
	contoso = "ffffffff-ffff-4fff-bfff-ffffffffffff"
	adatum  = "22222222-2222-2222-2222-222222222222"
	litware = "33333333-3333-3333-3333-333333333333"
)

func clouds() []mandate.Cloud { return []mandate.Cloud{mandate.Clouds()["global"]} }

// table returns the policy of the decision table.
func table(t testing.TB) *Set {
	t.Helper()
	src, err := Read("testdata/table")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(src, clouds())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPolicyDecisionTable(t *testing.T) {
	s := table(t)
	results, err := s.Test("testdata/table/table_test.yaml", clouds())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s:\n got %s\nwant %s", r.Name, r.Got, r.Want)
		}
	}
	if len(results) < 150 {
		t.Errorf("the table has %d rows, want at least 150", len(results))
	}
}

// rows returns the requests of the decision table.
func rows(t testing.TB) []testCase {
	t.Helper()
	var f testFile
	if err := yamlfile.Read("testdata/table/table_test.yaml", &f); err != nil {
		t.Fatal(err)
	}
	for i := range f.Tests {
		f.Tests[i].Hypothetical = f.Tests[i].Hypothetical.over(f.Given)
	}
	return f.Tests
}

// Every denial names a rule or says that there is none, and every decision the
// version of the policy and a reason.
func TestPolicyDenialHasRuleOrNoRule(t *testing.T) {
	s := table(t)
	for _, row := range rows(t) {
		d, err := s.imagine(&row.Hypothetical, clouds())
		if err != nil {
			t.Fatalf("%s: %v", row.Name, err)
		}
		if d.Policy != s.Version() || d.Reason == "" || d.Allowed && d.Rule == "" && row.Act == "" || !d.Allowed && d.Rule == "" && !strings.HasPrefix(d.Reason, "no rule") {
			t.Errorf("%s: got %+v", row.Name, d)
		}
		if d.Rule != "" && s.byName[d.Rule] == nil {
			t.Errorf("%s: there is no rule %q", row.Name, d.Rule)
		}
	}
}

// What a caller is told names no network, time or other word of a rule.
func TestPolicyReasonKeepsTheRuleToItself(t *testing.T) {
	s := table(t)
	for _, row := range rows(t) {
		d, _ := s.imagine(&row.Hypothetical, clouds())
		if strings.Contains(d.Reason, "10.20.") || strings.Contains(d.Reason, "context") {
			t.Errorf("%s: got %q", row.Name, d.Reason)
		}
	}
}
