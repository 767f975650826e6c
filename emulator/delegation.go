package emulator

import (
	"fmt"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
)

// DelegateRoles says which roles (template ids) the partner's AdminAgents have
// in the customer's tenant. Without it they have those of a Cloud Application
// Administrator and a Global Reader.
func (e *Emulator) DelegateRoles(partner, customer string, roles ...string) {
	e.directory.DelegateRoles(partner, customer, roles...)
}

// ApproveRelationship approves a delegated admin relationship that its partner
// has locked for approval, as the customer (id or domain) does in the admin
// centre.
func (e *Emulator) ApproveRelationship(id, customer string) error {
	t, ok := e.directory.Tenant(customer)
	if !ok {
		return fmt.Errorf("approve relationship: %w tenant %q", errUnknown, customer)
	}
	now := e.dials.Now()
	_, found, err := e.directory.ChangeRelationship(t.ID, id, func(r *directory.Relationship) error {
		if r.Status != directory.RelationshipPending || r.Partner == t.ID {
			return fmt.Errorf("its status is %s", r.Status)
		}
		r.Customer = t.ID
		r.Activate(now)
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w relationship %q", errUnknown, id)
	}
	if err != nil {
		return fmt.Errorf("approve relationship: %w", err)
	}
	return nil
}

// Customers returns the customers of the partner, which may be named by id or
// domain, in the order in which they were added.
func (e *Emulator) Customers(partner string) []Tenant {
	t, _ := e.directory.Tenant(partner)
	return e.directory.Customers(t.ID)
}

// Uninstall removes the service principal of an application or of a
// Microsoft resource from the tenant, with every grant that it is party to.
func (e *Emulator) Uninstall(tenant, application string) {
	e.directory.RemovePrincipal(tenant, application)
}

// Dials of the services.
type (
	Challenge    = fault.Challenge
	ServiceError = fault.ServiceError
)
