package entra

import (
	"context"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
)

// maxIDToken is the longest ID token of a user that is looked at, in bytes.
const maxIDToken = 16 << 10

// VerifyUser verifies an ID token that somebody sends along, in full: of one
// tenant, for this application or one of others, signed by Entra, and valid
// now. Guests of the tenant are refused. The error wraps
// [mandate.ErrUnavailable] if Entra's keys could not be fetched.
func (c *Client) VerifyUser(ctx context.Context, raw string, tenant mandate.TenantID, others []mandate.AppID) (*mandate.IDToken, error) {
	if len(raw) > maxIDToken {
		return nil, bad("it is longer than %d bytes", maxIDToken)
	}
	user, _, err := c.verifyFor(ctx, raw, tenant, append([]mandate.AppID{c.cfg.Application}, others...)...)
	if f, ok := errors.AsType[*mandate.Fault](err); ok {
		return nil, fmt.Errorf("%w: %w", mandate.ErrUnavailable, f)
	}
	if err == nil && user.Guest {
		err = bad("it is of a guest of the tenant, or of a personal account")
	}
	if err != nil {
		return nil, err
	}
	return user, nil
}
