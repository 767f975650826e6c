package mandate

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A dead grant costs Entra one call in each interval, however often it is asked
// for, and the interval grows.
func TestBackoffDeadGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainGrant, Codes: []int{50173}, CorrelationID: "ms-1"} }
		for range 3600 {
			_, err := w.Token(t.Context(), ask())
			var f *Fault
			if !errors.As(err, &f) || f.CorrelationID != "ms-1" || f.Code() != 50173 {
				t.Fatalf("got %v", err)
			}
			time.Sleep(time.Second)
		}
		// 5, 10, 20, … 300 seconds, a tenth longer at most.
		if n := w.entra.calls.Load(); n < 14 || n > 18 {
			t.Errorf("%d calls in an hour", n)
		}
		w.entra.hook = nil
		time.Sleep(6 * time.Minute)
		if _, err := w.Token(t.Context(), ask()); err != nil {
			t.Errorf("when the grant is well again: %v", err)
		}
		if len(w.backoffs.all) != 0 {
			t.Errorf("after a success %d pauses are remembered", len(w.backoffs.all))
		}
	})
}

// What fails in one domain stops nothing outside it.
func TestBackoffDomains(t *testing.T) {
	here := ask()
	customer := ask(func(r *Request) { r.Tenant = adatum })
	otherCustomer := ask(func(r *Request) { r.Tenant = litware })
	otherAudience := ask(func(r *Request) { r.Audience = graph })
	customerGraph := ask(func(r *Request) { r.Tenant, r.Audience = adatum, graph })
	challenge := ask(func(r *Request) { r.Claims = `{"access_token":{"nbf":{"essential":true,"value":"1"}}}` })
	named := ask(func(r *Request) { r.Scopes = []Scope{"Made.Up"} })
	namedGraph := ask(func(r *Request) { r.Scopes, r.Audience = []Scope{"Made.Up"}, graph })
	namedOther := ask(func(r *Request) { r.Scopes = []Scope{"User.Read"} })
	namedCustomer := ask(func(r *Request) { r.Scopes, r.Tenant = []Scope{"Made.Up"}, adatum })
	for _, tt := range []struct {
		name    string
		fault   Fault
		failing Request
		blocked []Request
		open    []Request
	}{
		{"application", Fault{Domain: DomainApplication, Codes: []int{7000222}}, here,
			[]Request{here, customer, otherCustomer, otherAudience, challenge}, nil},
		{"grant", Fault{Domain: DomainGrant, Codes: []int{50173}}, here,
			[]Request{here, customer, otherCustomer, otherAudience}, []Request{challenge}},
		{"a sign-in for one API", Fault{Domain: DomainGrant, Codes: []int{50076}}, here,
			[]Request{here, customer}, []Request{otherAudience, customerGraph}},
		{"conditional access to one API", Fault{Domain: DomainGrant, Codes: []int{53003}}, here,
			[]Request{here}, []Request{otherAudience}},
		{"customer", Fault{Domain: DomainCustomer, Codes: []int{65001}}, customer,
			[]Request{customer}, []Request{here, otherCustomer, otherAudience, customerGraph}},
		{"audience", Fault{Domain: DomainAudience, Codes: []int{65001}}, otherAudience,
			[]Request{otherAudience}, []Request{here, customer, customerGraph}},
		{"busy tenant", Fault{Domain: DomainTransient, Status: 503}, customer,
			[]Request{customer, customerGraph}, []Request{here, otherCustomer}},
		{"a caller's own challenge", Fault{Domain: DomainGrant, Codes: []int{50076}}, challenge,
			nil, []Request{here, customer, challenge}},
		{"a scope of a caller's own", Fault{Domain: DomainAudience, Codes: []int{70011}}, named,
			[]Request{named}, []Request{here, namedOther, namedGraph, namedCustomer}},
		{"a scope of a caller's own in a customer's tenant", Fault{Domain: DomainCustomer, Codes: []int{65001}}, namedCustomer,
			[]Request{namedCustomer}, []Request{customer, named}},
		{"what is said to be the grant's, to a scope of a caller's own", Fault{Domain: DomainGrant, OAuthError: "invalid_request"}, named,
			[]Request{named, namedGraph}, []Request{here, customer, namedOther}},
		{"the grant, whatever scopes are named", Fault{Domain: DomainGrant, Codes: []int{50173}}, here,
			[]Request{here, named, namedOther}, nil},
		{"the grant is dead, though scopes were named", Fault{Domain: DomainGrant, Codes: []int{50173}}, named,
			[]Request{here, named, namedOther, namedGraph, customer}, nil},
		{"a sign-in for one API, though scopes were named", Fault{Domain: DomainGrant, Codes: []int{50076}}, named,
			[]Request{here, named, namedOther}, []Request{namedGraph, otherAudience}},
		{"a customer's policy, though scopes were named", Fault{Domain: DomainCustomer, Codes: []int{53003}}, namedCustomer,
			[]Request{customer, namedCustomer}, []Request{here, named}},
		{"no consent in a customer's tenant, though scopes were named", Fault{Domain: DomainCustomer, Codes: []int{700016}}, namedCustomer,
			[]Request{customer, namedCustomer}, []Request{here, named}},
		{"the application, whatever scopes are named", Fault{Domain: DomainApplication, Codes: []int{7000222}}, named,
			[]Request{here, named}, nil},
		{"a busy tenant, whatever scopes are named", Fault{Domain: DomainTransient, Status: 503}, named,
			[]Request{here, named}, []Request{customer}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.entra.hook = func(Redemption) error { return &tt.fault }
			if _, err := w.Token(t.Context(), tt.failing); !errors.Is(err, ErrUpstream) {
				t.Fatalf("got %v", err)
			}
			w.entra.hook = nil
			before := w.entra.calls.Load()
			for _, r := range tt.blocked {
				if _, err := w.Token(t.Context(), r); !errors.Is(err, ErrUpstream) || w.entra.calls.Load() != before {
					t.Errorf("%v %s was tried: %v", r.Tenant, r.Audience, err)
				}
			}
			for _, r := range tt.open {
				if _, err := w.Token(t.Context(), r); err != nil {
					t.Errorf("%v %s was not: %v", r.Tenant, r.Audience, err)
				}
			}
		})
	}
}

// A fault of a generation that was replaced says nothing of the next.
func TestBackoffNewGeneration(t *testing.T) {
	w := newPartnerWorld(t)
	if _, _, err := w.Consent(t.Context(), consent()); err != nil {
		t.Fatal(err)
	}
	w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainGrant, Codes: []int{50173}} }
	w.Token(t.Context(), ask())
	w.entra.hook = nil
	if _, _, err := w.Consent(t.Context(), consent()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Errorf("with the new generation: %v", err)
	}
}

// What Entra asks to wait is waited, and told to those who ask meanwhile.
func TestBackoffRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(Redemption) error {
			return &Fault{Domain: DomainTransient, Status: 429, RetryAfter: 90 * time.Second}
		}
		w.Token(t.Context(), ask())
		w.entra.hook = nil
		time.Sleep(30 * time.Second)
		_, err := w.Token(t.Context(), ask())
		var f *Fault
		if !errors.As(err, &f) || f.RetryAfter < 59*time.Second || f.RetryAfter > 70*time.Second {
			t.Errorf("after 30 s: %+v", f)
		}
		time.Sleep(70 * time.Second)
		if _, err := w.Token(t.Context(), ask()); err != nil {
			t.Errorf("after 100 s: %v", err)
		}
	})
}

// When a pause is over one request tries, and those behind it do not.
func TestBackoffOneTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainApplication, Codes: []int{7000222}} }
		w.Token(t.Context(), ask())
		time.Sleep(time.Minute)
		w.entra.delay = time.Second
		for _, tenant := range []TenantID{contoso, adatum, litware} {
			go w.Token(t.Context(), ask(func(r *Request) { r.Tenant = tenant }))
		}
		time.Sleep(2 * time.Second)
		if n := w.entra.calls.Load(); n != 2 {
			t.Errorf("%d calls, want the first and one trial", n)
		}
	})
}

// A failure of ours is nobody's fault, and closes nothing.
func TestBackoffOwnFailure(t *testing.T) {
	w := newWorld(t)
	w.vault.onOpen = func() error { return ErrUnavailable }
	w.Token(t.Context(), ask())
	w.vault.onOpen = nil
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Error(err)
	}
}

func TestBackoffForgets(t *testing.T) {
	var b backoffs
	f := &flight{redemption: Redemption{Key: testKey, Tenant: contoso, Audience: pc}}
	now := time.Now()
	b.settle(f, &Fault{Domain: DomainGrant}, false, now)
	b.sweep(now.Add(time.Minute))
	if len(b.all) != 1 {
		t.Error("forgotten too early: the next failure would begin anew")
	}
	b.sweep(now.Add(2 * time.Hour))
	if len(b.all) != 0 {
		t.Error("never forgotten")
	}
}

// However often a customer has failed, it is asked again, and served as soon as
// its tenant lets us in: no counter hides it.
func TestTrap15CountersHideNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		customer := ask(func(r *Request) { r.Tenant = adatum })
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainCustomer, Codes: []int{65001}} }
		for range 5000 {
			if _, err := w.Token(t.Context(), customer); !errors.Is(err, ErrUpstream) {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if n := w.entra.calls.Load(); n < 400 {
			t.Errorf("asked %d times in 5000 minutes", n)
		}
		w.entra.hook = nil
		time.Sleep(11 * time.Minute)
		if _, err := w.Token(t.Context(), customer); err != nil {
			t.Errorf("when the customer consented: %v", err)
		}
	})
}

// A token that an API has refused is not handed out again to who says so, and
// saying so costs from the budget.
func TestTokenRefused(t *testing.T) {
	w := newWorld(t)
	first, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	again := ask(func(r *Request) { r.Refused = first.Fingerprint })
	second, err := w.Token(t.Context(), again)
	if err != nil || second.Access.Reveal() == first.Access.Reveal() {
		t.Fatalf("got the refused token, %v", err)
	}
	third, err := w.Token(t.Context(), again)
	if err != nil || third.Access.Reveal() != second.Access.Reveal() || w.entra.calls.Load() != 2 {
		t.Errorf("the newer token would have done: %v, %d calls", err, w.entra.calls.Load())
	}
	for range challengeBudget + 2 {
		var tok Token
		if tok, err = w.Token(t.Context(), again); err != nil {
			break
		}
		again.Refused = tok.Fingerprint
	}
	if !errors.Is(err, ErrRateLimited) {
		t.Errorf("without end: %v", err)
	}
}
