package directory

import "slices"

// Consent records that the application may have the scopes of the resource
// in the tenant, on behalf of the user, or of everyone if user is empty. It
// adds to what was consented before. The application is then installed in the
// tenant: it has a service principal there.
func (d *Directory) Consent(tenant, app, user, resource string, scopes ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.installed[[2]string{tenant, app}] = true
	k := consent{tenant, app, resource, user}
	have := slices.Clone(d.consents[tenant][k])
	for _, s := range scopes {
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	d.setConsent(k, have)
}

// setConsent: the caller holds d.mu.
func (d *Directory) setConsent(k consent, scopes []string) {
	if d.consents[k.tenant] == nil {
		d.consents[k.tenant] = map[consent][]string{}
	}
	d.consents[k.tenant][k] = scopes
}

// Install gives the application a service principal in the tenant.
func (d *Directory) Install(tenant, app string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.installed[[2]string{tenant, app}] = true
}

// RemoveConsent removes every consent, and every application permission, that the application has in the tenant
// for the resource. With an empty resource it removes them all, and the
// application's service principal too: its tokens there die.
func (d *Directory) RemoveConsent(tenant, app, resource string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k := range d.consents[tenant] {
		if k.app == app && (resource == "" || k.resource == resource) {
			delete(d.consents[tenant], k)
		}
	}
	d.dropRoles(tenant, app, resource)
	if resource == "" && d.apps[app].Tenant != tenant {
		d.uninstall(tenant, app)
	}
}

// Consented returns the scopes of the resource that the application may use
// for the user in the tenant, by the user's consent or everyone's.
func (d *Directory) Consented(tenant, app, user, resource string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	have := slices.Clone(d.consents[tenant][consent{tenant, app, resource, ""}])
	for _, s := range d.consents[tenant][consent{tenant, app, resource, user}] {
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	return have
}

// Installed reports whether the application has a service principal in the
// tenant that has replicated.
func (d *Directory) Installed(tenant, app string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.installed[[2]string{tenant, app}] && d.arrived(replica{tenant, app})
}
