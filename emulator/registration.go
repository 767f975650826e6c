package emulator

import (
	"fmt"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// Types of an [Application]'s registration.
type (
	Federated = directory.Federated
	Scope     = directory.Scope
)

// ChangePassword says that the user's password was changed, has expired or was
// reset by the user or in the Azure portal. That ends the refresh tokens of
// public clients (50173) and leaves those of confidential clients alive; see
// [Emulator.Revoke] for what ends all of them.
func (e *Emulator) ChangePassword(upn string) error {
	u, ok := e.User(upn)
	if !ok {
		return fmt.Errorf("change password of %q: %w user", upn, errUnknown)
	}
	e.directory.ChangePassword(u.ID, e.dials.Now())
	return nil
}
