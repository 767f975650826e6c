package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Customers knows which customers partners have.
type Customers interface {
	// List returns the customers of a partner by name, those that are gone
	// among them, and how the list stands.
	List(context.Context, mandate.GrantKey) (mandate.CustomerStanding, []mandate.Customer, error)

	// Standing returns how the list of a partner stands.
	Standing(context.Context, mandate.GrantKey) (mandate.CustomerStanding, error)

	// Serving returns as whose customer a tenant is known, or was.
	Serving(context.Context, mandate.TenantID) (map[mandate.GrantKey]mandate.Customer, error)

	// Refresh asks Microsoft for a partner's customers now, and returns how
	// the list stands then: a failure is in there.
	Refresh(context.Context, mandate.Partner, mandate.By) (mandate.CustomerStanding, error)
}

// A CustomerList is how the list of a partner's customers stands.
type CustomerList struct {
	Partner   string             `json:"partner"` // short name
	Tenant    mandate.TenantID   `json:"tenant"`  // the partner's
	Count     int                `json:"count"`   // without those that are gone
	Sources   []string           `json:"sources"` // who told of them
	AsOf      time.Time          `json:"as_of,omitzero"`
	Age       int64              `json:"age,omitempty"` // seconds since then
	Due       time.Time          `json:"due,omitzero"`  // the next refresh
	Failures  int                `json:"failures,omitempty"`
	Fault     string             `json:"fault,omitempty"`     // why the last refresh failed
	Customers []mandate.Customer `json:"customers,omitempty"` // not after a refresh
}

// A Served is a customer of one partner.
type Served struct {
	Partner  string           `json:"partner"` // short name
	Customer mandate.Customer `json:"customer"`
	AsOf     time.Time        `json:"as_of,omitzero"` // of the partner's list
	Age      int64            `json:"age,omitempty"`  // of the list, in seconds
}

type servedAnswer struct {
	Tenant   mandate.TenantID `json:"tenant"`
	Partners []Served         `json:"partners"`
}

// customerRoutes are about the customers of partners.
var customerRoutes = []route{
	{"GET", "/v1/partners/{partner}/customers", (*Server).listCustomers},
	{"POST", "/v1/partners/{partner}/customers/refresh", (*Server).refreshCustomers},
	{"GET", "/v1/customers/{tenant}", (*Server).showCustomer},
}

// customers returns what knows them.
func (s *Server) customers() (Customers, error) {
	if s.cfg.Customers == nil {
		return nil, fmt.Errorf("%w: this server keeps no lists of customers", mandate.ErrNotFound)
	}
	return s.cfg.Customers, nil
}

// customersOf returns how a partner's list stands.
func customersOf(p mandate.Partner, c mandate.CustomerStanding, all []mandate.Customer) CustomerList {
	return CustomerList{
		Partner: p.Name, Tenant: p.Key.Partner, Count: c.Count, Sources: append([]string{}, c.Sources...), AsOf: c.AsOf, Age: age(c.AsOf), Due: c.Due,
		Failures: c.Failures, Fault: c.Fault, Customers: all,
	}
}

// age returns for how many seconds something has been so.
func age(since time.Time) int64 {
	if since.IsZero() {
		return 0
	}
	return int64(time.Since(since) / time.Second)
}

// listCustomers is GET /v1/partners/{partner}/customers.
func (s *Server) listCustomers(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	c, err := s.customers()
	if err != nil {
		return err
	}
	p, err := s.partnerOf(r)
	if err != nil {
		return err
	}
	standing, all, err := c.List(r.Context(), p.Key)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, customersOf(p, standing, all))
}

// refreshTimeout bounds the answer to a refresh.
const refreshTimeout = 4 * time.Minute

// refreshCustomers is POST /v1/partners/{partner}/customers/refresh.
func (s *Server) refreshCustomers(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	c, err := s.customers()
	if err != nil {
		return err
	}
	_, p, by, err := begin(s, w, r, caller, func(in *ActRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(refreshTimeout)); err != nil {
		return fmt.Errorf("prepare answer: %w", err)
	}
	standing, err := c.Refresh(r.Context(), p, by)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, customersOf(p, standing, nil))
}

// showCustomer is GET /v1/customers/{tenant}.
func (s *Server) showCustomer(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	c, err := s.customers()
	if err != nil {
		return err
	}
	tenant, err := mandate.ParseTenantID(r.PathValue("tenant"))
	if err != nil {
		return err
	}
	of, err := c.Serving(r.Context(), tenant)
	if err != nil {
		return err
	}
	partners, err := s.cfg.Registry.Partners(r.Context())
	if err != nil {
		return err
	}
	out := servedAnswer{Tenant: tenant, Partners: []Served{}}
	for _, p := range partners {
		customer, ok := of[p.Key]
		if !ok {
			continue
		}
		standing, err := c.Standing(r.Context(), p.Key)
		if err != nil {
			return err
		}
		if !customer.Gone {
			customer.Last = standing.AsOf
		}
		out.Partners = append(out.Partners, Served{p.Name, customer, standing.AsOf, age(standing.AsOf)})
	}
	if len(out.Partners) == 0 {
		return fmt.Errorf("%w: no list of a partner's customers has tenant %s; if one should, refresh it: mandate customer refresh PARTNER", mandate.ErrNotFound, tenant)
	}
	return web.Write(w, http.StatusOK, out)
}
