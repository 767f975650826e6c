package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

func tenant(s string) mandate.TenantID {
	id, err := mandate.ParseTenantID(s + "-0000-0000-0000-000000000001")
	if err != nil {
		panic(err)
	}
	return id
}

func source() Source {
	key := func(s string) mandate.GrantKey { return mandate.GrantKey{Cloud: "test", Partner: tenant(s)} }
	at := time.UnixMilli(1_800_000_000_500)
	return Source{
		Stats: func() mandate.Stats {
			return mandate.Stats{
				Tokens: map[string]int64{"issued": 7, "denied": 2}, Hits: 5, KeepAlive: map[string]int64{"ok": 3}, Customers: map[string]int64{"failed": 6},
				Upstream: map[mandate.Call]int64{{What: "redeem", Outcome: "customer"}: 4}, Pauses: map[mandate.Domain]int{mandate.DomainCustomer: 1},
			}
		},
		Grants: func(context.Context, mandate.TenantID) ([]mandate.Grant, error) {
			return []mandate.Grant{
				{Key: key("11111111"), Generation: 3, State: mandate.StateCandidate, Fallback: at, Refresh: mandate.NewSecret("CANARY")},
				{Key: key("11111111"), Generation: 2, State: mandate.StateActive, Until: at, Redeemed: at, Failures: 2, Refresh: mandate.NewSecret("CANARY"), UserName: "CANARY"},
				{Key: key("11111111"), Generation: 1, State: mandate.StateReplaced},
				{Key: key("22222222"), Generation: 1, State: mandate.StateSuspended, Until: at},
				{Key: key("33333333"), Generation: 1, State: mandate.StateActive, Until: at},
			}, nil
		},
		Partners: func() ([]mandate.Partner, error) {
			return []mandate.Partner{{Name: "contoso", Key: key("11111111")}, {Name: "fabrikam", Key: key("22222222")}}, nil
		},
		Customers: func(context.Context) (map[mandate.GrantKey]mandate.CustomerStanding, error) {
			return map[mandate.GrantKey]mandate.CustomerStanding{key("11111111"): {Count: 12, AsOf: at, Failures: 3}, key("22222222"): {}, key("33333333"): {Count: 1}}, nil
		},
		Records: func() int64 { return 42 }, Ready: func(context.Context) error { return nil }, Policy: func() (int64, bool) { return 3, true }, Window: time.Hour,
		Notices: func(context.Context) (int64, int64, time.Time, error) { return 8, 9, at, nil },
		Log:     slog.New(slog.DiscardHandler),
	}
}

func scrape(t *testing.T, s Source) string {
	t.Helper()
	h, err := Handler(s)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, _ := io.ReadAll(w.Body)
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v: %s", w.Code, w.Header(), body)
	}
	return string(body)
}

func TestMetrics(t *testing.T) {
	text := scrape(t, source())
	for _, want := range []string{
		"mandate_ready 1", "mandate_policy_number 3", "mandate_policy_broken 1", "mandate_audit_records 42", `mandate_token_requests_total{outcome="denied"} 2`, `mandate_token_requests_total{outcome="issued"} 7`,
		"mandate_token_cache_hits_total 5", `mandate_upstream_calls_total{call="redeem",outcome="customer"} 4`, `mandate_keep_alives_total{outcome="ok"} 3`,
		`mandate_pauses_open{domain="customer"} 1`, `mandate_grants{state="active"} 2`, `mandate_grants{state="suspended"} 1`, `mandate_grants{state="withdrawn"} 0`,
		`mandate_grant_end_timestamp_seconds{partner="contoso"} 1.8000000005e+09`, `mandate_grant_lapse_timestamp_seconds{partner="contoso"} 1.8000036005e+09`,
		`mandate_grant_keep_alive_failures{partner="contoso"} 2`, `mandate_grant_candidate_timestamp_seconds{partner="contoso"} 1.8000000005e+09`,
		`mandate_grant_end_timestamp_seconds{partner="fabrikam"}`, "mandate_grants_read 1", "go_goroutines",
		`mandate_customers{partner="contoso"} 12`, `mandate_customers_as_of_timestamp_seconds{partner="contoso"} 1.8000000005e+09`, `mandate_customers_refresh_failures{partner="contoso"} 3`,
		`mandate_customers_as_of_timestamp_seconds{partner="fabrikam"} 0`, `mandate_notice_deliveries{state="waiting"} 8`, `mandate_notice_deliveries{state="failed"} 9`, "mandate_notice_oldest_waiting_timestamp_seconds 1.8000000005e+09",
		`mandate_customer_refreshes_total{outcome="failed"} 6`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(text, "CANARY") {
		t.Error("a secret is in the metrics")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// A database that is down shows as that, and not as partners that are gone.
func TestMetricsWithoutDatabase(t *testing.T) {
	for _, damage := range []func(*Source){
		func(s *Source) {
			s.Grants = func(context.Context, mandate.TenantID) ([]mandate.Grant, error) { return nil, mandate.ErrUnavailable }
		},
		func(s *Source) {
			s.Customers = func(context.Context) (map[mandate.GrantKey]mandate.CustomerStanding, error) {
				return nil, mandate.ErrUnavailable
			}
		},
		func(s *Source) { s.Partners = func() ([]mandate.Partner, error) { return nil, errors.New("x") } },
	} {
		s := source()
		s.Ready = func(context.Context) error { return errors.New("the database is down") }
		damage(&s)
		text := scrape(t, s)
		for want, there := range map[string]bool{"mandate_ready 0": true, "mandate_grants_read 0": true, "mandate_token_cache_hits_total 5": true, "mandate_grants{": false, "partner=": false} {
			if strings.Contains(text, want) != there {
				t.Errorf("%s is there: %v", want, !there)
			}
		}
	}
}
