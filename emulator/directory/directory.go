package directory

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Directory holds the emulator's tenants and everything in them. It is safe
// for concurrent use. The zero value is not usable; see [New].
type Directory struct {
	now func() time.Time

	// mu guards everything below.
	mu        sync.RWMutex
	resources []Resource
	tenants   map[string]Tenant               // by id
	domains   map[string]string               // lower-case domain to tenant id
	sorted    []Tenant                        // as Tenants returns them; nil once one was added. Never changed in place
	azure     map[string]string               // lower-case Azure subscription to tenant id
	apis      map[string]string               // lower-case name of an application's API to its id
	anywhere  map[string][]string             // lower-case UPN or mail to object ids, whatever the tenant
	users     map[string]User                 // by object id
	members   map[string][]string             // tenant id to object ids, in order of creation
	names     map[string]string               // tenant id + "/" + lower-case UPN or mail, to object id
	apps      map[string]Application          // by lower-case id
	customers map[string][]string             // partner's tenant id to customers' tenant ids
	partners  map[string][]string             // the other way round
	consents  map[string]map[consent][]string // by tenant id, to scopes
	installed map[[2]string]bool              // tenant id and application id with a service principal

	generation    int                               // how often Clear was called
	removed       map[[2]string]time.Time           // tenant id and application id, to when its service principal was removed
	appRoles      map[string]map[[2]string][]string // by tenant id, then id of an application or user and id of a resource
	absent        map[[2]string]bool                // tenant id and id of a resource that has no service principal there
	roles         map[[2]string][]string            // partner's and customer's tenant id, to role template ids
	registrations map[string]Registration           // by lower-case application id
	objects       map[string]string                 // object id of an application to its lower-case id
	credentials   map[credential]Credential         // what is known of a secret or certificate beside its value
	policies      map[string][]TokenLifetime        // by tenant id
	orders        map[string][]Order                // by customer's tenant id
	subscriptions map[string][]Subscription         // by customer's tenant id
	groups        map[string][]ResourceGroup        // by Azure subscription
	deployments   map[[2]string][]Deployment        // by Azure subscription and lower-case resource group
	appRules      map[string]AppRules               // by tenant id
	replicas      map[replica]time.Time             // to when what is new will be known everywhere
	relationships map[string]*Relationship          // by id: those that somebody has touched through Graph
	related       map[string][]string               // partner's tenant id to the ids of those
	explicit      map[[2]string]bool                // partner's and customer's tenant id, if only those count and not Delegate
}

// consent is the key of a consent. User is empty if it was given for everyone.
type consent struct{ tenant, app, resource, user string }

// New returns a directory that knows the resources and no tenant. It tells the
// time by now, which must not call the directory.
func New(now func() time.Time) *Directory {
	d := &Directory{now: now}
	d.Clear()
	return d
}

// Clear forgets everything but the resources.
func (d *Directory) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resources == nil {
		d.resources = resources()
	}
	d.tenants = map[string]Tenant{}
	d.domains = map[string]string{}
	d.sorted = nil
	d.azure = map[string]string{}
	d.apis = map[string]string{}
	d.anywhere = map[string][]string{}
	d.users = map[string]User{}
	d.members = map[string][]string{}
	d.names = map[string]string{}
	d.apps = map[string]Application{}
	d.customers = map[string][]string{}
	d.partners = map[string][]string{}
	d.consents = map[string]map[consent][]string{}
	d.installed = map[[2]string]bool{}
	d.generation++
	d.removed = map[[2]string]time.Time{}
	d.appRoles = map[string]map[[2]string][]string{}
	d.absent = map[[2]string]bool{}
	d.roles = map[[2]string][]string{}
	d.registrations = map[string]Registration{}
	d.objects = map[string]string{}
	d.credentials = map[credential]Credential{}
	d.policies = map[string][]TokenLifetime{}
	d.orders = map[string][]Order{}
	d.subscriptions = map[string][]Subscription{}
	d.groups = map[string][]ResourceGroup{}
	d.deployments = map[[2]string][]Deployment{}
	d.appRules = map[string]AppRules{}
	d.replicas = map[replica]time.Time{}
	d.relationships = map[string]*Relationship{}
	d.related = map[string][]string{}
	d.explicit = map[[2]string]bool{}
}

// Generation counts the calls of [Directory.Clear]. Those who keep something
// about what is in the directory forget it when the number changes.
func (d *Directory) Generation() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.generation
}

// NameResource adds an identifier URI to the resource with that application
// id, such as the URL at which the emulator serves it.
func (d *Directory) NameResource(id, uri string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.resources {
		if d.resources[i].ID == id {
			d.resources[i].URIs = append(slices.Clone(d.resources[i].URIs), uri)
		}
	}
}

// Resource returns the resource with that application id or identifier URI.
// A trailing slash and the case of letters do not matter.
func (d *Directory) Resource(name string) (Resource, bool) {
	name = strings.TrimSuffix(name, "/")
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, r := range d.resources {
		if r.named(name) {
			r.TokenVersion = 1
			return r, true
		}
	}
	if a, ok := d.apps[d.apis[strings.ToLower(name)]]; ok {
		return a.resource(), true
	}
	return Resource{}, false
}

// AddTenant adds or replaces a tenant.
func (d *Directory) AddTenant(t Tenant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenants[t.ID] = t
	d.domains[strings.ToLower(t.Domain)] = t.ID
	d.sorted = nil
	if t.Subscription != "" {
		d.azure[strings.ToLower(t.Subscription)] = t.ID
	}
}

// AddUser adds or replaces a user of a tenant that exists.
func (d *Directory) AddUser(u User) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.users[u.ID]; !ok {
		d.members[u.Tenant] = append(d.members[u.Tenant], u.ID)
	}
	d.users[u.ID] = u
	for _, name := range []string{strings.ToLower(u.UPN), strings.ToLower(u.Mail)} {
		if name == "" {
			continue
		}
		d.names[u.Tenant+"/"+name] = u.ID
		if !slices.Contains(d.anywhere[name], u.ID) {
			d.anywhere[name] = append(d.anywhere[name], u.ID)
		}
	}
}

// Delegate gives the partner delegated administration of the customer. The
// right belongs to the partner's AdminAgents; see [Directory.MayAct].
func (d *Directory) Delegate(partner, customer string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.explicit[[2]string{partner, customer}] {
		delete(d.explicit, [2]string{partner, customer})
		d.dropRelationship(RelationshipID(partner, customer))
	}
	// A customer has few partners; a partner may have 100,000 customers.
	if !slices.Contains(d.partners[customer], partner) {
		d.link(partner, customer)
	}
}

// Undelegate ends the partner's delegated administration of the customer,
// whatever it rests on.
func (d *Directory) Undelegate(partner, customer string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unlink(partner, customer)
	d.forget(partner, customer)
}

// Tenant returns the tenant with that id or verified domain, in any case.
func (d *Directory) Tenant(name string) (Tenant, bool) {
	name = strings.ToLower(name)
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id, ok := d.domains[name]; ok {
		name = id
	}
	t, ok := d.tenants[name]
	return t, ok
}

// Tenants returns all tenants: vendors, then partners, then customers, each
// by name.
func (d *Directory) Tenants() []Tenant { return d.FirstTenants(0) }

// FirstTenants returns the first tenants in the order of [Directory.Tenants],
// limit of them at the most; all if limit is 0.
func (d *Directory) FirstTenants(limit int) []Tenant {
	all := d.sortedTenants()
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return slices.Clone(all)
}

// sortedTenants sorts at most once for each change: an account picker asks
// for the first of 100,000 tenants again and again.
func (d *Directory) sortedTenants() []Tenant {
	d.mu.RLock()
	sorted := d.sorted
	d.mu.RUnlock()
	if sorted != nil {
		return sorted
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sorted == nil {
		d.sorted = slices.SortedFunc(maps.Values(d.tenants), compareTenants)
	}
	return d.sorted
}

func compareTenants(a, b Tenant) int {
	return cmp.Or(rank(a.Kind)-rank(b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
}

func rank(kind string) int {
	return slices.Index([]string{KindVendor, KindPartner, KindCustomer}, kind)
}

// User returns the tenant's user with that UPN or mail address, in any case.
func (d *Directory) User(tenant, name string) (User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	u, ok := d.users[d.names[tenant+"/"+strings.ToLower(name)]]
	return u, ok
}

// UserAnywhere returns the user with that UPN or mail address, in any case: of
// guests in several tenants, the one in the first tenant.
func (d *Directory) UserAnywhere(name string) (User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids := d.anywhere[strings.ToLower(name)]
	if len(ids) == 0 {
		return User{}, false
	}
	id := slices.MinFunc(ids, func(a, b string) int {
		return compareTenants(d.tenants[d.users[a].Tenant], d.tenants[d.users[b].Tenant])
	})
	return d.users[id], true
}

// UserByID returns the user with that object id.
func (d *Directory) UserByID(id string) (User, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	u, ok := d.users[id]
	return u, ok
}

// Users returns up to limit users of the tenant, in order of creation; all of
// them if limit is 0.
func (d *Directory) Users(tenant string, limit int) []User {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids := d.members[tenant]
	if limit > 0 && len(ids) > limit {
		ids = ids[:limit]
	}
	users := make([]User, 0, len(ids))
	for _, id := range ids {
		users = append(users, d.users[id])
	}
	return users
}

// Revoke makes every token of the user that was issued before at worthless.
// It does nothing to a guest, whose tokens only the home tenant can revoke;
// see [Directory.RevokeAtHome].
func (d *Directory) Revoke(user string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u, ok := d.users[user]; ok && !u.Guest() {
		u.ValidFrom = at
		d.users[user] = u
	}
}

// RevokeAtHome revokes the tokens of every guest with that mail address, as
// the tenant that their account lives in does.
func (d *Directory) RevokeAtHome(mail string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.anywhere[strings.ToLower(mail)] {
		if u := d.users[id]; u.Guest() && strings.EqualFold(u.Mail, mail) {
			u.ValidFrom = at
			d.users[id] = u
		}
	}
}

// ChangePassword notes that the user's password was changed, has expired or
// was reset by the user or in the Azure portal. It ends the refresh tokens of
// public clients only.
func (d *Directory) ChangePassword(user string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u, ok := d.users[user]; ok {
		u.PasswordChanged = at
		d.users[user] = u
	}
}

// Customers returns the customers of the partner, in the order in which they
// were added.
func (d *Directory) Customers(partner string) []Tenant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]Tenant, 0, len(d.customers[partner]))
	for _, id := range d.customers[partner] {
		if d.delegated(partner, id) {
			all = append(all, d.tenants[id])
		}
	}
	return all
}

// IsCustomer reports whether the customer has a relationship with the partner.
func (d *Directory) IsCustomer(partner, customer string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Contains(d.partners[customer], partner) && d.delegated(partner, customer)
}

// MayAct reports whether the user may get tokens in the tenant: it is the
// user's own, or a customer of the user's, who is an AdminAgent there and no
// guest.
func (d *Directory) MayAct(u User, tenant string) bool {
	if u.Tenant == tenant {
		return true
	}
	return !u.Guest() && u.In(AdminAgents) && d.IsCustomer(u.Tenant, tenant)
}

// Register adds an application or replaces the one with its id. A Name,
// Publisher, Tenant or Access that is empty is taken from the one replaced.
// It returns an error if a field makes no sense, and changes nothing then.
func (d *Directory) Register(a Application) error {
	a.ID = strings.ToLower(a.ID)
	old, _ := d.Application(a.ID)
	a.Name = cmp.Or(a.Name, old.Name)
	a.Publisher = cmp.Or(a.Publisher, old.Publisher)
	a.Tenant = cmp.Or(a.Tenant, old.Tenant)
	if a.Access == nil {
		a.Access = old.Access
	}
	if err := d.check(a); err != nil {
		return fmt.Errorf("register application %q: %w", a.ID, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nameAPI(d.apps[a.ID], a)
	d.apps[a.ID] = a
	d.installed[[2]string{a.Tenant, a.ID}] = true
	d.objects[ObjectID(a.ID)] = a.ID
	return nil
}

// nameAPI makes the names of the old application's API those of the new one's.
// The caller holds d.mu.
func (d *Directory) nameAPI(old, a Application) {
	for _, name := range old.apiNames() {
		if d.apis[name] == old.ID {
			delete(d.apis, name)
		}
	}
	for _, name := range a.apiNames() {
		d.apis[name] = a.ID
	}
}

func (d *Directory) check(a Application) error {
	if a.ID == "" {
		return errors.New("an application needs an id")
	}
	if _, ok := d.Tenant(a.Tenant); !ok {
		return fmt.Errorf("home tenant %q does not exist", a.Tenant)
	}
	for _, u := range slices.Concat(a.RedirectURIs, a.SPARedirectURIs) {
		if p, err := url.Parse(u); err != nil || !p.IsAbs() || p.Fragment != "" {
			return fmt.Errorf("redirect URI %q is not an absolute URL without fragment", u)
		}
	}
	for _, der := range a.Certificates {
		if err := checkCertificate(der); err != nil {
			return err
		}
	}
	for _, f := range a.Federated {
		if err := f.check(); err != nil {
			return err
		}
	}
	if a.AccessTokenVersion < 0 || a.AccessTokenVersion > 2 {
		return fmt.Errorf("access tokens have version 1 or 2, not %d", a.AccessTokenVersion)
	}
	for _, s := range a.Exposes {
		if s.Name == "" || strings.ContainsAny(s.Name, " /") {
			return fmt.Errorf("%q cannot be the name of a permission", s.Name)
		}
	}
	return d.checkAccess(a)
}

func (d *Directory) checkAccess(a Application) error {
	for _, x := range a.Access {
		r, ok := d.Resource(x.Resource)
		if own := a.resource(); own.named(x.Resource) {
			r, ok = own, true
		}
		if !ok {
			return fmt.Errorf("resource %q is unknown", x.Resource)
		}
		for _, s := range x.Scopes {
			if _, ok := r.Scope(s); !ok {
				return fmt.Errorf("resource %q has no scope %q", x.Resource, s)
			}
		}
		for _, name := range x.Roles {
			if role, ok := r.Role(name); !ok || !role.For(MemberApplication) {
				return fmt.Errorf("resource %q has no role %q for applications", x.Resource, name)
			}
		}
	}
	return nil
}

func checkCertificate(der []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("parse certificate: %w", err)
	}
	if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
		return fmt.Errorf("the key of certificate %q is not RSA", c.Subject)
	}
	return nil
}

// Application returns the application with that id, once it has replicated. Its credentials are those
// in force: one that was added through Graph is not there yet while it
// replicates, and no longer there when it has expired.
func (d *Directory) Application(id string) (Application, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	id = strings.ToLower(id)
	a, ok := d.apps[id]
	return d.inForce(a), ok && d.arrived(replica{app: id})
}

// Applications returns all applications, by name.
func (d *Directory) Applications() []Application {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]Application, 0, len(d.apps))
	for _, a := range d.apps {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Application) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return all
}
