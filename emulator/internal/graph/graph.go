// Package graph is the emulator's Graph API, as far as it says who signed in
// and what a tenant consists of.
//
// It follows "Microsoft Graph REST API v1.0".
package graph

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A Server is the API.
type Server struct{ cfg bearer.Config }

// New returns a server.
func New(cfg bearer.Config) *Server { return &Server{cfg} }

// apiError is an error of the API.
type apiError struct {
	status     int
	code, text string
	retryAfter int
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

var (
	errNoToken   = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token is empty."}
	errToken     = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token validation failure."}
	errAudience  = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token validation failure. Invalid audience."}
	errScope     = &apiError{status: 403, code: "Authorization_RequestDenied", text: "Insufficient privileges to complete the operation."}
	errNotFound  = &apiError{status: 404, code: "Request_ResourceNotFound", text: "Resource does not exist or one of its queried reference-property objects are not present."}
	errDelegated = &apiError{status: 400, code: "BadRequest", text: "/me request is only valid with delegated authentication flow."}
	errSegment   = &apiError{status: 400, code: "BadRequest", text: "Resource not found for the segment."}
)

// call is one authenticated request.
type call struct {
	*http.Request
	token  bearer.Token
	tenant directory.Tenant
}

// route says which scopes a path needs (any of them) and what answers it.
type route struct {
	pattern string
	scopes  []string
	handle  func(*Server, call) (map[string]any, error)
}

var (
	readMe   = []string{"User.Read", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readOrg  = []string{"User.Read", "Organization.Read.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readDoms = []string{"Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readAll  = []string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
)

var routes = []route{
	{"GET /v1.0/me", readMe, (*Server).me},
	{"GET /v1.0/me/memberOf", readMe, (*Server).memberOf},
	{"GET /v1.0/organization", readOrg, (*Server).organization},
	{"GET /v1.0/domains", readDoms, (*Server).domains},
	{"GET /v1.0/users", readAll, (*Server).users},
}

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, rt) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.refuse(w, r, errSegment) })
	return mux
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	c, err := s.admit(r, rt)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body, err := rt.handle(s, c)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("request-id", s.cfg.Chance.GUID())
	bearer.WriteJSON(w, http.StatusOK, body)
}

func (s *Server) admit(r *http.Request, rt route) (call, error) {
	c := call{Request: r}
	if t, ok := s.cfg.Dials.Throttled("graph"); ok {
		return c, &apiError{t.Status, "TooManyRequests", "Too many requests.", t.RetryAfter}
	}
	t, err := s.cfg.Read(r)
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return c, errNoToken
	case err != nil:
		return c, errToken
	case t.Resource.ID != directory.Graph:
		return c, errAudience
	case !t.Has(rt.scopes...):
		return c, errScope
	}
	c.token = t
	c.tenant, _ = s.cfg.Directory.Tenant(t.Tenant)
	return c, nil
}

// refuse writes the error as Graph does; the date has no zone.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := errSegment
	errors.As(err, &e)
	id := s.cfg.Chance.GUID()
	h := w.Header()
	h.Set("request-id", id)
	if e.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="", authorization_uri="`+s.cfg.Login+`/common/oauth2/authorize", client_id="`+directory.Graph+`"`)
	}
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{"error": map[string]any{
		"code": e.code, "message": e.text,
		"innerError": map[string]any{
			"date": time.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": id,
			"client-request-id": cmp.Or(r.Header.Get("client-request-id"), id),
		},
	}})
}

const context = "https://graph.microsoft.com/v1.0/$metadata#"

func list(kind string, items []any) map[string]any {
	return map[string]any{"@odata.context": context + kind, "value": items}
}

func user(u directory.User) map[string]any {
	return map[string]any{
		"id": u.ID, "displayName": u.Name, "givenName": u.GivenName, "surname": u.Surname,
		"userPrincipalName": u.UPN, "mail": u.Mail, "businessPhones": []string{},
		"jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "preferredLanguage": nil,
	}
}

// holder is the user object of the token. A delegated administrator has none
// in a customer's tenant.
func (c call) holder() (directory.User, error) {
	if c.token.AppOnly() {
		return directory.User{}, errDelegated
	}
	if c.token.Holder.Tenant != c.tenant.ID {
		return directory.User{}, errNotFound
	}
	return c.token.Holder, nil
}

func (s *Server) me(c call) (map[string]any, error) {
	u, err := c.holder()
	if err != nil {
		return nil, err
	}
	body := user(u)
	body["@odata.context"] = context + "users/$entity"
	return body, nil
}

// memberOf lists the agent groups, which are security groups.
func (s *Server) memberOf(c call) (map[string]any, error) {
	u, err := c.holder()
	if err != nil {
		return nil, err
	}
	items := []any{}
	for _, g := range u.Groups {
		items = append(items, map[string]any{
			"@odata.type": "#microsoft.graph.group", "id": directory.GroupID(u.Tenant, g), "displayName": g,
			"securityEnabled": true, "mailEnabled": false, "groupTypes": []string{}, "mailNickname": g,
		})
	}
	return list("directoryObjects", items), nil
}

func (s *Server) organization(c call) (map[string]any, error) {
	return list("organization", []any{map[string]any{
		"id": c.tenant.ID, "displayName": c.tenant.Name, "tenantType": "AAD", "countryLetterCode": "US",
		"verifiedDomains": []any{map[string]any{"name": c.tenant.Domain, "type": "Managed", "isDefault": true, "isInitial": true, "capabilities": "Email, OfficeCommunicationsOnline"}},
	}}), nil
}

func (s *Server) domains(c call) (map[string]any, error) {
	return list("domains", []any{map[string]any{
		"id": c.tenant.Domain, "authenticationType": "Managed", "isDefault": true, "isInitial": true, "isVerified": true,
		"isAdminManaged": true, "isRoot": true, "supportedServices": []string{"Email"},
	}}), nil
}

func (s *Server) users(c call) (map[string]any, error) {
	items := []any{}
	for _, u := range s.cfg.Directory.Users(c.tenant.ID, 999) {
		items = append(items, user(u))
	}
	return list("users", items), nil
}
