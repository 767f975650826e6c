package partnercenter

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	pageSize = "500" // the most that Partner Center gives
	maxPages = 1000
)

// A Customer is a customer of the partner's.
type Customer struct {
	Tenant mandate.TenantID
	Name   string // company name; for people to read
	Domain string
}

// A User is a user of a customer's.
type User struct {
	ID       mandate.ObjectID
	UserName string // for people to read, never a key
	Name     string
}

// Customers returns the customers of the partner whose token it is. The first
// error, a [*mandate.Fault], ends the sequence; customers before it are good.
func (c *Client) Customers(ctx context.Context, token mandate.Secret) iter.Seq2[Customer, error] {
	type item struct {
		ID      string `json:"id"`
		Profile struct {
			TenantID string `json:"tenantId"`
			Name     string `json:"companyName"`
			Domain   string `json:"domain"`
		} `json:"companyProfile"`
	}
	return all(ctx, c, token, "customers", func(i item) (Customer, error) {
		id := i.Profile.TenantID
		if id == "" {
			id = i.ID
		}
		tenant, err := mandate.ParseTenantID(id)
		return Customer{Tenant: tenant, Name: upstream.Clean(i.Profile.Name, 256), Domain: upstream.Clean(i.Profile.Domain, 256)}, err
	})
}

// Users returns the users of a customer, as [Client.Customers] does customers.
func (c *Client) Users(ctx context.Context, token mandate.Secret, customer mandate.TenantID) iter.Seq2[User, error] {
	type item struct {
		ID       string `json:"id"`
		UserName string `json:"userPrincipalName"`
		Name     string `json:"displayName"`
	}
	return all(ctx, c, token, "customers/"+customer.String()+"/users", func(i item) (User, error) {
		id, err := mandate.ParseObjectID(i.ID)
		return User{ID: id, UserName: upstream.Clean(i.UserName, 256), Name: upstream.Clean(i.Name, 256)}, err
	})
}

// A page is one of a collection's.
type page[T any] struct {
	Items []T `json:"items"`
	Links struct {
		Next *struct {
			URI     string `json:"uri"`
			Headers []struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			} `json:"headers"`
		} `json:"next"`
	} `json:"links"`
}

// continuation is the header that carries the place in a collection.
const continuation = "MS-ContinuationToken"

// all walks the pages of a collection.
func all[T, V any](ctx context.Context, c *Client, token mandate.Secret, name string, convert func(T) (V, error)) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		var none V
		first := c.base.JoinPath(name)
		first.RawQuery = "size=" + pageSize
		at, header := first, http.Header{}
		for n := 0; at != nil; n++ {
			if n == maxPages {
				yield(none, unusable("%s has more than %d pages", name, maxPages))
				return
			}
			var p page[T]
			err := c.fetch(ctx, token, at, header, &p)
			if err == nil {
				at, header, err = p.next(first)
			}
			if err != nil {
				yield(none, err)
				return
			}
			if !emit(p.Items, name, convert, yield) {
				return
			}
		}
	}
}

// emit yields the items of a page, and reports whether to go on.
func emit[T, V any](items []T, name string, convert func(T) (V, error), yield func(V, error) bool) bool {
	for _, item := range items {
		v, err := convert(item)
		if err != nil {
			err = unusable("an item of %s is malformed: %v", name, err)
		}
		if !yield(v, err) || err != nil {
			return false
		}
	}
	return true
}

func (c *Client) fetch(ctx context.Context, token mandate.Secret, at *url.URL, header http.Header, into any) error {
	h, body, err := c.get(ctx, token, at, header)
	if err != nil {
		return err
	}
	if err := decode(h, body, into); err != nil {
		return unusable("%v", err)
	}
	return nil
}

// next returns where the following page is, or nil after the last. The link is
// relative to /v1, and must lead to the same collection on the same host: the
// token goes with it. Of the headers that it names only the continuation is
// sent.
func (p page[T]) next(first *url.URL) (*url.URL, http.Header, error) {
	link := p.Links.Next
	if link == nil || link.URI == "" {
		return nil, nil, nil
	}
	u, err := url.Parse(link.URI)
	if err != nil {
		return nil, nil, unusable("the link to the next page is malformed")
	}
	if u.Scheme == "" && u.Host == "" {
		u.Scheme, u.Host = first.Scheme, first.Host
		if !strings.HasPrefix(u.Path, "/v1/") {
			u.Path = "/v1/" + u.Path
		}
	}
	if u.Scheme != first.Scheme || u.Host != first.Host || u.User != nil || path.Clean(u.Path) != first.Path {
		return nil, nil, unusable("the link to the next page leads elsewhere")
	}
	at := *first
	at.RawQuery = u.RawQuery
	header := http.Header{}
	for _, h := range link.Headers {
		if strings.EqualFold(h.Key, continuation) {
			header.Set(continuation, h.Value)
		}
	}
	return &at, header, nil
}

// unusable is the fault of an answer that cannot be what Partner Center meant.
func unusable(format string, args ...any) *mandate.Fault {
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry,
		Description: "Partner Center: " + fmt.Sprintf(format, args...)}
}
