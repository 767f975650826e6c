package directory

import (
	"slices"
	"strings"
	"time"
)

// A TokenLifetime is a token lifetime policy of a tenant.
type TokenLifetime struct {
	ID, Name   string
	Definition []string // as written
	Default    bool     // of the whole tenant

	// Access is how long an access token lives; 0: the policy does not say.
	Access time.Duration
}

// TokenLifetimes returns the tenant's token lifetime policies.
func (d *Directory) TokenLifetimes(tenant string) []TokenLifetime {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.policies[tenant])
}

// SetTokenLifetime adds the policy to the tenant, or replaces the one with
// its id.
func (d *Directory) SetTokenLifetime(tenant string, p TokenLifetime) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.policies[tenant])
	if i := slices.IndexFunc(all, func(q TokenLifetime) bool { return q.ID == p.ID }); i >= 0 {
		all[i] = p
	} else {
		all = append(all, p)
	}
	d.policies[tenant] = all
}

// RemoveTokenLifetime removes the policy with that id from the tenant, and
// reports whether there was one.
func (d *Directory) RemoveTokenLifetime(tenant, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.policies[tenant]
	d.policies[tenant] = slices.DeleteFunc(slices.Clone(old), func(p TokenLifetime) bool { return p.ID == id })
	return len(d.policies[tenant]) < len(old)
}

// AccessTokenLifetime is how long the policies make the application's access
// tokens live: the policy assigned to it, else the default of its home
// tenant. 0 means that no policy says.
func (d *Directory) AccessTokenLifetime(app string) time.Duration {
	app = strings.ToLower(app)
	d.mu.RLock()
	defer d.mu.RUnlock()
	var standard time.Duration
	for _, p := range d.policies[d.apps[app].Tenant] {
		if slices.Contains(d.registrations[app].Policies, p.ID) && p.Access > 0 {
			return p.Access
		}
		if p.Default {
			standard = p.Access
		}
	}
	return standard
}
