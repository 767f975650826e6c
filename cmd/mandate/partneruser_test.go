package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/mandate-sam/mandate"
)

// The roles of the small world are of contoso's people.

func (w *smallWorld) PartnerUsers(context.Context, mandate.GrantKey) ([]mandate.PartnerUser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.users), nil
}

func (w *smallWorld) AllowPartnerUser(_ context.Context, _ mandate.GrantKey, user mandate.ObjectID, role, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users = append(w.users, mandate.PartnerUser{User: user, Roles: []string{role}, Since: contoso.Created, By: "uid:0\x1b[31m"})
	return nil
}

func (w *smallWorld) RefusePartnerUser(_ context.Context, _ mandate.GrantKey, user mandate.ObjectID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.users)
	if w.users = slices.DeleteFunc(w.users, func(u mandate.PartnerUser) bool { return u.User == user }); len(w.users) == n {
		return fmt.Errorf("%w: nobody has given a role to object %s of the partner", mandate.ErrNotFound, user)
	}
	return nil
}
