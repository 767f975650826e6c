package mandate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRegister keeps lists in memory.
type fakeRegister struct {
	epoch *fakeEpoch

	mu      sync.Mutex // guards the fields below
	all     map[GrantKey]*fakeList
	members int // how often members were read
	err     error
}

type fakeList struct {
	CustomerStanding
	tenants map[TenantID]struct{}
}

func (f *fakeRegister) of(k GrantKey) *fakeList {
	if f.all == nil {
		f.all = make(map[GrantKey]*fakeList)
	}
	if f.all[k] == nil {
		f.all[k] = &fakeList{tenants: map[TenantID]struct{}{}}
	}
	return f.all[k]
}

func (f *fakeRegister) Standing(_ context.Context, k GrantKey) (CustomerStanding, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(k).CustomerStanding, f.err
}

// standing is how the list of the test's partner stands.
func (f *fakeRegister) standing() CustomerStanding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(testKey).CustomerStanding
}

func (f *fakeRegister) Members(_ context.Context, k GrantKey) (CustomerStanding, map[TenantID]struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members++
	return f.of(k).CustomerStanding, f.of(k).tenants, f.err
}

func (f *fakeRegister) Due(_ context.Context, now time.Time, limit int) ([]CustomerDue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.of(testKey); l.Due.After(now) || limit < 1 {
		return nil, f.err
	}
	return []CustomerDue{{testKey, f.of(testKey).Attempt}}, f.err
}

func (f *fakeRegister) Claim(_ context.Context, k GrantKey, attempt int64, until time.Time) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of(k)
	if l.Attempt != attempt || l.Running(time.Now()) || f.err != nil {
		return false, f.err
	}
	l.Attempt, l.Attempted, l.Due = attempt+1, time.Now(), until
	return true, nil
}

func (f *fakeRegister) Replace(_ context.Context, k GrantKey, r CustomerRefresh) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of(k)
	if l.Attempt != r.Attempt {
		return ErrSuperseded
	}
	tenants := map[TenantID]struct{}{}
	for _, c := range r.Customers {
		tenants[c.Tenant] = struct{}{}
	}
	for t := range l.tenants {
		if _, still := tenants[t]; !still {
			f.epoch.n.Add(1)
			break
		}
	}
	l.tenants, l.Version, l.Settled, l.AsOf, l.Due = tenants, l.Version+1, r.Attempt, r.Began, r.Next
	l.Sources, l.Count, l.Failures, l.Fault = r.Sources, len(tenants), 0, ""
	return f.err
}

func (f *fakeRegister) Failed(_ context.Context, k GrantKey, attempt int64, next time.Time, fault string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.of(k); l.Attempt == attempt {
		l.Settled, l.Due, l.Failures, l.Fault = attempt, next, l.Failures+1, fault
	}
	return f.err
}

// fakeDirectory knows who has which customers, by source.
type fakeDirectory struct {
	delay time.Duration

	mu   sync.Mutex // guards the fields below
	told map[string][]Customer
	err  map[string]error
	asks map[string]int
}

func (d *fakeDirectory) Sources(GrantKey) []CustomerSource {
	return []CustomerSource{
		{Name: SourcePartnerCenter, Audience: pc, Detail: "GET /v1/customers"},
		{Name: SourceGDAP, Audience: graph, Scopes: []Scope{"DelegatedAdminRelationship.Read.All"}, Detail: "GET relationships"},
	}
}

func (d *fakeDirectory) Customers(_ context.Context, _ GrantKey, source string, _ Secret) ([]Customer, error) {
	time.Sleep(d.delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asks[source]++
	return d.told[source], d.err[source]
}

func (d *fakeDirectory) tell(source string, tenants ...TenantID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told[source] = nil
	for _, t := range tenants {
		d.told[source] = append(d.told[source], Customer{Tenant: t})
	}
}

func (d *fakeDirectory) fail(source string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err[source] = err
}

func (d *fakeDirectory) asked(source string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asks[source]
}

type customersWorld struct {
	*world
	register  *fakeRegister
	directory *fakeDirectory
}

func newCustomersWorld(t *testing.T) *customersWorld {
	t.Helper()
	w := &customersWorld{world: newWorld(t)}
	w.register = &fakeRegister{epoch: &w.vault.epoch}
	w.directory = &fakeDirectory{told: map[string][]Customer{}, err: map[string]error{}, asks: map[string]int{}}
	w.vault.grants[0].Audiences = append(w.vault.grants[0].Audiences, GrantedAudience{graph, []Scope{"delegatedadminrelationship.read.all"}})
	w.replica(t)
	return w
}

// replica puts one more broker in the world's place, with a memory of its own.
func (w *customersWorld) replica(t *testing.T) {
	t.Helper()
	cfg := w.Broker.cfg
	cfg.Customers = CustomerCheck{Register: w.register, Directory: w.directory}
	var err error
	if w.Broker, err = New(cfg); err != nil {
		t.Fatal(err)
	}
}

// about returns the records about a tenant, or all.
func (w *customersWorld) about(tenant TenantID) []Record {
	w.audit.mu.Lock()
	defer w.audit.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.audit.records), func(r Record) bool { return !tenant.IsZero() && r.Tenant != tenant })
}

func (w *customersWorld) want(t *testing.T, tenant TenantID, words ...string) {
	t.Helper()
	_, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = tenant }))
	if len(words) == 0 {
		if err != nil {
			t.Errorf("tenant %s: %v", tenant, err)
		}
		return
	}
	if !errors.Is(err, ErrDenied) {
		t.Errorf("tenant %s: got error %v, want %v", tenant, err, ErrDenied)
		return
	}
	all := w.about(tenant)
	last := all[len(all)-1]
	for _, word := range words {
		if !strings.Contains(err.Error(), word) || !strings.Contains(last.Reason, word) {
			t.Errorf("tenant %s: there is no %q in %q, recorded as %q", tenant, word, err, last.Reason)
		}
	}
	if last.Kind != KindDenied || last.Tenant != tenant {
		t.Errorf("the last record is %+v", last)
	}
}
