package directory

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// guid derives a fixed id from the parts.
func guid(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "|")))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// PrincipalID is the object id of the application's service principal in the
// tenant, and the oid of the tokens that it gets there for itself.
func PrincipalID(tenant, app string) string { return guid(app, tenant) }

// A Principal is a service principal: an application, or a Microsoft
// resource, as it exists in one tenant.
type Principal struct {
	ID, App, Name string
	Owner         string // home tenant; empty for Microsoft's
	Resource      Resource
	Application   Application
}

// Principals returns the tenant's service principals: the resources, then the
// applications by name.
func (d *Directory) Principals(tenant string) []Principal {
	apps := d.Applications()
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Principal
	for _, r := range d.resources {
		if !d.absent[[2]string{tenant, r.ID}] && d.arrived(replica{tenant, r.ID}) {
			all = append(all, Principal{ID: PrincipalID(tenant, r.ID), App: r.ID, Name: r.Name, Resource: r})
		}
	}
	for _, a := range apps {
		if d.installed[[2]string{tenant, a.ID}] && d.arrived(replica{tenant, a.ID}) {
			all = append(all, Principal{ID: PrincipalID(tenant, a.ID), App: a.ID, Name: a.Name, Owner: a.Tenant, Application: a})
		}
	}
	return all
}

// HasResource reports whether the resource has a service principal in the
// tenant. Each has one until it is removed.
func (d *Directory) HasResource(tenant, resource string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return !d.absent[[2]string{tenant, resource}]
}

// AddPrincipal creates the service principal of an application or a resource
// in the tenant, and reports whether there was none before.
func (d *Directory) AddPrincipal(tenant, app string) bool {
	app = strings.ToLower(app)
	k := [2]string{tenant, app}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isResource(app) {
		was := d.absent[k]
		delete(d.absent, k)
		return was
	}
	was := d.installed[k]
	d.installed[k] = true
	return !was
}

// RemovePrincipal removes the service principal of an application or a
// resource from the tenant, with every grant that it is party to.
func (d *Directory) RemovePrincipal(tenant, app string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k := range d.consents[tenant] {
		if k.app == app || k.resource == app {
			delete(d.consents[tenant], k)
		}
	}
	for k := range d.appRoles[tenant] {
		if k[0] == app || k[1] == app {
			delete(d.appRoles[tenant], k)
		}
	}
	if d.isResource(app) {
		d.absent[[2]string{tenant, app}] = true
		return
	}
	d.uninstall(tenant, app)
}

// isResource: the caller holds d.mu.
func (d *Directory) isResource(id string) bool {
	return slices.ContainsFunc(d.resources, func(r Resource) bool { return r.ID == id })
}

// uninstall removes the application's service principal from the tenant and
// remembers when. The caller holds d.mu.
func (d *Directory) uninstall(tenant, app string) {
	delete(d.installed, [2]string{tenant, app})
	d.removed[[2]string{tenant, app}] = d.now()
}

// Removed returns when the application's service principal was last removed
// from the tenant. Tokens that were issued before are dead, even if the
// application has come back since. It is zero if that never happened.
func (d *Directory) Removed(tenant, app string) time.Time {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.removed[[2]string{tenant, app}]
}

// A Grant is a delegated permission grant: what the client may do at the
// resource for the user, or for everyone if the user is empty.
type Grant struct {
	ID                   string
	Client, Resource     string // application ids
	User                 string
	Scopes               []string
	clientSP, resourceSP string
}

// ClientPrincipal is the object id of the client's service principal.
func (g Grant) ClientPrincipal() string { return g.clientSP }

// ResourcePrincipal is the object id of the resource's service principal.
func (g Grant) ResourcePrincipal() string { return g.resourceSP }

func grant(k consent, scopes []string) Grant {
	sum := sha256.Sum256([]byte(k.tenant + "|" + k.app + "|" + k.resource + "|" + k.user))
	return Grant{
		ID: base64.RawURLEncoding.EncodeToString(sum[:]), Client: k.app, Resource: k.resource, User: k.user, Scopes: slices.Clone(scopes),
		clientSP: PrincipalID(k.tenant, k.app), resourceSP: PrincipalID(k.tenant, k.resource),
	}
}

// Grants returns the delegated permission grants of the tenant, in a fixed
// order.
func (d *Directory) Grants(tenant string) []Grant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var all []Grant
	for k, scopes := range d.consents[tenant] {
		all = append(all, grant(k, scopes))
	}
	slices.SortFunc(all, func(a, b Grant) int {
		return cmp.Or(strings.Compare(a.Client, b.Client), strings.Compare(a.Resource, b.Resource), strings.Compare(a.User, b.User))
	})
	return all
}

// AddGrants gives the client every grant, or none if one of the resources is
// granted already. It returns false then.
func (d *Directory) AddGrants(tenant, client string, grants ...Grant) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range grants {
		if _, ok := d.consents[tenant][consent{tenant, client, g.Resource, g.User}]; ok {
			return false
		}
	}
	d.installed[[2]string{tenant, client}] = true
	for _, g := range grants {
		d.setConsent(consent{tenant, client, g.Resource, g.User}, slices.Clone(g.Scopes))
	}
	return true
}

// SetGrant replaces the scopes of the tenant's grant, or removes it if scopes
// is nil. It reports whether there is such a grant.
func (d *Directory) SetGrant(tenant string, g Grant, scopes []string) bool {
	k := consent{tenant, g.Client, g.Resource, g.User}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.consents[tenant][k]; !ok {
		return false
	}
	if scopes == nil {
		delete(d.consents[tenant], k)
		return true
	}
	d.consents[tenant][k] = slices.Clone(scopes)
	return true
}
