package graph

import (
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// relationshipObject is a delegated admin relationship. Each is in force for
// two years from the emulator's epoch and extends itself.
func (s *Server) relationshipObject(partner, customer directory.Tenant) map[string]any {
	id := directory.RelationshipID(partner.ID, customer.ID)
	return map[string]any{
		"@odata.etag": `W/"` + id[:8] + `"`, "id": id, "displayName": partner.Name + " for " + customer.Name, "duration": "P730D", "autoExtendDuration": "P180D",
		"customer":      map[string]any{"tenantId": customer.ID, "displayName": customer.Name},
		"accessDetails": map[string]any{"unifiedRoles": s.unifiedRoles(partner, customer)},
		"status":        "active", "createdDateTime": stamp(epoch), "lastModifiedDateTime": stamp(epoch),
		"activatedDateTime": stamp(epoch), "endDateTime": stamp(epoch.AddDate(0, 0, 730)),
	}
}

func (s *Server) unifiedRoles(partner, customer directory.Tenant) []any {
	roles := []any{}
	for _, r := range s.cfg.Directory.DelegatedRoles(partner.ID, customer.ID) {
		roles = append(roles, map[string]any{"roleDefinitionId": r})
	}
	return roles
}

func (s *Server) relationships(c call) (reply, error) {
	show := func(t directory.Tenant) map[string]any { return s.relationshipObject(c.tenant, t) }
	return ok(page(c, "tenantRelationships/delegatedAdminRelationships", s.cfg.Directory.Customers(c.tenant.ID), show))
}

// with is the customer of the relationship in the path.
func (s *Server) with(c call) (directory.Tenant, error) {
	for _, t := range s.cfg.Directory.Customers(c.tenant.ID) {
		if strings.EqualFold(directory.RelationshipID(c.tenant.ID, t.ID), c.PathValue("id")) {
			return t, nil
		}
	}
	return directory.Tenant{}, errNotFound
}

func (s *Server) relationship(c call) (reply, error) {
	t, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	return one(c, "tenantRelationships/delegatedAdminRelationships", s.relationshipObject(c.tenant, t))
}

// assignments lists who has the roles: the AdminAgents.
func (s *Server) assignments(c call) (reply, error) {
	t, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	group := directory.GroupID(c.tenant.ID, directory.AdminAgents)
	return ok(page(c, "tenantRelationships/delegatedAdminRelationships('"+directory.RelationshipID(c.tenant.ID, t.ID)+"')/accessAssignments", []map[string]any{{
		"@odata.etag": `W/"` + group[:8] + `"`, "id": group, "status": "active", "createdDateTime": stamp(epoch), "lastModifiedDateTime": stamp(epoch),
		"accessContainer": map[string]any{"accessContainerId": group, "accessContainerType": "securityGroup"},
		"accessDetails":   map[string]any{"unifiedRoles": s.unifiedRoles(c.tenant, t)},
	}}, asIs))
}

// requests lists the requests about the relationship: it was approved.
func (s *Server) requests(c call) (reply, error) {
	t, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	id := directory.RelationshipID(c.tenant.ID, t.ID)
	return ok(page(c, "tenantRelationships/delegatedAdminRelationships('"+id+"')/requests", []map[string]any{{
		"id": directory.GroupID(c.tenant.ID, id), "action": "lockForApproval", "status": "succeeded",
		"createdDateTime": stamp(epoch), "lastModifiedDateTime": stamp(epoch),
	}}, asIs))
}

func customerObject(t directory.Tenant) map[string]any {
	return map[string]any{"id": t.ID, "tenantId": t.ID, "displayName": t.Name}
}

func (s *Server) customers(c call) (reply, error) {
	return ok(page(c, "tenantRelationships/delegatedAdminCustomers", s.cfg.Directory.Customers(c.tenant.ID), customerObject))
}

func (s *Server) customer(c call) (reply, error) {
	t, found := s.cfg.Directory.Tenant(c.PathValue("id"))
	if !found || !s.cfg.Directory.IsCustomer(c.tenant.ID, t.ID) {
		return reply{}, errNotFound
	}
	return one(c, "tenantRelationships/delegatedAdminCustomers", customerObject(t))
}
