package api

import (
	"context"
	"net/url"

	"github.com/mandate-sam/mandate"
)

// Grants returns how all partners' consents stand, sorted by name.
func (c *Client) Grants(ctx context.Context) ([]PartnerGrant, error) {
	a, err := exchange[grantsAnswer](ctx, c, "GET", "/v1/grants", nil)
	return a.Grants, err
}

// History returns every generation of a partner's grant.
func (c *Client) History(ctx context.Context, nameOrID string) (History, error) {
	path, err := grantPath(nameOrID, "")
	if err != nil {
		return History{}, err
	}
	return exchange[History](ctx, c, "GET", path, nil)
}

// Act makes a change of a partner's grant: "suspend", "resume" or "rollback".
func (c *Client) Act(ctx context.Context, nameOrID, act string, in ActRequest) (Acted, error) {
	return onGrant[Acted](ctx, c, nameOrID, act, in)
}

// Decide decides on a consent that waits for it: "approve" or "discard".
func (c *Client) Decide(ctx context.Context, nameOrID, act string, in DecideRequest) (Acted, error) {
	return onGrant[Acted](ctx, c, nameOrID, act, in)
}

// Withdraw destroys a partner's grant for good.
func (c *Client) Withdraw(ctx context.Context, nameOrID string, in WithdrawRequest) (Withdrawn, error) {
	return onGrant[Withdrawn](ctx, c, nameOrID, "withdraw", in)
}

// Import makes a grant of a refresh token from elsewhere.
func (c *Client) Import(ctx context.Context, nameOrID string, in ImportRequest) (Imported, error) {
	return onGrant[Imported](ctx, c, nameOrID, "import", in)
}

// Forecast tells what breaks next, the earliest first.
func (c *Client) Forecast(ctx context.Context) ([]mandate.Trouble, error) {
	a, err := exchange[forecastAnswer](ctx, c, "GET", "/v1/forecast", nil)
	return a.Troubles, err
}

func onGrant[T any](ctx context.Context, c *Client, nameOrID, act string, in any) (T, error) {
	path, err := grantPath(nameOrID, "/"+act)
	if err != nil {
		var none T
		return none, err
	}
	return exchange[T](ctx, c, "POST", path, in)
}

func grantPath(nameOrID, suffix string) (string, error) {
	if !mandate.Name(nameOrID) {
		return "", mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	return "/v1/grants/" + url.PathEscape(nameOrID) + suffix, nil
}
