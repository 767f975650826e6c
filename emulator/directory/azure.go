package directory

import (
	"slices"
	"strings"
)

// A ResourceGroup is a resource group of an Azure subscription.
type ResourceGroup struct {
	Name, Location string
	Tags           map[string]string

	// Deletion is the id of the operation that deletes the group; empty while
	// there is none.
	Deletion string
}

// A Deployment is a template deployment to a resource group. Nothing is
// deployed; what was asked for is kept.
type Deployment struct {
	ID, Name, Mode string
	Parameters     any
	Timestamp      string

	// Seen is set once somebody has asked how it goes: it succeeds then.
	Seen bool
}

// TenantOf returns the tenant that the Azure subscription belongs to.
func (d *Directory) TenantOf(subscription string) (Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.tenants[d.azure[strings.ToLower(subscription)]]
	return t, ok
}

// ResourceGroups returns the subscription's resource groups. It starts with
// two.
func (d *Directory) ResourceGroups(subscription string) []ResourceGroup {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.groupsOf(subscription))
}

// groupsOf: the caller holds d.mu.
func (d *Directory) groupsOf(subscription string) []ResourceGroup {
	if g, ok := d.groups[subscription]; ok {
		return g
	}
	return []ResourceGroup{{Name: "rg-web", Location: "westeurope"}, {Name: "rg-data", Location: "westeurope"}}
}

// SetResourceGroup adds the group to the subscription, or replaces the one
// with its name, and reports whether it is new.
func (d *Directory) SetResourceGroup(subscription string, g ResourceGroup) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.groupsOf(subscription))
	i := slices.IndexFunc(all, func(o ResourceGroup) bool { return strings.EqualFold(o.Name, g.Name) })
	if i < 0 {
		d.groups[subscription] = append(all, g)
		return true
	}
	g.Name = all[i].Name
	all[i] = g
	d.groups[subscription] = all
	return false
}

// RemoveResourceGroup removes the group from the subscription, with the
// deployments to it.
func (d *Directory) RemoveResourceGroup(subscription, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.groups[subscription] = slices.DeleteFunc(slices.Clone(d.groupsOf(subscription)), func(g ResourceGroup) bool { return strings.EqualFold(g.Name, name) })
	delete(d.deployments, [2]string{subscription, strings.ToLower(name)})
}

// RemoveDeployment removes the deployment's record from the resource group,
// and reports whether there was one.
func (d *Directory) RemoveDeployment(subscription, group, name string) bool {
	k := [2]string{subscription, strings.ToLower(group)}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.deployments[k]
	d.deployments[k] = slices.DeleteFunc(slices.Clone(old), func(x Deployment) bool { return strings.EqualFold(x.Name, name) })
	return len(d.deployments[k]) < len(old)
}

// Deployments returns the deployments to the resource group.
func (d *Directory) Deployments(subscription, group string) []Deployment {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.deployments[[2]string{subscription, strings.ToLower(group)}])
}

// SetDeployment adds the deployment to the resource group, or replaces the
// one with its name, and reports whether it is new.
func (d *Directory) SetDeployment(subscription, group string, x Deployment) bool {
	k := [2]string{subscription, strings.ToLower(group)}
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.deployments[k])
	i := slices.IndexFunc(all, func(o Deployment) bool { return strings.EqualFold(o.Name, x.Name) })
	if i < 0 {
		d.deployments[k] = append(all, x)
		return true
	}
	all[i] = x
	d.deployments[k] = all
	return false
}
