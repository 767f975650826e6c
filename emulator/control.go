package emulator

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/entra"
)

// Register adds an application, or replaces the one with its id. A Name,
// Publisher, Tenant or Access left empty is taken from the application that
// is replaced. Consents given to it stay.
func (e *Emulator) Register(a Application) error { return e.directory.Register(a) }

// Application returns the application with that id.
func (e *Emulator) Application(id string) (Application, bool) { return e.directory.Application(id) }

// Applications returns every registered application.
func (e *Emulator) Applications() []Application { return e.directory.Applications() }

// Tenants returns all tenants.
func (e *Emulator) Tenants() []Tenant { return e.directory.Tenants() }

// Users returns the users of the tenant, which may be named by id or domain.
func (e *Emulator) Users(tenant string) []User {
	t, _ := e.directory.Tenant(tenant)
	return e.directory.Users(t.ID, 0)
}

// User returns the user with that UPN or mail address, whatever the tenant.
func (e *Emulator) User(name string) (User, bool) {
	_, domain, _ := strings.Cut(name, "@")
	if t, ok := e.directory.Tenant(domain); ok {
		return e.directory.User(t.ID, name)
	}
	return e.directory.UserAnywhere(name)
}

// Dial lets f turn the dials. All that f sets is in force when Dial returns.
func (e *Emulator) Dial(f func(*Dials)) { e.dials.Set(f) }

// Dials returns the dials in force.
func (e *Emulator) Dials() Dials { return e.dials.Dials() }

// Revoke makes every token of the user that exists now worthless: refresh
// tokens are refused with 50173, access tokens by the services. A guest's can
// be revoked only at home, so a guest is named by the address of their own
// account; by the UPN of the tenant that they visit nothing happens to them.
func (e *Emulator) Revoke(upn string) error {
	u, ok := e.User(upn)
	if !ok {
		return fmt.Errorf("revoke tokens of %q: %w user", upn, errUnknown)
	}
	if u.Guest() && strings.EqualFold(u.Mail, upn) {
		e.directory.RevokeAtHome(upn, e.dials.Now())
	}
	e.directory.Revoke(u.ID, e.dials.Now())
	return nil
}

// Now returns the time by the emulator's clock, which the dial ClockOffset
// moves.
func (e *Emulator) Now() time.Time { return e.dials.Now() }

// Consent gives the application the scopes of the resource in the tenant, for
// everyone there, as an administrator or a partner's pre-consent does.
// Without scopes it gives what the application's registration asks for,
// application permissions too. The
// tenant is an id or a domain, the resource any of its names.
func (e *Emulator) Consent(tenant, application, resource string, scopes ...string) error {
	t, a, r, err := e.parties(tenant, application, resource)
	if err != nil {
		return fmt.Errorf("consent: %w", err)
	}
	if len(scopes) == 0 {
		all := e.registered(a, r)
		scopes = all.Scopes
		e.directory.AssignRoles(t, a, r, all.Roles...)
	}
	e.directory.Consent(t, a, "", r, scopes...)
	return nil
}

// AssignRoles gives roles of the resource's API in the tenant to an
// application, by its id, or to a user, by UPN: an administrator's consent to
// application permissions, or an assignment to the application that the API
// is. They are in the claim "roles" from the next token on.
func (e *Emulator) AssignRoles(tenant, principal, resource string, roles ...string) error {
	t, key, r, err := e.roleParties(tenant, principal, resource)
	if err != nil {
		return fmt.Errorf("assign roles: %w", err)
	}
	kind := directory.MemberUser
	if _, ok := e.directory.Application(key); ok {
		kind = directory.MemberApplication
	}
	values := make([]string, len(roles))
	for i, name := range roles {
		role, ok := r.Role(name)
		if !ok || !role.For(kind) {
			return fmt.Errorf("assign roles: %w role %q for %s at %s", errUnknown, name, principal, resource)
		}
		values[i] = role.Value
	}
	e.directory.AssignRoles(t, key, r.ID, values...)
	return nil
}

// RemoveRoles takes those roles back; all of them if none is named.
func (e *Emulator) RemoveRoles(tenant, principal, resource string, roles ...string) error {
	t, key, r, err := e.roleParties(tenant, principal, resource)
	if err != nil {
		return fmt.Errorf("remove roles: %w", err)
	}
	e.directory.RemoveRoles(t, key, r.ID, roles...)
	return nil
}

func (e *Emulator) roleParties(tenant, principal, resource string) (t, key string, r directory.Resource, err error) {
	found, ok := e.directory.Tenant(tenant)
	if !ok {
		return "", "", r, fmt.Errorf("%w tenant %q", errUnknown, tenant)
	}
	if r, ok = e.directory.Resource(resource); !ok {
		return "", "", r, fmt.Errorf("%w resource %q", errUnknown, resource)
	}
	if app, ok := e.directory.Application(principal); ok {
		return found.ID, app.ID, r, nil
	}
	u, ok := e.directory.User(found.ID, principal)
	if !ok {
		return "", "", r, fmt.Errorf("%w application or user %q", errUnknown, principal)
	}
	return found.ID, u.ID, r, nil
}

// RemoveConsent takes back every consent of the application in the tenant for
// the resource. With an empty resource it removes the application from the
// tenant altogether.
func (e *Emulator) RemoveConsent(tenant, application, resource string) error {
	t, a, r, err := e.parties(tenant, application, resource)
	if err != nil {
		return fmt.Errorf("remove consent: %w", err)
	}
	e.directory.RemoveConsent(t, a, r)
	return nil
}

func (e *Emulator) parties(tenant, application, resource string) (t, a, r string, err error) {
	found, ok := e.directory.Tenant(tenant)
	if !ok {
		return "", "", "", fmt.Errorf("%w tenant %q", errUnknown, tenant)
	}
	app, ok := e.directory.Application(application)
	if !ok {
		return "", "", "", fmt.Errorf("%w application %q", errUnknown, application)
	}
	res, ok := e.directory.Resource(resource)
	if !ok && resource != "" {
		return "", "", "", fmt.Errorf("%w resource %q", errUnknown, resource)
	}
	return found.ID, app.ID, res.ID, nil
}

func (e *Emulator) registered(application, resource string) Access {
	app, _ := e.directory.Application(application)
	var all Access
	for _, x := range app.Access {
		if r, ok := e.directory.Resource(x.Resource); ok && r.ID == resource {
			all.Scopes, all.Roles = append(all.Scopes, x.Scopes...), append(all.Roles, x.Roles...)
		}
	}
	return all
}

// Delegate gives the partner delegated administration of the customer.
func (e *Emulator) Delegate(partner, customer string) { e.directory.Delegate(partner, customer) }

// Undelegate ends it: tokens in the customer's tenant are refused (50020), and
// Partner Center no longer knows the customer as the partner's.
func (e *Emulator) Undelegate(partner, customer string) { e.directory.Undelegate(partner, customer) }

// TokenRequests returns the log of requests to the token endpoint, oldest
// first. It keeps at least the last 100,000.
func (e *Emulator) TokenRequests() []TokenRequest { return e.entra.Requests() }

// RefreshTokens returns the ledger: every refresh token issued, by number,
// without its value.
func (e *Emulator) RefreshTokens() []RefreshToken {
	all := e.ledger.List()
	for i, t := range all {
		all[i] = e.judge(t)
	}
	return all
}

// judge says of a refresh token whether its user's tokens were revoked since.
func (e *Emulator) judge(t RefreshToken) RefreshToken {
	u, _ := e.directory.UserByID(t.User)
	t.Revoked = t.Issued.Before(u.ValidFrom)
	return t
}

// RefreshTokenNumber returns the number of the refresh token with that value.
func (e *Emulator) RefreshTokenNumber(value string) (int, bool) {
	t, _, ok := e.ledger.Find(value)
	return t.Number, ok
}

// Errors returns the table of errors: what the emulator knows about each code.
func Errors() []ErrorEntry { return entra.Errors() }

// hold is the channel that Hold has put into the dials.
type hold struct {
	// mu guards gate.
	mu   sync.Mutex
	gate chan struct{}
}

// Hold keeps the answers of the token endpoint back until Release. It is the
// dial Hold with a channel of the emulator's own. To know that a request has
// arrived, look at TokenRequests: it is logged before its answer is held.
func (e *Emulator) Hold() {
	e.hold.mu.Lock()
	defer e.hold.mu.Unlock()
	if e.hold.gate == nil {
		e.hold.gate = make(chan struct{})
		e.dials.Set(func(d *Dials) { d.Hold = e.hold.gate })
	}
}

// Release lets all held answers go. Without a Hold it does nothing.
func (e *Emulator) Release() {
	e.hold.mu.Lock()
	defer e.hold.mu.Unlock()
	if e.hold.gate != nil {
		e.dials.Set(func(d *Dials) { d.Hold = nil })
		close(e.hold.gate)
		e.hold.gate = nil
	}
}
