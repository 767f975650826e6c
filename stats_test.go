package mandate

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			if _, err := w.Token(t.Context(), ask()); err != nil {
				t.Fatal(err)
			}
		}
		w.Token(t.Context(), ask(func(r *Request) { r.Purpose = "" }))
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainCustomer} }
		w.Token(t.Context(), ask(func(r *Request) { r.Tenant = adatum }))
		w.Token(t.Context(), ask(func(r *Request) { r.Tenant = adatum }))
		w.policy.set(Decision{})
		w.Token(t.Context(), ask())
		want := Stats{
			Tokens: map[string]int64{"issued": 3, "invalid": 1, "upstream": 2, "denied": 1}, Hits: 2,
			Upstream:  map[Call]int64{{"redeem", "ok"}: 1, {"redeem", "customer"}: 1},
			KeepAlive: map[string]int64{}, Customers: map[string]int64{}, Pauses: map[Domain]int{DomainCustomer: 1},
		}
		if diff := cmp.Diff(want, w.Stats()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	})
}

func TestStatsOfConsents(t *testing.T) {
	w := newPartnerWorld(t)
	if _, _, err := w.Consent(t.Context(), consent()); err != nil {
		t.Fatal(err)
	}
	want := map[Call]int64{{"redeem_code", "ok"}: 1, {"redeem", "ok"}: 2, {"mfa_verdict", "ok"}: 1, {"agent_groups", "ok"}: 1}
	if diff := cmp.Diff(want, w.Stats().Upstream); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
