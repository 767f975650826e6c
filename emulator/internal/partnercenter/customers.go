package partnercenter

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

const maxSize = 500

// customers lists the partner's customers, a page at a time.
func (s *Server) customers(c call) (reply, error) {
	all, err := filter(s.cfg.Directory.Customers(c.partner.ID), c.URL.Query().Get("filter"))
	if err != nil {
		return reply{}, err
	}
	return ok(page(c, all, "/customers", summary))
}

// page is the page of the list that the request asks for.
func page[T any](c call, all []T, path string, show func(T) map[string]any) (map[string]any, error) {
	q := c.URL.Query()
	size, err := pageSize(q)
	if err != nil {
		return nil, err
	}
	at, err := start(c, q)
	if err != nil || at > len(all) {
		return nil, errBadRequest
	}
	end := min(at+size, len(all))
	items := []any{}
	for _, t := range all[at:end] {
		items = append(items, show(t))
	}
	body := collection(items, path+"?"+c.URL.RawQuery)
	if end < len(all) {
		next(body, path, size, continuation(c.partner.ID, end))
	}
	return body, nil
}

// collection is a list as the API writes it. Links are relative to /v1.
func collection(items []any, self string) map[string]any {
	return map[string]any{
		"totalCount": len(items),
		"items":      items,
		"links":      map[string]any{"self": link(strings.TrimSuffix(self, "?"))},
		"attributes": map[string]any{"objectType": "Collection"},
	}
}

func link(uri string) map[string]any {
	return map[string]any{"uri": uri, "method": "GET", "headers": []any{}}
}

// next adds where the next page is. The token goes into a header, not into
// the link.
func next(body map[string]any, path string, size int, token string) {
	l := link(path + "?size=" + strconv.Itoa(size) + "&seekOperation=Next")
	l["headers"] = []any{map[string]any{"key": "MS-ContinuationToken", "value": token}}
	body["links"].(map[string]any)["next"] = l
	body["continuationToken"] = token
}

func pageSize(q url.Values) (int, error) {
	if !q.Has("size") {
		return maxSize, nil
	}
	n, err := strconv.Atoi(q.Get("size"))
	if err != nil || n < 1 || n > maxSize {
		return 0, errBadRequest
	}
	return n, nil
}

// continuation says where a listing goes on, and whose it is.
func continuation(partner string, at int) string {
	return base64.RawURLEncoding.EncodeToString([]byte(partner + ":" + strconv.Itoa(at)))
}

// start reads where the page starts. Only seekOperation=Next with the token
// that came with the page before is known.
func start(c call, q url.Values) (int, error) {
	token := c.Header.Get("MS-ContinuationToken")
	if token == "" {
		token = q.Get("continuationToken")
	}
	op := q.Get("seekOperation")
	if op == "" && token == "" {
		return 0, nil
	}
	if !strings.EqualFold(op, "Next") || token == "" {
		return 0, errBadRequest
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, errBadRequest
	}
	partner, at, _ := strings.Cut(string(b), ":")
	n, err := strconv.Atoi(at)
	if err != nil || n < 0 || partner != c.partner.ID {
		return 0, errBadRequest
	}
	return n, nil
}

// filter keeps the customers whose name or domain starts as the filter says.
// The documents write starts_with, and Microsoft's libraries StartsWith.
func filter(all []directory.Tenant, raw string) ([]directory.Tenant, error) {
	if raw == "" {
		return all, nil
	}
	var f struct{ Field, Value, Operator string }
	if json.Unmarshal([]byte(raw), &f) != nil || !strings.EqualFold(strings.ReplaceAll(f.Operator, "_", ""), "startswith") {
		return nil, errBadRequest
	}
	field := func(t directory.Tenant) string { return t.Name }
	switch strings.ToLower(f.Field) {
	case "companyname":
	case "domain":
		field = func(t directory.Tenant) string { return t.Domain }
	default:
		return nil, errBadRequest
	}
	var kept []directory.Tenant
	for _, t := range all {
		if strings.HasPrefix(strings.ToLower(field(t)), strings.ToLower(f.Value)) {
			kept = append(kept, t)
		}
	}
	return kept, nil
}

// summary is a customer as lists show it.
func summary(t directory.Tenant) map[string]any {
	return map[string]any{
		"id": t.ID,
		"companyProfile": map[string]any{
			"tenantId": t.ID, "domain": t.Domain, "companyName": t.Name,
			"links":      map[string]any{"self": link("/customers/" + t.ID + "/profiles/company")},
			"attributes": map[string]any{"objectType": "CustomerCompanyProfile"},
		},
		"relationshipToPartner": "reseller",
		"links":                 map[string]any{"self": link("/customers/" + t.ID)},
		"attributes":            map[string]any{"objectType": "Customer"},
	}
}

// mine returns the customer of the path, if it is the partner's.
func (s *Server) mine(c call) (directory.Tenant, error) {
	t, ok := s.cfg.Directory.Tenant(c.PathValue("customer"))
	if !ok || !s.cfg.Directory.IsCustomer(c.partner.ID, t.ID) {
		return t, errNotFound
	}
	return t, nil
}

func (s *Server) customer(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	body := summary(t)
	body["commerceId"] = t.ID
	body["billingProfile"] = map[string]any{
		"companyName": t.Name, "email": "owner@" + t.Domain, "culture": "en-US", "language": "en",
		"attributes": map[string]any{"objectType": "CustomerBillingProfile"},
	}
	body["allowDelegatedAccess"] = true
	body["customDomains"] = []string{t.Domain}
	body["associatedPartnerId"] = c.partner.ID
	body["attributes"] = map[string]any{"objectType": "Customer", "etag": base64.StdEncoding.EncodeToString([]byte(t.ID))}
	return ok(body, nil)
}

func (s *Server) company(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	return ok(summary(t)["companyProfile"].(map[string]any), nil)
}

func (s *Server) users(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	return ok(page(c, s.cfg.Directory.Users(t.ID, 0), "/customers/"+t.ID+"/users", customerUser))
}

func (s *Server) user(c call) (reply, error) {
	t, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	u, found := s.cfg.Directory.UserByID(strings.ToLower(c.PathValue("user")))
	if !found || u.Tenant != t.ID {
		return reply{}, errUnknownRoute
	}
	return ok(customerUser(u), nil)
}

func customerUser(u directory.User) map[string]any {
	return map[string]any{
		"id": u.ID, "userPrincipalName": u.UPN, "firstName": u.GivenName, "lastName": u.Surname, "displayName": u.Name,
		"usageLocation": "US", "userDomainType": "managed", "state": "active",
		"immutableId": nil, "passwordProfile": nil, "lastDirectorySyncTime": nil, "softDeletionTime": nil,
		"links":      map[string]any{"self": link("/customers/" + u.Tenant + "/users/" + u.ID)},
		"attributes": map[string]any{"objectType": "CustomerUser"},
	}
}

// organization is the profile of the partner itself.
func (s *Server) organization(c call) (reply, error) {
	return ok(map[string]any{
		"id": c.partner.ID, "tenantId": c.partner.ID, "companyName": c.partner.Name, "domain": c.partner.Domain,
		"email": "admin@" + c.partner.Domain, "language": "en", "culture": "en-US",
		"defaultAddress": map[string]any{"country": "US", "city": "Redmond", "addressLine1": "1 Example Way", "postalCode": "98052"},
		"links":          map[string]any{"self": link("/profiles/organization")},
		"attributes":     map[string]any{"objectType": "OrganizationProfile"},
	}, nil)
}
