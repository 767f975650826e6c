// Package arm is the emulator's Azure Resource Manager: each customer has one
// subscription with two resource groups.
//
// It follows "Azure Resource Manager REST API".
package arm

import (
	"errors"
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A Server is the API.
type Server struct{ cfg bearer.Config }

// New returns a server.
func New(cfg bearer.Config) *Server { return &Server{cfg} }

type apiError struct {
	status     int
	code, text string
	retryAfter int
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

var (
	errNoToken      = &apiError{status: 401, code: "AuthenticationFailed", text: "Authentication failed. The 'Authorization' header is missing."}
	errToken        = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "The access token is invalid."}
	errAudience     = &apiError{status: 401, code: "InvalidAuthenticationTokenAudience", text: "The access token has been obtained for wrong audience or resource."}
	errVersion      = &apiError{status: 400, code: "MissingApiVersionParameter", text: "The api-version query parameter (?api-version=) is required for all requests."}
	errSubscription = &apiError{status: 404, code: "SubscriptionNotFound", text: "The subscription could not be found."}
	errPath         = &apiError{status: 404, code: "NotFound", text: "The resource could not be found."}
)

// Handler serves the API. Paths are compared without regard to case.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-ms-request-id", s.cfg.Chance.GUID())
		body, err := s.serve(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		bearer.WriteJSON(w, http.StatusOK, body)
	})
}

func (s *Server) serve(r *http.Request) (any, error) {
	t, err := s.admit(r)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get("api-version") == "" {
		return nil, errVersion
	}
	tenant, _ := s.cfg.Directory.Tenant(t.Tenant)
	parts := strings.Split(strings.Trim(strings.ToLower(r.URL.Path), "/"), "/")
	switch {
	case r.Method != http.MethodGet || parts[0] != "subscriptions":
		return nil, errPath
	case len(parts) == 1:
		return map[string]any{"value": subscriptions(tenant), "count": map[string]any{"type": "Total", "value": len(subscriptions(tenant))}}, nil
	case tenant.Subscription == "" || parts[1] != strings.ToLower(tenant.Subscription):
		return nil, errSubscription
	case len(parts) == 2:
		return subscriptions(tenant)[0], nil
	case len(parts) == 3 && parts[2] == "resourcegroups":
		return map[string]any{"value": groups(tenant)}, nil
	}
	return nil, errPath
}

func (s *Server) admit(r *http.Request) (bearer.Token, error) {
	if t, ok := s.cfg.Dials.Throttled("arm"); ok {
		return bearer.Token{}, &apiError{t.Status, "TooManyRequests", "Too many requests.", t.RetryAfter}
	}
	t, err := s.cfg.Read(r)
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return t, errNoToken
	case err != nil:
		return t, errToken
	case t.Resource.ID != directory.ARM:
		return t, errAudience
	}
	return t, nil
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := errPath
	errors.As(err, &e)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+s.cfg.Login+`/common", error="invalid_token", error_description="`+e.text+`"`)
	}
	if id := r.Header.Get("x-ms-client-request-id"); id != "" {
		w.Header().Set("x-ms-client-request-id", id)
	}
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{"error": map[string]any{"code": e.code, "message": e.text}})
}

func subscriptions(t directory.Tenant) []map[string]any {
	if t.Subscription == "" {
		return []map[string]any{}
	}
	return []map[string]any{{
		"id": "/subscriptions/" + t.Subscription, "subscriptionId": t.Subscription, "tenantId": t.ID,
		"displayName": t.Name + " production", "state": "Enabled", "authorizationSource": "RoleBased",
		"subscriptionPolicies": map[string]any{"quotaId": "CSP_2015-05-01", "spendingLimit": "Off"},
	}}
}

func groups(t directory.Tenant) []map[string]any {
	var list []map[string]any
	for _, name := range []string{"rg-web", "rg-data"} {
		list = append(list, map[string]any{
			"id": "/subscriptions/" + t.Subscription + "/resourceGroups/" + name, "name": name,
			"type": "Microsoft.Resources/resourceGroups", "location": "westeurope",
			"properties": map[string]any{"provisioningState": "Succeeded"},
		})
	}
	return list
}
