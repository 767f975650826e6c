// Package arm is the emulator's Azure Resource Manager: each customer has one
// subscription, which starts with two resource groups. Deployments to them
// succeed and deploy nothing.
//
// It follows "Azure Resource Manager REST API".
package arm

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A Server is the API.
type Server struct {
	cfg bearer.Config

	// mu guards the fields below, which count for one generation of the
	// directory only.
	mu         sync.Mutex
	generation int
	deletions  map[string]*deletion // by id of the operation
}

// New returns a server.
func New(cfg bearer.Config) *Server { return &Server{cfg: cfg} }

type apiError struct {
	status     int
	code, text string
	retryAfter int
	claims     string // demanded by the challenge (JSON)
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

var (
	errNoToken      = &apiError{status: 401, code: "AuthenticationFailed", text: "Authentication failed. The 'Authorization' header is missing."}
	errToken        = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "The access token is invalid."}
	errAudience     = &apiError{status: 401, code: "InvalidAuthenticationTokenAudience", text: "The access token has been obtained for wrong audience or resource."}
	errIssuer       = &apiError{status: 401, code: "InvalidAuthenticationTokenTenant", text: "The access token is from the wrong issuer. It must match the tenant associated with this subscription."}
	errForbidden    = &apiError{status: 403, code: "AuthorizationFailed", text: "The client does not have authorization to perform this action over the scope."}
	errVersion      = &apiError{status: 400, code: "MissingApiVersionParameter", text: "The api-version query parameter (?api-version=) is required for all requests."}
	errContent      = &apiError{status: 400, code: "InvalidRequestContent", text: "The request content was invalid and could not be deserialized."}
	errLocation     = &apiError{status: 400, code: "LocationRequired", text: "The location property is required for this definition."}
	errMoved        = &apiError{status: 409, code: "InvalidResourceGroupLocation", text: "The resource group already exists in another location."}
	errName         = &apiError{status: 400, code: "InvalidResourceName", text: "The name contains characters that are not allowed, or is too long."}
	errTemplate     = &apiError{status: 400, code: "InvalidTemplate", text: "Deployment template validation failed: the template or its mode is missing or not valid."}
	errSubscription = &apiError{status: 404, code: "SubscriptionNotFound", text: "The subscription could not be found."}
	errGroup        = &apiError{status: 404, code: "ResourceGroupNotFound", text: "Resource group could not be found."}
	errDeployment   = &apiError{status: 404, code: "DeploymentNotFound", text: "Deployment could not be found."}
	errDeleting     = &apiError{status: 409, code: "ResourceGroupBeingDeleted", text: "The resource group is in deprovisioning state and cannot perform this operation."}
	errOperation    = &apiError{status: 404, code: "OperationNotFound", text: "The operation could not be found."}
	errPath         = &apiError{status: 404, code: "NotFound", text: "The resource could not be found."}
)

// call is one authenticated request.
type call struct {
	*http.Request
	token bearer.Token
	names []string         // what stands for "*" in the route, as it was written
	home  directory.Tenant // whose subscription the path names
}

// reply is a good answer. A nil body is an empty one.
type reply struct {
	status  int
	body    any
	headers map[string]string
}

func ok(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }

// route is a path in lower case, in which "*" is any one segment, and what
// answers it.
type route struct {
	method, path string
	handle       func(*Server, call) (reply, error)
}

const deploymentPath = "subscriptions/*/resourcegroups/*/providers/microsoft.resources/deployments"

var routes = []route{
	{"GET", "tenants", (*Server).tenants},
	{"GET", "subscriptions", (*Server).subscriptions},
	{"GET", "subscriptions/*", (*Server).subscription},
	{"GET", "subscriptions/*/resourcegroups", (*Server).groups},
	{"GET", "subscriptions/*/resourcegroups/*", (*Server).group},
	{"HEAD", "subscriptions/*/resourcegroups/*", (*Server).groupExists},
	{"PUT", "subscriptions/*/resourcegroups/*", (*Server).putGroup},
	{"PATCH", "subscriptions/*/resourcegroups/*", (*Server).patchGroup},
	{"DELETE", "subscriptions/*/resourcegroups/*", (*Server).deleteGroup},
	{"GET", "subscriptions/*/operationresults/*", (*Server).operationResult},
	{"GET", deploymentPath, (*Server).deployments},
	{"GET", deploymentPath + "/*", (*Server).deployment},
	{"HEAD", deploymentPath + "/*", (*Server).deploymentExists},
	{"POST", deploymentPath + "/*/validate", (*Server).validate},
	{"PUT", deploymentPath + "/*", (*Server).putDeployment},
	{"DELETE", deploymentPath + "/*", (*Server).deleteDeployment},
	{"GET", deploymentPath + "/*/operationstatuses/*", (*Server).operation},
}

// Handler serves the API. Paths are compared without regard to case.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-ms-request-id", s.cfg.Chance.GUID())
		if id := r.Header.Get("x-ms-client-request-id"); id != "" {
			w.Header().Set("x-ms-client-request-id", id)
		}
		out, err := s.serve(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		for name, value := range out.headers {
			w.Header().Set(name, value)
		}
		if out.body == nil {
			w.WriteHeader(out.status)
			return
		}
		bearer.WriteJSON(w, out.status, out.body)
	})
}

func (s *Server) serve(r *http.Request) (reply, error) {
	t, err := s.admit(r)
	if err != nil {
		return reply{}, err
	}
	if r.URL.Query().Get("api-version") == "" {
		return reply{}, errVersion
	}
	for _, rt := range routes {
		names, matches := rt.match(r)
		if !matches {
			continue
		}
		c := call{Request: r, token: t, names: names}
		if len(names) > 0 {
			if c.home, err = s.visible(t, names[0]); err != nil {
				return reply{}, err
			}
		}
		if rt.method != http.MethodGet && rt.method != http.MethodHead && !s.mayWrite(c) {
			return reply{}, errForbidden
		}
		return rt.handle(s, c)
	}
	return reply{}, errPath
}

// match reports whether the request is for the route, and what its segments
// are that the route leaves open.
func (rt route) match(r *http.Request) (names []string, matches bool) {
	want, got := strings.Split(rt.path, "/"), segments(r)
	if r.Method != rt.method || len(want) != len(got) {
		return nil, false
	}
	for i, w := range want {
		switch {
		case w == "*":
			names = append(names, got[i])
		case !strings.EqualFold(w, got[i]):
			return nil, false
		}
	}
	return names, true
}

func segments(r *http.Request) []string { return strings.Split(strings.Trim(r.URL.Path, "/"), "/") }

// visible returns the tenant of the subscription, if the token is of that
// tenant.
func (s *Server) visible(t bearer.Token, subscription string) (directory.Tenant, error) {
	home, found := s.cfg.Directory.Tenant(t.Tenant)
	if found && home.Subscription != "" && strings.EqualFold(home.Subscription, subscription) {
		return home, nil
	}
	if _, elsewhere := s.cfg.Directory.TenantOf(subscription); elsewhere {
		return home, errIssuer
	}
	return home, errSubscription
}

// mayWrite: the partner's AdminAgents own their customers' subscriptions, and
// so does an administrator of the customer.
func (s *Server) mayWrite(c call) bool {
	u := c.token.Holder
	if c.token.AppOnly() {
		return false
	}
	return u.Tenant == c.home.ID && u.MayConsent() || u.Tenant != c.home.ID && s.cfg.Directory.MayAct(u, c.home.ID)
}

func (s *Server) admit(r *http.Request) (bearer.Token, error) {
	if t, throttled := s.cfg.Dials.Throttled("arm"); throttled {
		return bearer.Token{}, &apiError{status: t.Status, code: "TooManyRequests", text: "Too many requests.", retryAfter: t.RetryAfter}
	}
	t, err := s.cfg.Read(r)
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return t, errNoToken
	case err != nil && !errors.Is(err, bearer.ErrRevoked):
		return t, errToken
	case t.Resource.ID != directory.ARM:
		return t, errAudience
	}
	if claims, demanded := s.cfg.Demanded("arm", t, err); demanded {
		return t, &apiError{status: 401, code: errToken.code, text: "Continuous access evaluation resulted in claims challenge.", claims: claims}
	}
	if err != nil {
		return t, errToken
	}
	return t, nil
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := errPath
	errors.As(err, &e)
	if e.claims != "" {
		w.Header().Set("WWW-Authenticate", s.cfg.Challenge(directory.ARM, e.claims))
	} else if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+s.cfg.Login+"/"+s.tenantFor(r)+`", error="invalid_token", error_description="`+e.text+`"`)
	}
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{"error": map[string]any{"code": e.code, "message": e.text}})
}

// tenantFor is the tenant in which to get a token for the request: that of
// the subscription in its path.
func (s *Server) tenantFor(r *http.Request) string {
	if p := segments(r); len(p) > 1 && strings.EqualFold(p[0], "subscriptions") {
		if t, found := s.cfg.Directory.TenantOf(p[1]); found {
			return t.ID
		}
	}
	return "common"
}

// tenants lists where the token's user may act: at home, and at the customers.
func (s *Server) tenants(c call) (reply, error) {
	list := []any{}
	add := func(t directory.Tenant, category string) {
		list = append(list, map[string]any{
			"id": "/tenants/" + t.ID, "tenantId": t.ID, "displayName": t.Name, "defaultDomain": t.Domain,
			"domains": []string{t.Domain}, "countryCode": "US", "tenantCategory": category, "tenantType": "AAD",
		})
	}
	home, _ := s.cfg.Directory.Tenant(c.token.Tenant)
	if u := c.token.Holder; !c.token.AppOnly() {
		home, _ = s.cfg.Directory.Tenant(u.Tenant)
	}
	add(home, "Home")
	if u := c.token.Holder; !c.token.AppOnly() {
		for _, t := range s.cfg.Directory.Customers(u.Tenant) {
			if s.cfg.Directory.MayAct(u, t.ID) {
				add(t, "ManagedBy")
			}
		}
	}
	return ok(map[string]any{"value": list})
}

func (s *Server) subscriptions(c call) (reply, error) {
	list := []any{}
	if t, _ := s.cfg.Directory.Tenant(c.token.Tenant); t.Subscription != "" {
		list = append(list, subscriptionObject(t))
	}
	return ok(map[string]any{"value": list, "count": map[string]any{"type": "Total", "value": len(list)}})
}

func (s *Server) subscription(c call) (reply, error) { return ok(subscriptionObject(c.home)) }

func subscriptionObject(t directory.Tenant) map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + t.Subscription, "subscriptionId": t.Subscription, "tenantId": t.ID,
		"displayName": t.Name + " production", "state": "Enabled", "authorizationSource": "RoleBased",
		"subscriptionPolicies": map[string]any{"quotaId": "CSP_2015-05-01", "spendingLimit": "Off"},
	}
}

// allowedName is what a resource group or a deployment can be called.
var allowedName = regexp.MustCompile(`^[-\w._()]{1,90}$`)
