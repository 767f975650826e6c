package fault

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whatever is accepted shows, in JSON, positions that are accepted again and
// mean the same. Whatever is refused changes nothing.
func FuzzPatch(f *testing.F) {
	for _, text := range []string{
		`{"mfa_demanded":{"a":false},"token_latency":"1ns","refusals":[{"code":53003,"times":2}],"id_token":{"guest":true}}`,
		`{"throttles":[{"service":"graph","status":503}],"challenges":[{"claims":"{}"}],"service_errors":[{"code":"900309"}]}`,
		`{"key_vault":{"budgets":{"keys":0},"outage":["*"]},"sign_in":{"frequency_seconds":1},"clock_offset":"-72h"}`,
		`{"key_vault":{"budgets":null},"expired_credentials":[],"mfa_resources":null,"auth_time":"old","MFA_VERDICT":"true"}`,
		`{"refusals":[{"code":1}],"refusals":[{"code":2}],"Refusals":[{}]}`, `null`, `{} {}`, `[]`, ``,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p Panel
		p.Set(func(d *Dials) { d.Refusals = []Refusal{{Code: 50076, Tenant: "t", Claims: "{}"}}; d.AMRAbsent = true })
		before := shown(t, &p)
		if err := p.Patch(strings.NewReader(text)); err != nil {
			if after := shown(t, &p); after != before {
				t.Errorf("%q was refused (%v) and changed %s to %s", text, err, before, after)
			}
			return
		}
		after := shown(t, &p)
		var again Panel
		if err := again.Patch(strings.NewReader(after)); err != nil {
			t.Fatalf("%q led to %s, which is refused: %v", text, after, err)
		}
		if got := shown(t, &again); got != after {
			t.Errorf("%q led to %s, which leads to %s", text, after, got)
		}
	})
}

func shown(t *testing.T, p *Panel) string {
	t.Helper()
	b, err := json.Marshal(p.Dials())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A list is replaced whole, however its name is written.
func TestListsAreReplaced(t *testing.T) {
	for _, name := range []string{"refusals", "REFUSALS"} {
		var p Panel
		p.Set(func(d *Dials) { d.Refusals = []Refusal{{Code: 50076, Tenant: "t"}, {Code: 50079}} })
		if err := p.Patch(strings.NewReader(`{"` + name + `":[{"code":53003}]}`)); err != nil {
			t.Fatal(err)
		}
		if r := p.Dials().Refusals; len(r) != 1 || r[0] != (Refusal{Code: 53003}) {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}
