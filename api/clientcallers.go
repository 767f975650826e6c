package api

import (
	"context"
	"net/url"

	"github.com/mandate-sam/mandate"
)

// Callers returns all registered workloads.
func (c *Client) Callers(ctx context.Context) ([]Caller, error) {
	a, err := exchange[callersAnswer](ctx, c, "GET", "/v1/callers", nil)
	return a.Callers, err
}

// Caller returns the caller of that id.
func (c *Client) Caller(ctx context.Context, id string) (Caller, error) {
	return exchangeCaller[Caller](ctx, c, "GET", id, "", nil)
}

// AddCaller registers a workload and returns its secret, which cannot be had
// again.
func (c *Client) AddCaller(ctx context.Context, id string) (mandate.Secret, error) {
	a, err := c.RegisterCaller(ctx, CallerRequest{ID: id})
	if err != nil {
		return mandate.Secret{}, err
	}
	return mandate.NewSecret(a.Secret), nil
}

// RegisterCaller registers a workload. If the answer has a secret, it cannot
// be had again.
func (c *Client) RegisterCaller(ctx context.Context, in CallerRequest) (CallerAnswer, error) {
	return exchange[CallerAnswer](ctx, c, "POST", "/v1/callers", in)
}

// AddCredential gives a caller one more.
func (c *Client) AddCredential(ctx context.Context, id string, in Show) (CallerAnswer, error) {
	return exchangeCaller[CallerAnswer](ctx, c, "POST", id, "/credentials", in)
}

// RotateCaller gives a caller a new secret beside the one it has.
func (c *Client) RotateCaller(ctx context.Context, id string, in RotateCallerRequest) (CallerAnswer, error) {
	return exchangeCaller[CallerAnswer](ctx, c, "POST", id, "/rotate", in)
}

// ExpireCredential lets a credential of a caller end.
func (c *Client) ExpireCredential(ctx context.Context, id string, in ExpireRequest) error {
	_, err := exchangeCaller[struct{}](ctx, c, "POST", id, "/expire", in)
	return err
}

// RemoveCaller takes a caller away.
func (c *Client) RemoveCaller(ctx context.Context, id string) error {
	_, err := exchangeCaller[struct{}](ctx, c, "POST", id, "/remove", struct{}{})
	return err
}

// AdoptCaller makes whoever asks the one who answers for a caller.
func (c *Client) AdoptCaller(ctx context.Context, id string) error {
	_, err := exchangeCaller[struct{}](ctx, c, "POST", id, "/adopt", struct{}{})
	return err
}

// exchangeCaller makes one request about a caller.
func exchangeCaller[T any](ctx context.Context, c *Client, method, id, what string, in any) (T, error) {
	if !mandate.Name(id) {
		var zero T
		return zero, mandate.Invalid("caller", "must be the name of a caller")
	}
	return exchange[T](ctx, c, method, "/v1/callers/"+url.PathEscape(id)+what, in)
}
