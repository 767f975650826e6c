package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Ids of the fixture. They never change, so that a test may name them.
const (
	ApplicationID     = "a0000000-0000-4000-8000-00000000c0de" // the vendor's marketplace application
	ApplicationSecret = "emulator-only-not-a-secret"           // its client secret
	CPVTenant         = "10000000-0000-4000-8000-000000000001" // Northwind Panels
	ContosoTenant     = "20000000-0000-4000-8000-000000000001" // Contoso CSP
	FabrikamTenant    = "20000000-0000-4000-8000-000000000002" // Fabrikam Cloud
	AdatumTenant      = "30000000-0000-4000-8000-000000000001" // customer of Contoso
	LitwareTenant     = "30000000-0000-4000-8000-000000000002" // customer of Contoso and of Fabrikam
	ProsewareTenant   = "30000000-0000-4000-8000-000000000003" // customer of Contoso
	TailspinTenant    = "30000000-0000-4000-8000-000000000004" // customer of Fabrikam
	WingtipTenant     = "30000000-0000-4000-8000-000000000005" // customer of Fabrikam; the application is not consented there
	GuestHomeTenant   = "40000000-0000-4000-8000-000000000001" // where the guests come from; not a tenant of the emulator
)

// tenantSeed is one line of the fixture.
type tenantSeed struct{ id, name, domain, kind string }

var tenantSeeds = []tenantSeed{
	{CPVTenant, "Northwind Panels", "northwind.example", KindVendor},
	{ContosoTenant, "Contoso CSP", "contoso.example", KindPartner},
	{FabrikamTenant, "Fabrikam Cloud", "fabrikam.example", KindPartner},
	{AdatumTenant, "Adatum", "adatum.example", KindCustomer},
	{LitwareTenant, "Litware", "litware.example", KindCustomer},
	{ProsewareTenant, "Proseware", "proseware.example", KindCustomer},
	{TailspinTenant, "Tailspin Toys", "tailspin.example", KindCustomer},
	{WingtipTenant, "Wingtip Toys", "wingtip.example", KindCustomer},
}

// userSeed is a user that every tenant of a kind has.
type userSeed struct {
	local, given, surname string
	mfa                   bool
	groups, roles         []string
}

var userSeeds = map[string][]userSeed{
	KindVendor: {
		{"admin", "Nora", "Northwind", true, nil, []string{RoleGlobalAdmin}},
		{"dev", "Dev", "Rao", true, nil, nil},
	},
	KindPartner: {
		{"admin", "Ada", "Admin", true, []string{AdminAgents}, []string{RoleGlobalAdmin}},
		{"admin2", "Alan", "Admin", true, []string{AdminAgents}, []string{RoleGlobalAdmin}},
		{"sales", "Sam", "Sales", true, []string{SalesAgents}, []string{RoleCloudAppAdmin}},
		{"helpdesk", "Hedy", "Helpdesk", true, []string{HelpdeskAgents}, nil},
		{"nomfa", "Noah", "Nofactor", false, []string{AdminAgents}, []string{RoleGlobalAdmin}},
		{"tech", "Tess", "Technician", true, nil, []string{RoleCloudAppAdmin}},
	},
	KindCustomer: {
		{"owner", "Olga", "Owner", true, nil, []string{RoleGlobalAdmin}},
		{"ines", "Ines", "Invoice", false, nil, nil},
		{"omar", "Omar", "Office", false, nil, nil},
	},
}

// Load fills the directory with the fixture: one control panel vendor with
// its application, two partners, five customers, and the application's
// consents in all customers but Wingtip.
func (d *Directory) Load() error {
	for i, t := range tenantSeeds {
		d.addSeed(i+1, t)
	}
	for _, c := range []string{AdatumTenant, LitwareTenant, ProsewareTenant} {
		d.Delegate(ContosoTenant, c)
	}
	for _, c := range []string{LitwareTenant, TailspinTenant, WingtipTenant} {
		d.Delegate(FabrikamTenant, c)
	}
	app := fixtureApplication()
	if err := d.Register(app); err != nil {
		return err
	}
	for _, c := range []string{AdatumTenant, LitwareTenant, ProsewareTenant, TailspinTenant} {
		d.preconsent(c, app)
	}
	return nil
}

func fixtureApplication() Application {
	return Application{
		ID:           ApplicationID,
		Name:         "Northwind Control Panel",
		Publisher:    "Northwind Panels",
		Tenant:       CPVTenant,
		RedirectURIs: []string{"https://127.0.0.1:8443/callback"},
		Secrets:      []string{ApplicationSecret},
		Access: []Access{
			{Resource: PartnerCenter, Scopes: []string{"user_impersonation"}},
			{Resource: Graph, Scopes: []string{"User.Read", "Directory.Read.All", "DelegatedAdminRelationship.Read.All"}},
			{Resource: ARM, Scopes: []string{"user_impersonation"}},
		},
	}
}

// preconsent does what a partner does for its customer through Partner
// Center's application consents: it lets the application act there for the
// partner's users.
func (d *Directory) preconsent(customer string, app Application) {
	for _, a := range app.Access {
		if r, ok := d.Resource(a.Resource); ok {
			d.Consent(customer, app.ID, "", r.ID, a.Scopes...)
		}
	}
}

func (d *Directory) addSeed(n int, s tenantSeed) {
	t := Tenant{ID: s.id, Name: s.name, Domain: s.domain, Kind: s.kind}
	if s.kind == KindCustomer {
		t.Subscription = serial("50000000", n, 0)
	}
	d.AddTenant(t)
	for i, u := range userSeeds[s.kind] {
		upn := u.local + "@" + s.domain
		d.AddUser(User{
			ID: serial("60000000", n, i+1), Tenant: s.id, UPN: upn, Mail: upn,
			Name: u.given + " " + u.surname, GivenName: u.given, Surname: u.surname,
			MFA: u.mfa, Groups: u.groups, Roles: u.roles,
		})
	}
	if s.kind == KindPartner {
		d.addGuest(n, s)
	}
}

func (d *Directory) addGuest(n int, s tenantSeed) {
	d.AddUser(User{
		ID: serial("60000000", n, 99), Tenant: s.id, HomeTenant: GuestHomeTenant,
		UPN:  "guest_adventure-works.example#EXT#@" + s.domain,
		Mail: "guest@adventure-works.example",
		Name: "Gus Guest", GivenName: "Gus", Surname: "Guest",
		MFA: true, Groups: []string{AdminAgents}, Roles: []string{RoleGlobalAdmin},
	})
}

// serial makes a fixed GUID out of two small numbers.
func serial(prefix string, a, b int) string {
	digits := func(n, width int) string {
		s := ""
		for ; width > 0; width-- {
			s = string(rune('0'+n%10)) + s
			n /= 10
		}
		return s
	}
	return strings.Join([]string{prefix, digits(a, 4), "4000", "8000", digits(b, 12)}, "-")
}

// GroupID is the object id of a security group of a tenant.
func GroupID(tenant, group string) string {
	sum := sha256.Sum256([]byte(tenant + "/" + group))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}
