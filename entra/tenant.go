package entra

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// domainName is a DNS name of at least two labels, in lower case.
var domainName = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$`)

// Tenant returns the directory ID of the tenant that has verified a domain, as
// Entra's published metadata says it today. A domain can change hands, so the
// answer is for a person to confirm, once, and never to be looked up again.
//
// The error wraps [mandate.ErrInvalid] if there is no such tenant, or is a
// [*mandate.Fault] if Entra did not answer.
func (c *Client) Tenant(ctx context.Context, domain string) (mandate.TenantID, error) {
	domain = strings.ToLower(domain)
	if len(domain) > 253 || !domainName.MatchString(domain) {
		return mandate.TenantID{}, mandate.Invalid("tenant", "%.60q is neither a tenant id nor a domain", domain)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.Cloud.Authority+"/"+domain+"/v2.0/.well-known/openid-configuration", nil)
	if err != nil {
		return mandate.TenantID{}, err
	}
	status, header, body, err := upstream.Do(c.http, req, maxAnswer)
	if err != nil {
		return mandate.TenantID{}, transport("", strings.NewReplacer(), err)
	}
	var metadata struct {
		Issuer string `json:"issuer"`
	}
	switch {
	case status == http.StatusBadRequest:
		return mandate.TenantID{}, mandate.Invalid("tenant", "Entra knows no tenant that has the domain %s", domain)
	case status != http.StatusOK || !upstream.IsJSON(header) || json.Unmarshal(body, &metadata) != nil:
		return mandate.TenantID{}, &mandate.Fault{
			Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Status: status,
			Description: fmt.Sprintf("Entra's metadata for %s cannot be read", domain),
		}
	}
	before, after, _ := strings.Cut(c.cfg.Cloud.IssuerV2, "{tenantid}")
	id, ok := strings.CutPrefix(metadata.Issuer, before)
	if ok {
		id, ok = strings.CutSuffix(id, after)
	}
	tenant, err := mandate.ParseTenantID(id)
	if !ok || err != nil {
		return mandate.TenantID{}, &mandate.Fault{
			Domain: mandate.DomainTransient, Remedy: mandate.RemedyConfigure, Status: status,
			Description: fmt.Sprintf("Entra's metadata for %s names the issuer %.100q, which is none of this cloud's", domain, metadata.Issuer),
		}
	}
	return tenant, nil
}
