package directory

import "slices"

// delegatedRoles are what a partner has in a customer's tenant unless said
// otherwise.
var delegatedRoles = []string{RoleCloudAppAdmin, RoleGlobalReader}

// DelegateRoles says which roles the partner's AdminAgents have in the
// customer's tenant, as a delegated admin relationship does.
func (d *Directory) DelegateRoles(partner, customer string, roles ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles[[2]string{partner, customer}] = slices.Clone(roles)
}

// DelegatedRoles returns the role template ids that the partner's AdminAgents
// have in the customer's tenant: none without a relationship.
func (d *Directory) DelegatedRoles(partner, customer string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !slices.Contains(d.partners[customer], partner) {
		return nil
	}
	if roles, ok := d.roles[[2]string{partner, customer}]; ok {
		return slices.Clone(roles)
	}
	return slices.Clone(delegatedRoles)
}

// MayManage reports whether the user may give applications permissions in the
// tenant, by a role of their own or by a delegated one.
func (d *Directory) MayManage(u User, tenant string) bool {
	roles := u.Roles
	if u.Tenant != tenant {
		if !d.MayAct(u, tenant) {
			return false
		}
		roles = d.DelegatedRoles(u.Tenant, tenant)
	}
	return slices.ContainsFunc(roles, func(r string) bool {
		return r == RoleGlobalAdmin || r == RolePrivileged || r == RoleCloudAppAdmin || r == RoleAppAdmin
	})
}

// RelationshipID is the id of the delegated admin relationship between the
// two tenants.
func RelationshipID(partner, customer string) string {
	return guid("relationship", partner) + "-" + guid("relationship", customer)
}
