package api

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/footprint"
	"github.com/mandate-sam/mandate/internal/web"
)

// usageTimeout bounds the answer about a partner's usage: months of records
// are read for it.
const usageTimeout = 4 * time.Minute

// partnerUsage is GET /v1/partners/{partner}/usage?days=90&customer=TENANT.
func (s *Server) partnerUsage(a Archive, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	days, customer, err := parseUsage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	p, err := s.partnerOf(r)
	if err != nil {
		return err
	}
	g, err := s.cfg.Grants.Head(r.Context(), p.Key)
	if err != nil {
		return err
	}
	// A recorder that cannot be given more time has none that is limited.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(usageTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	to := time.Now().UTC()
	subject := footprint.Subject{
		Partner: p.Name, Grant: g, Customer: customer, Days: days, From: to.AddDate(0, 0, -days), To: to, Audiences: make(map[mandate.Audience]string),
	}
	for name, endpoint := range s.cfg.Clouds[p.Key.Cloud].Audiences {
		subject.Audiences[endpoint.Resource] = name
	}
	q := audit.Query{Chain: audit.Chain(p.Key.Cloud, p.Key.Partner), Kind: mandate.KindIssued, From: subject.From}
	if !customer.IsZero() {
		q.Tenant = customer.String()
	}
	report, err := footprint.Measure(subject, recordsOf(a.Each(r.Context(), q)))
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, report)
}

func recordsOf(entries iter.Seq2[audit.Entry, error]) iter.Seq2[mandate.Record, error] {
	return func(yield func(mandate.Record, error) bool) {
		for e, err := range entries {
			if !yield(e.Record, err) {
				return
			}
		}
	}
}

func parseUsage(query string) (days int, customer mandate.TenantID, err error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, customer, mandate.Invalid("query", "is malformed")
	}
	days = 90
	for name, values := range q {
		switch v := values[0]; {
		case len(values) != 1:
			return 0, customer, mandate.Invalid(name, "is given twice")
		case name == "days" && v == "30":
			days = 30
		case name == "days" && v == "90":
		case name == "days":
			return 0, customer, mandate.Invalid("days", "must be 30 or 90")
		case name == "customer":
			if customer, err = mandate.ParseTenantID(v); err != nil {
				return 0, customer, mandate.Invalid("customer", "must be a tenant id")
			}
		default:
			return 0, customer, mandate.Invalid(name, "is not a parameter of this request")
		}
	}
	return days, customer, nil
}

// Usage compares what a partner consented to with what was used. Parameters
// are days, 30 or 90, and customer, a tenant id.
func (c *Client) Usage(ctx context.Context, partner string, q url.Values) (footprint.Report, error) {
	return exchange[footprint.Report](ctx, c, "GET", "/v1/partners/"+url.PathEscape(partner)+"/usage?"+q.Encode(), nil)
}
