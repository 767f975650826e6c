package emulator

import "github.com/mandate-sam/mandate/emulator/fault"

// DelegateRoles says which roles (template ids) the partner's AdminAgents have
// in the customer's tenant. Without it they have those of a Cloud Application
// Administrator and a Global Reader.
func (e *Emulator) DelegateRoles(partner, customer string, roles ...string) {
	e.directory.DelegateRoles(partner, customer, roles...)
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
