package directory

import "time"

// AppRules are a tenant's rules for the credentials of applications (Graph's
// default app management policy).
type AppRules struct {
	Enabled bool

	// Text is the policy as it was last written, for showing it again.
	Text map[string]any

	// Applications are the restrictions of applications' credentials.
	Applications []AppRestriction
}

// An AppRestriction restricts one kind of credential.
type AppRestriction struct {
	Type  string    // "passwordAddition", "passwordLifetime", "asymmetricKeyLifetime", ...
	Since time.Time // only applications created then or later are restricted; zero: all
	Max   string    // ISO 8601; lifetimes only
}

// AppRules returns the tenant's rules. A tenant that was told none has none.
func (d *Directory) AppRules(tenant string) AppRules {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.appRules[tenant]
}

// SetAppRules replaces the tenant's rules.
func (d *Directory) SetAppRules(tenant string, r AppRules) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.appRules[tenant] = r
}

// Restriction returns the tenant's restriction of that kind for an
// application that was created then.
func (d *Directory) Restriction(tenant, kind string, created time.Time) (AppRestriction, bool) {
	rules := d.AppRules(tenant)
	if !rules.Enabled {
		return AppRestriction{}, false
	}
	for _, r := range rules.Applications {
		if r.Type == kind && !created.Before(r.Since) {
			return r, true
		}
	}
	return AppRestriction{}, false
}
