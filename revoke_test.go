package mandate

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
)

// revoking is [Revocations] of one.
type revoking struct {
	one atomic.Pointer[Revocation]
	err error
}

func (r *revoking) Revoked(q *Request) (*Revocation, error) {
	one := r.one.Load()
	if r.err != nil || one == nil || !one.Reach.Covers(q) {
		return nil, r.err
	}
	return one, nil
}

// What is revoked is denied before policy is asked, and though the token is in
// the cache; the denial names the revocation and how it is lifted, and is
// recorded.
func TestRevocationDenies(t *testing.T) {
	w := newWorld(t)
	revocations := new(revoking)
	w.cfg.Revocations = revocations
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	revocations.one.Store(&Revocation{ID: "abc", Reason: "a drill", By: "uid:7", Reach: Reach{Caller: ask().Caller}})
	before := len(w.audit.kinds())
	_, err := w.Token(t.Context(), ask())
	for _, want := range []string{"abc", "a drill", "uid:7", "mandate revoke lift abc", "caller " + string(ask().Caller)} {
		if err == nil || !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if got := w.audit.kinds()[before:]; len(got) != 1 || got[0] != KindDenied {
		t.Errorf("recorded %v", got)
	}
	revocations.one.Store(nil)
	w.vault.epoch.n.Add(1)
	if tok, err := w.Token(t.Context(), ask()); err != nil || tok.Epoch == 0 {
		t.Errorf("lifted: %v, epoch %d", err, tok.Epoch)
	}
	revocations.err = ErrUnavailable
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("where it is not known: %v", err)
	}
}

// A reach covers what fits all of its fields, and a field that is not said fits
// everything.
func TestReachCovers(t *testing.T) {
	q := ask()
	other := q.Partner.Key
	other.Cloud = "other"
	for _, tt := range []struct {
		reach Reach
		want  bool
	}{
		{Reach{}, true},
		{Reach{Partner: q.Partner.Key}, true}, {Reach{Partner: other}, false},
		{Reach{Customer: q.Tenant}, true}, {Reach{Customer: litware}, false},
		{Reach{Caller: q.Caller}, true}, {Reach{Caller: "other"}, false},
		{Reach{Audience: q.Audience}, true}, {Reach{Audience: "https://other.example"}, false},
		{Reach{q.Partner.Key, q.Tenant, q.Caller, q.Audience}, true},
		{Reach{other, q.Tenant, q.Caller, q.Audience}, false}, {Reach{q.Partner.Key, litware, q.Caller, q.Audience}, false},
		{Reach{q.Partner.Key, q.Tenant, "other", q.Audience}, false}, {Reach{q.Partner.Key, q.Tenant, q.Caller, "https://other.example"}, false},
	} {
		if got := tt.reach.Covers(&q); got != tt.want {
			t.Errorf("%+v: covered: %t", tt.reach, got)
		}
	}
}

// A call to Partner Center about a customer is made in the partner's tenant, and
// is covered by what covers that customer, however the path writes the ID.
func TestReachCoversCallsAboutACustomer(t *testing.T) {
	const id = "4a4b4c4d-4444-4444-8444-44444444abcd"
	customer, err := ParseTenantID(id)
	if err != nil {
		t.Fatal(err)
	}
	reach := Reach{Customer: customer}
	for path, want := range map[string]bool{
		"/v1/customers/" + id:                                true,
		"/v1/customers/" + id + "/users":                     true,
		"/V1/Customers/" + strings.ToUpper(id):               true,
		"/v1/customers/" + strings.ReplaceAll(id, "-", ""):   true,
		"/v1/customers/%7B" + id + "%7D/users":               true,
		"/v1.0/directory/customers('" + id + "')":            true,
		"/v1/customers":                                      false,
		"/v1/customers/" + adatum.String() + "/users":        false,
		"/v1/customers/" + id[:len(id)-1] + "/subscriptions": false,
	} {
		q := ask(func(r *Request) { r.Use, r.Method, r.Path = UseCall, "GET", path })
		if got := reach.Covers(&q); got != want {
			t.Errorf("%s: covered: %t", path, got)
		}
	}
	q := ask(func(r *Request) { r.Path = "/v1/customers/" + id })
	if reach.Covers(&q) {
		t.Error("a token has no path, and is covered by one")
	}
}
