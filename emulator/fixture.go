package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// A Fixture says who exists when an emulator starts, instead of the built-in
// tenants. In YAML or JSON it is what cmd/emulator reads with
// --fixture.
//
// Nothing that happens later is written back: an emulator forgets on purpose,
// so that no test depends on the one before it.
type Fixture struct {
	Tenants      []FixtureTenant      `yaml:"tenants" json:"tenants"`
	Applications []FixtureApplication `yaml:"applications" json:"applications"`
}

// A FixtureTenant is a tenant with its people.
type FixtureTenant struct {
	ID     string `yaml:"id" json:"id"`
	Name   string `yaml:"name" json:"name"`
	Domain string `yaml:"domain" json:"domain"`
	Kind   string `yaml:"kind" json:"kind"` // vendor, partner or customer

	// Customers of a partner, by id or domain. They must be tenants too.
	Customers []string `yaml:"customers" json:"customers"`

	// Consented lists, in a customer, the applications that may act there for
	// the partner's users, with everything that they are registered for.
	Consented []string `yaml:"consented" json:"consented"`

	Users []FixtureUser `yaml:"users" json:"users"`
}

// A FixtureUser is a member of a tenant.
type FixtureUser struct {
	ID     string   `yaml:"id" json:"id"`
	UPN    string   `yaml:"upn" json:"upn"`
	Name   string   `yaml:"name" json:"name"`
	MFA    bool     `yaml:"mfa" json:"mfa"`       // has registered a second factor
	Groups []string `yaml:"groups" json:"groups"` // AdminAgents, SalesAgents, HelpdeskAgents
	Admin  bool     `yaml:"admin" json:"admin"`   // is a Global Administrator
}

// A FixtureApplication is an application registration.
type FixtureApplication struct {
	ID           string              `yaml:"id" json:"id"`
	Name         string              `yaml:"name" json:"name"`
	Publisher    string              `yaml:"publisher" json:"publisher"`
	Tenant       string              `yaml:"tenant" json:"tenant"` // where it is registered: an id
	RedirectURIs []string            `yaml:"redirect_uris" json:"redirect_uris"`
	Secrets      []string            `yaml:"secrets" json:"secrets"` // made up; nothing real belongs here
	Access       map[string][]string `yaml:"access" json:"access"`   // scopes by resource: an id or URI
	Roles        map[string][]string `yaml:"roles" json:"roles"`     // application permissions by resource
}

// maxFixture is the largest fixture that is read, in bytes.
const maxFixture = 64 << 20

// ParseFixture reads a fixture in YAML, or in JSON with the same keys, which
// takes a fraction of the time where there are 100,000 tenants. An unknown
// key, a malformed id or a reference to a tenant that is not there is an error
// that names it.
func ParseFixture(data []byte) (*Fixture, error) {
	if len(data) > maxFixture {
		return nil, fmt.Errorf("the fixture is longer than %d bytes", maxFixture)
	}
	f := new(Fixture)
	if json.Valid(data) {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(f); err != nil {
			return nil, err
		}
		return f, f.check()
	}
	if err := f.readYAML(data); err != nil {
		return nil, err
	}
	return f, f.check()
}

// readYAML recovers from the parser's panics: it has one for a list in whose
// place a scalar with a tag stands.
func (f *Fixture) readYAML(data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the fixture cannot be parsed: %v", r)
		}
	}()
	if err := yaml.UnmarshalWithOptions(data, f, yaml.Strict()); err != nil {
		return errors.New(yaml.FormatError(err, false, false))
	}
	return nil
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// check reports the first thing wrong with the fixture.
func (f *Fixture) check() error {
	if len(f.Tenants) == 0 {
		return errors.New("the fixture has no tenants")
	}
	known := make(map[string]bool)
	users := make(map[string]bool)
	for _, t := range f.Tenants {
		if err := t.check(users); err != nil {
			return fmt.Errorf("tenant %q: %w", t.Domain, err)
		}
		if known[t.ID] || known[t.Domain] {
			return fmt.Errorf("tenant %q: its id or domain is there twice", t.Domain)
		}
		known[t.ID], known[t.Domain] = true, true
	}
	for _, t := range f.Tenants {
		for _, c := range t.Customers {
			if !known[c] {
				return fmt.Errorf("tenant %q: its customer %q is not a tenant of the fixture", t.Domain, c)
			}
		}
	}
	for _, a := range f.Applications {
		if !guid.MatchString(a.ID) || !known[a.Tenant] || a.Name == "" {
			return fmt.Errorf("application %q: needs an id, a name, and the id of a tenant of the fixture", a.ID)
		}
	}
	return nil
}

func (t *FixtureTenant) check(users map[string]bool) error {
	if !guid.MatchString(t.ID) {
		return fmt.Errorf("the id %q is no GUID in lower case", t.ID)
	}
	if t.Name == "" || !strings.Contains(t.Domain, ".") || t.Domain != strings.ToLower(t.Domain) {
		return errors.New("a name, and a domain in lower case, are required")
	}
	if !slices.Contains([]string{directory.KindVendor, directory.KindPartner, directory.KindCustomer}, t.Kind) {
		return fmt.Errorf("the kind %q is none of vendor, partner and customer", t.Kind)
	}
	if t.Kind != directory.KindPartner && len(t.Customers) > 0 {
		return errors.New("only a partner has customers")
	}
	for _, u := range t.Users {
		if err := u.check(); err != nil {
			return err
		}
		if users[u.ID] || users[strings.ToLower(u.UPN)] {
			return fmt.Errorf("user %q: the id or UPN is there twice", u.UPN)
		}
		users[u.ID], users[strings.ToLower(u.UPN)] = true, true
	}
	return nil
}

func (u *FixtureUser) check() error {
	if !guid.MatchString(u.ID) || !strings.Contains(u.UPN, "@") {
		return fmt.Errorf("user %q: an id (a GUID in lower case) and a UPN are required", u.UPN)
	}
	return nil
}

// load fills an empty directory.
func (f *Fixture) load(d *directory.Directory) error {
	for _, t := range f.Tenants {
		t.add(d)
	}
	for _, a := range f.Applications {
		if err := d.Register(a.application()); err != nil {
			return fmt.Errorf("application %s: %w", a.ID, err)
		}
	}
	for _, t := range f.Tenants {
		if err := t.relate(d); err != nil {
			return fmt.Errorf("tenant %q: %w", t.Domain, err)
		}
	}
	return nil
}

// add adds the tenant and its people.
func (t *FixtureTenant) add(d *directory.Directory) {
	tenant := directory.Tenant{ID: t.ID, Name: t.Name, Domain: t.Domain, Kind: t.Kind}
	if t.Kind == directory.KindCustomer {
		tenant.Subscription = "5" + t.ID[1:]
	}
	d.AddTenant(tenant)
	for _, u := range t.Users {
		d.AddUser(u.user(t.ID))
	}
}

// relate gives the tenant its customers, and its consents. Tenants and
// applications are there already.
func (t *FixtureTenant) relate(d *directory.Directory) error {
	for _, name := range t.Customers {
		if c, ok := d.Tenant(name); ok {
			d.Delegate(t.ID, c.ID)
		}
	}
	for _, id := range t.Consented {
		app, ok := d.Application(id)
		if !ok {
			return fmt.Errorf("the application %q is not registered", id)
		}
		for _, a := range app.Access {
			if r, ok := d.Resource(a.Resource); ok {
				d.Consent(t.ID, app.ID, "", r.ID, a.Scopes...)
				d.AssignRoles(t.ID, app.ID, r.ID, a.Roles...)
			}
		}
	}
	return nil
}

func (u *FixtureUser) user(tenant string) directory.User {
	given, surname, _ := strings.Cut(u.Name, " ")
	out := directory.User{
		ID: u.ID, Tenant: tenant, UPN: u.UPN, Mail: u.UPN, Name: u.Name, GivenName: given, Surname: surname,
		MFA: u.MFA, Groups: u.Groups,
	}
	if u.Admin {
		out.Roles = []string{directory.RoleGlobalAdmin}
	}
	return out
}

func (a *FixtureApplication) application() Application {
	out := Application{
		ID: a.ID, Name: a.Name, Publisher: a.Publisher, Tenant: a.Tenant, RedirectURIs: a.RedirectURIs, Secrets: a.Secrets,
	}
	for _, resource := range slices.Sorted(maps.Keys(a.Access)) {
		out.Access = append(out.Access, Access{Resource: resource, Scopes: a.Access[resource]})
	}
	for _, resource := range slices.Sorted(maps.Keys(a.Roles)) {
		out.Access = append(out.Access, Access{Resource: resource, Roles: a.Roles[resource]})
	}
	return out
}
