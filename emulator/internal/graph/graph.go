// Package graph is the emulator's Graph API, as far as it says who signed in
// and what a tenant consists of, and lets applications be registered, given
// permissions and given new credentials.
//
// It follows "Microsoft Graph REST API v1.0".
package graph

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	pathpkg "path"
	"regexp"
	"slices"
	"strings"

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
	claims     string // demanded by the challenge (JSON)
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

var (
	errNoToken   = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token is empty."}
	errToken     = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token validation failure."}
	errAudience  = &apiError{status: 401, code: "InvalidAuthenticationToken", text: "Access token validation failure. Invalid audience."}
	errProof     = &apiError{status: 401, code: "Authentication_MissingOrMalformed", text: "Access Token missing or malformed."}
	errScope     = &apiError{status: 403, code: "Authorization_RequestDenied", text: "Insufficient privileges to complete the operation."}
	errNotFound  = &apiError{status: 404, code: "Request_ResourceNotFound", text: "Resource does not exist or one of its queried reference-property objects are not present."}
	errDelegated = &apiError{status: 400, code: "BadRequest", text: "/me request is only valid with delegated authentication flow."}
	errSegment   = &apiError{status: 400, code: "BadRequest", text: "Resource not found for the segment."}
	errBody      = &apiError{status: 400, code: "BadRequest", text: "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format."}
	errGranted   = &apiError{status: 409, code: "Request_MultipleObjectsWithSameKeyValue", text: "Permission entry already exists."}
	errQuery     = &apiError{status: 400, code: "BadRequest", text: "Invalid filter clause or query option."}
)

// invalid is a bad request that says what is wrong with it.
func invalid(text string) error {
	return &apiError{status: 400, code: "Request_BadRequest", text: text}
}

// challenge demands the claims instead of accepting the token.
func challenge(claims string) error {
	return &apiError{
		status: 401, code: "InvalidAuthenticationToken", claims: claims,
		text: "Continuous access evaluation resulted in claims challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
	}
}

// call is one authenticated request.
type call struct {
	*http.Request
	token  bearer.Token
	tenant directory.Tenant
}

// reply is a good answer. A nil body is an empty one.
type reply struct {
	status   int
	body     map[string]any
	location string // URL of what was created
}

func ok(body map[string]any, err error) (reply, error) {
	return reply{status: http.StatusOK, body: body}, err
}

// done is the answer of what has nothing to say.
var done = reply{status: http.StatusNoContent}

// route says which scopes a path needs (any of them) and what answers it. What
// manages needs a user with a role, too.
type route struct {
	pattern string
	scopes  []string
	manages bool
	handle  func(*Server, call) (reply, error)
}

var (
	readMe      = []string{"User.Read", "User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readOrg     = []string{"User.Read", "Organization.Read.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readDoms    = []string{"Domain.Read.All", "Domain.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readAll     = []string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	revoke      = []string{"User.ReadWrite.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readApps    = []string{"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	writeApps   = []string{"Application.ReadWrite.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readOwn     = append(slices.Clone(readApps), directory.OwnedApplications)
	writeOwn    = append(slices.Clone(writeApps), directory.OwnedApplications)
	readGrants  = []string{"DelegatedPermissionGrant.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	writeGrants = []string{"DelegatedPermissionGrant.ReadWrite.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	readRoles   = []string{"AppRoleAssignment.ReadWrite.All", "Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All", "Directory.AccessAsUser.All"}
	writeRoles  = []string{"AppRoleAssignment.ReadWrite.All", "Directory.AccessAsUser.All"}
	readRules   = []string{"Policy.Read.All", "Policy.ReadWrite.ApplicationConfiguration", "Directory.AccessAsUser.All"}
	writeRules  = []string{"Policy.ReadWrite.ApplicationConfiguration", "Directory.AccessAsUser.All"}
	readGDAP    = []string{"DelegatedAdminRelationship.Read.All", "DelegatedAdminRelationship.ReadWrite.All"}
	writeGDAP   = []string{"DelegatedAdminRelationship.ReadWrite.All"}
)

var routes = []route{
	{"GET /oidc/userinfo", []string{"openid"}, false, (*Server).userInfo},
	{"POST /oidc/userinfo", []string{"openid"}, false, (*Server).userInfo},

	{"GET /v1.0/me", readMe, false, (*Server).me},
	{"GET /v1.0/me/memberOf", readMe, false, (*Server).memberOf},
	{"GET /v1.0/me/memberOf/{type}", readMe, false, (*Server).memberOf},
	{"GET /v1.0/me/transitiveMemberOf", readMe, false, (*Server).memberOf},
	{"GET /v1.0/me/transitiveMemberOf/{type}", readMe, false, (*Server).memberOf},
	{"POST /v1.0/me/revokeSignInSessions", revoke, false, (*Server).revokeMe},
	{"GET /v1.0/organization", readOrg, false, (*Server).organization},
	{"GET /v1.0/organization/{id}", readOrg, false, (*Server).oneOrganization},
	{"GET /v1.0/domains", readDoms, false, (*Server).domains},
	{"GET /v1.0/users", readAll, false, (*Server).users},
	{"GET /v1.0/users/{id}", readAll, false, (*Server).user},
	{"GET /v1.0/users/{id}/memberOf", readAll, false, (*Server).memberOf},
	{"GET /v1.0/users/{id}/memberOf/{type}", readAll, false, (*Server).memberOf},
	{"GET /v1.0/users/{id}/transitiveMemberOf", readAll, false, (*Server).memberOf},
	{"GET /v1.0/users/{id}/transitiveMemberOf/{type}", readAll, false, (*Server).memberOf},
	{"POST /v1.0/users/{id}/revokeSignInSessions", revoke, true, (*Server).revokeUser},

	{"GET /v1.0/applications", readApps, false, (*Server).applications},
	{"POST /v1.0/applications", writeApps, true, (*Server).createApplication},
	{"GET /v1.0/applications/{id}", readOwn, false, (*Server).application},
	{"PATCH /v1.0/applications/{id}", writeOwn, true, (*Server).patchApplication},
	{"DELETE /v1.0/applications/{id}", writeApps, true, (*Server).deleteApplication},
	{"POST /v1.0/applications/{id}/addPassword", writeOwn, true, (*Server).addPassword},
	{"POST /v1.0/applications/{id}/removePassword", writeOwn, true, (*Server).removePassword},
	{"POST /v1.0/applications/{id}/addKey", writeOwn, true, (*Server).addKey},
	{"POST /v1.0/applications/{id}/removeKey", writeOwn, true, (*Server).removeKey},
	{"GET /v1.0/applications/{id}/tokenLifetimePolicies", readApps, false, (*Server).assignedPolicies},
	{"POST /v1.0/applications/{id}/tokenLifetimePolicies/$ref", writeApps, true, (*Server).assignPolicy},
	{"DELETE /v1.0/applications/{id}/tokenLifetimePolicies/{policy}/$ref", writeApps, true, (*Server).unassignPolicy},

	{"GET /v1.0/servicePrincipals", readApps, false, (*Server).principals},
	{"POST /v1.0/servicePrincipals", writeApps, true, (*Server).createPrincipal},
	{"GET /v1.0/servicePrincipals/{id}", readApps, false, (*Server).principal},
	{"DELETE /v1.0/servicePrincipals/{id}", writeApps, true, (*Server).deletePrincipal},
	{"GET /v1.0/servicePrincipals/{id}/oauth2PermissionGrants", readGrants, false, (*Server).grantsOf},

	{"GET /v1.0/servicePrincipals/{id}/appRoleAssignments", readRoles, false, (*Server).roleAssignments},
	{"POST /v1.0/servicePrincipals/{id}/appRoleAssignments", writeRoles, true, (*Server).assignRole},
	{"DELETE /v1.0/servicePrincipals/{id}/appRoleAssignments/{assignment}", writeRoles, true, (*Server).removeRole},
	{"GET /v1.0/users/{id}/appRoleAssignments", readRoles, false, (*Server).roleAssignments},
	{"POST /v1.0/users/{id}/appRoleAssignments", writeRoles, true, (*Server).assignRole},
	{"DELETE /v1.0/users/{id}/appRoleAssignments/{assignment}", writeRoles, true, (*Server).removeRole},

	{"GET /v1.0/oauth2PermissionGrants", readGrants, false, (*Server).grants},
	{"POST /v1.0/oauth2PermissionGrants", writeGrants, true, (*Server).createGrant},
	{"GET /v1.0/oauth2PermissionGrants/{id}", readGrants, false, (*Server).grant},
	{"PATCH /v1.0/oauth2PermissionGrants/{id}", writeGrants, true, (*Server).patchGrant},
	{"DELETE /v1.0/oauth2PermissionGrants/{id}", writeGrants, true, (*Server).deleteGrant},

	{"GET /v1.0/policies/tokenLifetimePolicies", readRules, false, (*Server).policies},
	{"POST /v1.0/policies/tokenLifetimePolicies", writeRules, true, (*Server).createPolicy},
	{"GET /v1.0/policies/tokenLifetimePolicies/{id}", readRules, false, (*Server).policy},
	{"PATCH /v1.0/policies/tokenLifetimePolicies/{id}", writeRules, true, (*Server).patchPolicy},
	{"DELETE /v1.0/policies/tokenLifetimePolicies/{id}", writeRules, true, (*Server).deletePolicy},

	{"GET /v1.0/policies/defaultAppManagementPolicy", readRules, false, (*Server).appRules},
	{"PATCH /v1.0/policies/defaultAppManagementPolicy", writeRules, true, (*Server).patchAppRules},

	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships", readGDAP, false, (*Server).relationships},
	{"POST /v1.0/tenantRelationships/delegatedAdminRelationships", writeGDAP, false, (*Server).createRelationship},
	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships/{id}", readGDAP, false, (*Server).relationship},
	{"PATCH /v1.0/tenantRelationships/delegatedAdminRelationships/{id}", writeGDAP, false, (*Server).patchRelationship},
	{"DELETE /v1.0/tenantRelationships/delegatedAdminRelationships/{id}", writeGDAP, false, (*Server).deleteRelationship},
	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments", readGDAP, false, (*Server).assignments},
	{"POST /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments", writeGDAP, false, (*Server).createAssignment},
	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments/{assignment}", readGDAP, false, (*Server).assignment},
	{"PATCH /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments/{assignment}", writeGDAP, false, (*Server).patchAssignment},
	{"DELETE /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/accessAssignments/{assignment}", writeGDAP, false, (*Server).deleteAssignment},
	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/requests", readGDAP, false, (*Server).requests},
	{"POST /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/requests", writeGDAP, false, (*Server).createRequest},
	{"GET /v1.0/tenantRelationships/delegatedAdminRelationships/{id}/requests/{request}", readGDAP, false, (*Server).request},
	{"GET /v1.0/tenantRelationships/delegatedAdminCustomers", readGDAP, false, (*Server).customers},
	{"GET /v1.0/tenantRelationships/delegatedAdminCustomers/{id}", readGDAP, false, (*Server).customer},
}

// byAppID is the form of a path that names an object by its application id.
var byAppID = regexp.MustCompile(`(?i)^(/v1\.0/(?:applications|servicePrincipals))\(appId='([^'/]*)'\)`)

// appIDPrefix marks a path value that is an application id.
const appIDPrefix = "appId="

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	names := map[string]string{}
	for _, rt := range routes {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, rt) })
		_, path, _ := strings.Cut(rt.pattern, " ")
		for _, name := range strings.Split(path, "/") {
			if !strings.HasPrefix(name, "{") {
				names[strings.ToLower(name)] = name
			}
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.refuse(w, r, errSegment) })
	each := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = canonical(r.URL.Path, names), ""
		mux.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST "+batchPath, func(w http.ResponseWriter, r *http.Request) { s.batch(w, r, each) })
	return each
}

// canonical is the path as the routes write it: letters of names cased as
// documented, no slash at the end nor two in a row, and what is named by its application id
// as if that were an object id.
func canonical(path string, names map[string]string) string {
	path = byAppID.ReplaceAllString(pathpkg.Clean("/"+path), "$1/"+appIDPrefix+"$2")
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if name, found := names[strings.ToLower(p)]; found {
			parts[i] = name
		}
	}
	return strings.Join(parts, "/")
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	c, err := s.admit(r, rt)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	out, err := rt.handle(s, c)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("request-id", s.cfg.Chance.GUID())
	if out.location != "" {
		w.Header().Set("Location", out.location)
	}
	if out.body == nil {
		w.WriteHeader(out.status)
		return
	}
	bearer.WriteJSON(w, out.status, out.body)
}

func (s *Server) admit(r *http.Request, rt route) (call, error) {
	c := call{Request: r}
	if t, throttled := s.cfg.Dials.Throttled("graph"); throttled {
		return c, &apiError{status: t.Status, code: "TooManyRequests", text: "Too many requests.", retryAfter: t.RetryAfter}
	}
	t, err := s.cfg.Read(r)
	switch {
	case errors.Is(err, bearer.ErrMissing):
		return c, errNoToken
	case errors.Is(err, bearer.ErrRevoked) && t.Resource.ID == directory.Graph && t.Continuous():
		claims, _ := s.cfg.Demanded("graph", t, err)
		return c, challenge(claims)
	case err != nil:
		return c, errToken
	case t.Resource.ID != directory.Graph:
		return c, errAudience
	}
	if claims, demanded := s.cfg.Demanded("graph", t, nil); demanded {
		return c, challenge(claims)
	}
	c.token = t
	c.tenant, _ = s.cfg.Directory.Tenant(t.Tenant)
	if !t.Has(rt.scopes...) || rt.manages && !t.AppOnly() && !s.cfg.Directory.MayManage(t.Holder, c.tenant.ID) {
		return c, errScope
	}
	return c, nil
}

// refuse writes the error as Graph does; the date has no zone.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := errSegment
	errors.As(err, &e)
	id := s.cfg.Chance.GUID()
	h := w.Header()
	h.Set("request-id", id)
	if e.claims != "" {
		h.Set("WWW-Authenticate", s.cfg.Challenge(directory.Graph, e.claims))
	} else if e.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="", authorization_uri="`+s.cfg.Login+`/common/oauth2/authorize", client_id="`+directory.Graph+`"`)
	}
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{"error": map[string]any{
		"code": e.code, "message": e.text,
		"innerError": map[string]any{
			"date": s.cfg.Dials.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": id,
			"client-request-id": cmp.Or(r.Header.Get("client-request-id"), id),
		},
	}})
}

// readBoth reads the body into two values.
func (c call) readBoth(v, w any) error {
	b, err := io.ReadAll(io.LimitReader(c.Body, 1<<20))
	if err != nil || json.Unmarshal(b, v) != nil || json.Unmarshal(b, w) != nil {
		return errBody
	}
	return nil
}

// read reads the body into v.
func (c call) read(v any) error {
	if bearer.ReadJSON(c.Request, v) != nil {
		return errBody
	}
	return nil
}
