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
// have in the customer's tenant: none without a relationship, and those of
// all if there are several.
func (d *Directory) DelegatedRoles(partner, customer string) []string {
	now := d.now()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !slices.Contains(d.partners[customer], partner) {
		return nil
	}
	var roles []string
	if !d.explicit[[2]string{partner, customer}] {
		roles = d.impliedRoles(partner, customer)
	}
	for _, id := range d.related[partner] {
		if r := d.relationships[id]; r.Customer == customer && r.statusAt(now) == RelationshipActive {
			roles = append(roles, r.agentRoles()...)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// impliedRoles are those of the relationship behind [Directory.Delegate]. The
// caller holds d.mu.
func (d *Directory) impliedRoles(partner, customer string) []string {
	if roles, ok := d.roles[[2]string{partner, customer}]; ok {
		return slices.Clone(roles)
	}
	return slices.Clone(delegatedRoles)
}

// agentRoles are what the relationship gives the partner's AdminAgents: what
// is assigned to them, or everything while nothing is assigned to anybody.
func (r *Relationship) agentRoles() []string {
	if len(r.Assignments) == 0 {
		return r.Roles
	}
	var roles []string
	for _, a := range r.Assignments {
		if a.Group == GroupID(r.Partner, AdminAgents) {
			roles = append(roles, a.Roles...)
		}
	}
	return roles
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
	return relationshipHalf(partner) + "-" + relationshipHalf(customer)
}

// relationshipHalf is what one side adds to the id.
func relationshipHalf(tenant string) string { return guid("relationship", tenant) }
