package api

import (
	"context"
	"net/url"

	"github.com/mandate-sam/mandate"
)

// Customers returns the customers of a partner by name, and how old the list
// is.
func (c *Client) Customers(ctx context.Context, nameOrID string) (CustomerList, error) {
	path, err := customersPath(nameOrID)
	if err != nil {
		return CustomerList{}, err
	}
	return exchange[CustomerList](ctx, c, "GET", path, nil)
}

// RefreshCustomers has the server ask Microsoft for a partner's customers, and
// returns how the list stands then, without the customers. That Microsoft did
// not answer is told there and is no error.
func (c *Client) RefreshCustomers(ctx context.Context, nameOrID string, in ActRequest) (CustomerList, error) {
	path, err := customersPath(nameOrID)
	if err != nil {
		return CustomerList{}, err
	}
	return exchange[CustomerList](ctx, c, "POST", path+"/refresh", in)
}

// Customer returns the partners whose customer a tenant is, or was.
func (c *Client) Customer(ctx context.Context, tenant mandate.TenantID) ([]Served, error) {
	a, err := exchange[servedAnswer](ctx, c, "GET", "/v1/customers/"+tenant.String(), nil)
	return a.Partners, err
}

func customersPath(nameOrID string) (string, error) {
	if !mandate.Name(nameOrID) {
		return "", mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	return "/v1/partners/" + url.PathEscape(nameOrID) + "/customers", nil
}
