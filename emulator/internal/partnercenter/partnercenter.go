// Package partnercenter is the emulator's Partner Center REST API, as far as
// an application of a control panel vendor uses it.
//
// It follows "Partner Center REST API: headers, error codes", "Control Panel
// Vendor APIs" and "Partner Center: mandating multifactor authentication for
// your partner tenant".
package partnercenter

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A Server is the API.
type Server struct {
	cfg bearer.Config

	// writing is held by a write that has an MS-RequestId, so that two of the
	// same do not both take place.
	writing sync.Mutex

	// mu guards the fields below, which count for one generation of the
	// directory only.
	mu         sync.Mutex
	generation int
	log        map[string][]record // by partner's tenant id, oldest first
	budgets    map[string]budget   // by application id
	written    map[string]written  // answers to writes, by caller and MS-RequestId
}

// New returns a server.
func New(cfg bearer.Config) *Server { return &Server{cfg: cfg} }

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
	errAccess       = &apiError{status: 403, code: "900309", text: "Access was blocked by a conditional access policy."}
	errEntra        = &apiError{status: 403, code: "90000", text: "Microsoft Entra ID refused the operation."}
	errNotFound     = &apiError{status: 404, code: "60003", text: "The tenant was not found."}
	errETag         = &apiError{status: 412, code: "2055", text: "The ETag does not match the current state of the resource."}
	errBadRequest   = &apiError{status: 400, code: "2000", text: "The request is not valid."}
	errUnknownRoute = &apiError{status: 404, code: "3000", text: "The resource was not found."}
	errBusy         = &apiError{status: 429, text: "Too many requests. Retry later.", retryAfter: 1}
	errRepeated     = &apiError{status: 409, code: "2001", text: "The MS-RequestId was used before for another request."}
	errConsented    = &apiError{status: 409, code: "2002", text: "Permission entry already exists."}
)

// known are the errors that the dial ServiceErrors can choose from.
var known = []*apiError{errNoToken, errRetired, errMFA, errAppOnly, errPrivileges, errAccess, errEntra, errNotFound, errETag, errBadRequest, errUnknownRoute, errRepeated, errConsented}

// dialled is the error that the owner of the emulator ordered, if any.
func (s *Server) dialled() error {
	d, ok := s.cfg.Dials.ServiceError()
	if !ok {
		return nil
	}
	for _, e := range known {
		if e.code == d.Code {
			return e
		}
	}
	return &apiError{status: http.StatusBadRequest, code: d.Code, text: "The request was refused."}
}

// invalid is a bad request that says what is wrong with it.
func invalid(text string) error { return &apiError{status: 400, code: "2000", text: text} }

// call is one authenticated request.
type call struct {
	*http.Request
	token   bearer.Token
	partner directory.Tenant
}

// need says who may use a route.
type need int

const (
	anyone need = iota // of the partner
	agents             // an Admin or Sales Agent
	admins             // an Admin Agent
)

// reply is a good answer: an object, a bare list if there is one, or nothing.
type reply struct {
	status int
	body   map[string]any
	list   []any
}

// clone copies the answer, so that what is added to one is not in the other.
func (r reply) clone() reply { return reply{r.status, maps.Clone(r.body), r.list} }

func ok(body map[string]any, err error) (reply, error) {
	return reply{status: http.StatusOK, body: body}, err
}

// route says what a path needs and what answers it.
type route struct {
	pattern string
	appOnly bool // an application's own token is good enough
	need    need
	handle  func(*Server, call) (reply, error)
}

var routes = []route{
	{"GET /v1/customers", true, agents, (*Server).customers},
	{"GET /v1/customers/{customer}", true, agents, (*Server).customer},
	{"GET /v1/customers/{customer}/users", false, agents, (*Server).users},
	{"GET /v1/customers/{customer}/users/{user}", false, agents, (*Server).user},
	{"GET /v1/customers/{customer}/profiles/company", true, agents, (*Server).company},
	{"GET /v1/customers/{customer}/orders", true, agents, (*Server).orders},
	{"POST /v1/customers/{customer}/orders", true, agents, (*Server).placeOrder},
	{"GET /v1/customers/{customer}/orders/{order}", true, agents, (*Server).order},
	{"GET /v1/customers/{customer}/subscriptions", true, agents, (*Server).subscriptions},
	{"GET /v1/customers/{customer}/subscriptions/{subscription}", true, agents, (*Server).subscription},
	{"PATCH /v1/customers/{customer}/subscriptions/{subscription}", true, agents, (*Server).updateSubscription},
	{"GET /v1/customers/{customer}/applicationconsents", false, admins, (*Server).consents},
	{"POST /v1/customers/{customer}/applicationconsents", false, admins, (*Server).addConsent},
	{"GET /v1/customers/{customer}/applicationconsents/{application}", false, admins, (*Server).consent},
	{"DELETE /v1/customers/{customer}/applicationconsents/{application}", false, admins, (*Server).removeConsent},
	{"GET /v1/profiles/organization", false, anyone, (*Server).organization},
	{"GET /v1/partnerRequests", false, anyone, (*Server).partnerRequests},
	{"GET /v1/applicationmfaadoptionstatus", false, anyone, (*Server).adoption},
	{"GET /v1/nonMfaCompliantPartnerPrincipals", false, anyone, (*Server).withoutMFA},
}

// clean is the path without what the router would answer with a redirect. A
// slash at its end stays: nothing is there.
func clean(p string) string {
	c := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

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
		if path := clean(r.URL.Path); path != r.URL.Path {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = path, ""
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt route) {
	s.echo(w, r)
	c, err := s.admit(r, rt)
	var out reply
	if err == nil {
		out, err = s.once(c, rt)
	}
	s.record(w, c, rt)
	if err != nil {
		s.refuse(w, c, err)
		return
	}
	s.verdict(w, c, out.body)
	switch {
	case out.list != nil:
		bearer.WriteJSON(w, out.status, out.list)
	case out.body != nil:
		bearer.WriteJSON(w, out.status, out.body)
	default:
		w.WriteHeader(out.status)
	}
}

// echo sends the ids of the request back, making up what is missing.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"MS-RequestId", "MS-CorrelationId"} {
		w.Header().Set(name, cmp.Or(r.Header.Get(name), s.cfg.Chance.GUID()))
	}
	w.Header().Set("MS-CV", cmp.Or(r.Header.Get("MS-CV"), s.cfg.Chance.Text(12)+".0"))
	w.Header().Set("MS-ServerId", "EMULATOR01")
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
	case !t.AppOnly() && !rt.need.metBy(t.Holder):
		return c, errPrivileges
	}
	return c, s.dialled()
}

func (n need) metBy(u directory.User) bool {
	switch n {
	case admins:
		return u.In(directory.AdminAgents)
	case agents:
		return u.In(directory.AdminAgents) || u.In(directory.SalesAgents)
	}
	return true
}

// asError is the error as the API knows it.
func asError(err error) *apiError {
	e := errBadRequest
	errors.As(err, &e)
	return e
}

func (s *Server) refuse(w http.ResponseWriter, c call, err error) {
	e := asError(err)
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
		if body != nil {
			body[name] = c.token.MFA()
		}
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
