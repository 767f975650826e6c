// Package partnercenter is the emulator's Partner Center REST API, as far as
// an application of a control panel vendor reads it.
//
// It follows "Partner Center REST API: headers, error codes" and "Partner
// Center: mandating multifactor authentication for your partner tenant".
package partnercenter

import (
	"cmp"
	"errors"
	"net/http"
	"regexp"
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
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

// The errors that the API knows.
var (
	errNoToken      = &apiError{status: 401, code: "1002", text: "Authorization failed."}
	errRetired      = &apiError{status: 401, code: "900420", text: "Tokens whose audience is graph.windows.net are no longer accepted. Request a token for https://api.partnercenter.microsoft.com."}
	errMFA          = &apiError{status: 401, code: "900421", text: "MFA required. The access token does not prove multi-factor authentication."}
	errAppOnly      = &apiError{status: 403, code: "900329", text: "App only authentication is not supported for this operation."}
	errPrivileges   = &apiError{status: 403, code: "900308", text: "The user does not have sufficient privileges for this operation."}
	errNotFound     = &apiError{status: 404, code: "60003", text: "The tenant was not found."}
	errBadRequest   = &apiError{status: 400, code: "2000", text: "The request is not valid."}
	errUnknownRoute = &apiError{status: 404, code: "3000", text: "The resource was not found."}
)

// call is one authenticated request.
type call struct {
	*http.Request
	token   bearer.Token
	partner directory.Tenant
}

// route says what a path needs and what answers it.
type route struct {
	pattern string
	appOnly bool // an application's own token is good enough
	agents  bool // the user must be an Admin or Sales Agent
	handle  func(*Server, call) (map[string]any, error)
}

var routes = []route{
	{"GET /v1/customers", true, true, (*Server).customers},
	{"GET /v1/customers/{customer}", true, true, (*Server).customer},
	{"GET /v1/customers/{customer}/users", false, true, (*Server).users},
	{"GET /v1/profiles/organization", false, false, (*Server).organization},
}

var slashes = regexp.MustCompile(`//+`)

// Handler serves the API. Clients put the relative links of an answer behind
// a base that ends in a slash, so paths with two slashes are served as well.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, rt) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.echo(w, r)
		writeError(w, errUnknownRoute)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := slashes.ReplaceAllString(r.URL.Path, "/"); path != r.URL.Path {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = path, ""
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	s.echo(w, r)
	c, err := s.admit(r, rt)
	if err != nil {
		s.refuse(w, c, err)
		return
	}
	body, err := rt.handle(s, c)
	if err != nil {
		s.refuse(w, c, err)
		return
	}
	s.verdict(w, c, body)
	bearer.WriteJSON(w, http.StatusOK, body)
}

// echo sends the ids of the request back, making up what is missing.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"MS-RequestId", "MS-CorrelationId"} {
		w.Header().Set(name, cmp.Or(r.Header.Get(name), s.cfg.Chance.GUID()))
	}
}

// admit decides whether the caller may use the route.
func (s *Server) admit(r *http.Request, rt route) (call, error) {
	c := call{Request: r}
	if t, ok := s.cfg.Dials.Throttled("partnercenter"); ok {
		return c, &apiError{status: t.Status, code: "", text: "Too many requests. Retry later.", retryAfter: t.RetryAfter}
	}
	t, err := s.cfg.Read(r)
	if err != nil {
		return c, errNoToken
	}
	c.token = t
	c.partner, _ = s.cfg.Directory.Tenant(t.Tenant)
	switch {
	case t.Resource.ID == directory.AzureADGraph:
		return c, errRetired
	case t.Resource.ID != directory.PartnerCenter:
		return c, errNoToken
	case t.AppOnly() && !rt.appOnly:
		return c, errAppOnly
	case !t.AppOnly() && !t.MFA() && s.cfg.Dials.Dials().EnforceMFA:
		return c, errMFA
	case c.partner.Kind != directory.KindPartner || !t.AppOnly() && t.Holder.Tenant != c.partner.ID:
		return c, errPrivileges
	case rt.agents && !t.AppOnly() && !t.Holder.In(directory.AdminAgents) && !t.Holder.In(directory.SalesAgents):
		return c, errPrivileges
	}
	return c, nil
}

func (s *Server) refuse(w http.ResponseWriter, c call, err error) {
	e := errBadRequest
	errors.As(err, &e)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "OAuth realm=urn:cpsvc:cpid:"+cmp.Or(c.partner.ID, "-"))
	}
	writeError(w, e)
}

func writeError(w http.ResponseWriter, e *apiError) {
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{
		"code": cmp.Or(e.code, http.StatusText(e.status)), "description": e.text, "data": []string{}, "source": "PartnerApiServiceCore",
	})
}

// verdict answers "ValidateMfa: true": does the token prove MFA?
func (s *Server) verdict(w http.ResponseWriter, c call, body map[string]any) {
	if !strings.EqualFold(c.Header.Get("ValidateMfa"), "true") || c.token.AppOnly() {
		return
	}
	const name = "isMfaCompliant"
	words := map[bool]string{true: "true", false: "false"}
	said := words[c.token.MFA()]
	switch d := s.cfg.Dials.Dials().MFAVerdict; d {
	case "absent":
		return
	case "body":
		body[name] = c.token.MFA()
		return
	case "contradict":
		said = words[!c.token.MFA()]
	case "garbage":
		said = "maybe"
	case "true", "false":
		said = d
	}
	w.Header()[name] = []string{said} // the case of the letters as documented
}
