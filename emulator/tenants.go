package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// AddTenant adds a tenant to a running emulator, with its people, customers
// and consents; [Emulator.Reset] forgets it. It is an error, and nothing
// changes, if the tenant or one of its people is there already, or if one of
// its customers or applications is not.
func (e *Emulator) AddTenant(t FixtureTenant) error {
	if err := e.checkTenant(&t); err != nil {
		return fmt.Errorf("add tenant %q: %w", t.Domain, err)
	}
	t.add(e.directory)
	return t.relate(e.directory)
}

func (e *Emulator) checkTenant(t *FixtureTenant) error {
	if err := t.check(map[string]bool{}); err != nil {
		return err
	}
	for _, name := range []string{t.ID, t.Domain} {
		if _, ok := e.directory.Tenant(name); ok {
			return fmt.Errorf("there is a tenant %q", name)
		}
	}
	for _, u := range t.Users {
		if err := e.checkNewUser(&u, t.ID); err != nil {
			return err
		}
	}
	for _, name := range t.Customers {
		if _, ok := e.directory.Tenant(name); !ok {
			return fmt.Errorf("%w customer %q", errUnknown, name)
		}
	}
	for _, id := range t.Consented {
		if _, ok := e.directory.Application(id); !ok {
			return fmt.Errorf("%w application %q", errUnknown, id)
		}
	}
	return nil
}

func (e *Emulator) checkNewUser(u *FixtureUser, tenant string) error {
	if err := u.check(); err != nil {
		return err
	}
	_, known := e.directory.UserByID(u.ID)
	_, named := e.directory.User(tenant, u.UPN)
	if known || named {
		return fmt.Errorf("there is a user %q or one named %q", u.ID, u.UPN)
	}
	return nil
}

// AddUser adds a member to the tenant, which may be named by id or domain;
// [Emulator.Reset] forgets them. It is an error if they are there already.
func (e *Emulator) AddUser(tenant string, u FixtureUser) error {
	t, ok := e.directory.Tenant(tenant)
	if !ok {
		return fmt.Errorf("add user %q: %w tenant %q", u.UPN, errUnknown, tenant)
	}
	if err := e.checkNewUser(&u, t.ID); err != nil {
		return fmt.Errorf("add user: %w", err)
	}
	e.directory.AddUser(u.user(t.ID))
	return nil
}

// tenantState is a tenant with its users, and its customers if it is a partner.
type tenantState struct {
	Tenant
	Customers []string `json:"customers,omitempty"`
	Users     []User   `json:"users"`
}

// state is what GET /emulator/state answers.
type state struct {
	Seed         uint64        `json:"seed,string"`
	Endpoints    Endpoints     `json:"endpoints"`
	Total        int           `json:"total"` // tenants, shown or not
	Tenants      []tenantState `json:"tenants"`
	Applications []Application `json:"applications"`
}

// adminState shows the tenants whose name, id or domain contains q, the first
// limit of them.
func (e *Emulator) adminState(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	all := e.directory.Tenants()
	s := state{Seed: e.seed, Endpoints: e.endpoints, Total: len(all), Tenants: []tenantState{}, Applications: e.directory.Applications()}
	q := strings.ToLower(r.URL.Query().Get("q"))
	for _, t := range all {
		if limit > 0 && len(s.Tenants) == limit {
			break
		}
		if strings.Contains(strings.ToLower(t.Name+"\n"+t.Domain+"\n"+t.ID), q) {
			s.Tenants = append(s.Tenants, e.stateOfTenant(t))
		}
	}
	return s, nil
}

func (e *Emulator) stateOfTenant(t Tenant) tenantState {
	ts := tenantState{Tenant: t, Users: e.directory.Users(t.ID, 1000)}
	for _, c := range e.directory.Customers(t.ID) {
		ts.Customers = append(ts.Customers, c.ID)
	}
	return ts
}

// limitOf is the request's parameter limit; 0: none.
func limitOf(r *http.Request) (int, error) {
	n, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("limit"), "0"))
	if err != nil || n < 0 {
		return 0, errors.New("limit is not a number from 0")
	}
	return n, nil
}

// adminTokenRequests shows the log, or the last entries of it.
func (e *Emulator) adminTokenRequests(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	all := e.TokenRequests()
	if limit > 0 && len(all) > limit {
		all = all[len(all)-limit:]
	}
	return all, err
}

func (e *Emulator) adminAddTenant(r *http.Request) (any, error) {
	var t FixtureTenant
	if err := readJSON(r, &t); err != nil {
		return nil, err
	}
	return nil, e.AddTenant(t)
}

func (e *Emulator) adminAddUser(r *http.Request) (any, error) {
	var u FixtureUser
	if err := readJSON(r, &u); err != nil {
		return nil, err
	}
	return nil, e.AddUser(r.PathValue("tenant"), u)
}

// relatives are the ids of a partner and a customer, given by id or domain.
func (e *Emulator) relatives(partner, customer string) (p, c string, err error) {
	pt, ok := e.directory.Tenant(partner)
	if !ok {
		return "", "", fmt.Errorf("%w tenant %q", errUnknown, partner)
	}
	ct, ok := e.directory.Tenant(customer)
	if !ok {
		return "", "", fmt.Errorf("%w tenant %q", errUnknown, customer)
	}
	return pt.ID, ct.ID, nil
}

func (e *Emulator) adminDelegate(r *http.Request) (any, error) {
	var in struct {
		Partner  string   `json:"partner"`
		Customer string   `json:"customer"`
		Roles    []string `json:"roles"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	p, c, err := e.relatives(in.Partner, in.Customer)
	if err != nil {
		return nil, err
	}
	for _, role := range in.Roles {
		if !guid.MatchString(role) {
			return nil, fmt.Errorf("the role %q is no template id", role)
		}
	}
	e.Delegate(p, c)
	if in.Roles != nil {
		e.DelegateRoles(p, c, in.Roles...)
	}
	return nil, nil
}

func (e *Emulator) adminUndelegate(r *http.Request) (any, error) {
	p, c, err := e.relatives(r.URL.Query().Get("partner"), r.URL.Query().Get("customer"))
	if err == nil {
		e.Undelegate(p, c)
	}
	return nil, err
}

func (e *Emulator) adminApprove(r *http.Request) (any, error) {
	var in struct {
		Customer string `json:"customer"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	return nil, e.ApproveRelationship(r.PathValue("id"), in.Customer)
}

func (e *Emulator) adminUninstall(r *http.Request) (any, error) {
	q := r.URL.Query()
	t, ok := e.directory.Tenant(q.Get("tenant"))
	if !ok {
		return nil, fmt.Errorf("%w tenant %q", errUnknown, q.Get("tenant"))
	}
	id := strings.ToLower(q.Get("application"))
	if _, ok := e.directory.Resource(id); !ok || !guid.MatchString(id) {
		return nil, fmt.Errorf("%w application %q", errUnknown, id)
	}
	e.Uninstall(t.ID, id)
	return nil, nil
}
