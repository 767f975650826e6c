package entra

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// A request is a parsed authorization request.
type request struct {
	version     int
	tenant      string // id; "" for common and organizations
	client      directory.Application
	redirectURI string
	mode        string // query, fragment or form_post
	state       string
	nonce       string
	prompt      string
	loginHint   string
	domainHint  string
	challenge   string // PKCE
	method      string // S256 or plain
	ask         ask
	resource    string // v1: as named
	wantsMFA    bool   // by amr_values or claims
	acrs        []string
	authTime    bool // claims ask for auth_time
	clientInfo  bool
	answers     answers // what the response_type asks for
	spa         bool    // the redirect URI is a single-page application's
	device      *device // for whose device this is; nil: for nobody's
	admin       bool    // this is about consent only; see adminConsent
	trace       trace
}

// answers are the parts of a response_type.
type answers struct{ code, idToken, accessToken bool }

// code is an authorization code.
type code struct {
	request *request
	user    directory.User
	tenant  string
	signIn  token.SignIn
	issued  time.Time
	used    bool
}

const (
	maxParameter = 8 << 10 // bytes in one parameter of a request
	maxBody      = 1 << 20
)

// authorize answers an authorization request: with an error page if it does
// not know where to send the browser, otherwise with the first page of the
// sign-in, or at once if there is nothing to ask.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, version int) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		s.errorPage(w, r, refuse(9002313))
		return
	}
	q := &request{version: version, trace: s.trace(r)}
	if e := s.identify(q, r); e != nil {
		s.errorPage(w, r, e)
		return
	}
	if e := s.parse(q, r.Form); e != nil {
		s.sendError(w, q, e)
		return
	}
	if e := s.refusedRequest(q, fault.EndpointAuthorize, q.tenant, ""); e != nil {
		s.sendOrdered(w, q, e)
		return
	}
	s.begin(w, r, q)
}

// identify finds out who asks and where the answer goes. Until it succeeds
// nothing may be sent to the redirect URI.
func (s *Server) identify(q *request, r *http.Request) *refusal {
	var e *refusal
	if q.tenant, e = s.resolve(r.PathValue("tenant")); e != nil {
		return e
	}
	if q.client, e = s.findClient(r.Form, q.tenant); e != nil {
		return e
	}
	q.redirectURI, q.spa, e = redirectURI(q.client, r.Form.Get("redirect_uri"))
	q.state = r.Form.Get("state")
	q.mode = "query"
	return e
}

// redirectURI checks the redirect URI letter by letter, but for a port of this
// machine, and says whether it is a single-page application's. If the request
// names none and the registration has only one, it is that.
func redirectURI(a directory.Application, uri string) (_ string, spa bool, _ *refusal) {
	known := slices.Concat(a.RedirectURIs, a.SPARedirectURIs)
	if len(known) == 0 {
		return "", false, refuse(900971)
	}
	if uri == "" && len(known) == 1 {
		uri = known[0]
	}
	name := func(s string) string { return s }
	if !slices.Contains(known, uri) {
		name = anyPort
	}
	same := func(s string) bool { return name(s) == name(uri) }
	if !slices.ContainsFunc(known, same) {
		return "", false, refuse(50011, uri, a.ID)
	}
	return uri, slices.ContainsFunc(a.SPARedirectURIs, same), nil
}

var loopback = regexp.MustCompile(`^(http://(?:localhost|127\.0\.0\.1)):[0-9]{1,5}([/?].*)?$`)

// anyPort is a redirect URI without its port if that does not count. It does
// not on this machine, since a tool listens where there is room (RFC 8252, 7.3;
// "Redirect URI (reply URL) restrictions and limitations").
func anyPort(uri string) string { return loopback.ReplaceAllString(uri, "$1$2") }

func (s *Server) tenantName(id string) string {
	if t, ok := s.cfg.Directory.Tenant(id); ok {
		return t.Name
	}
	return "organizations"
}

// parse reads the rest of the request. What it refuses goes back to the
// client.
func (s *Server) parse(q *request, f url.Values) *refusal {
	typed := q.parseType(f.Get("response_type"))
	if e := q.parseMode(f.Get("response_mode")); e != nil {
		return e
	}
	if typed != nil {
		return typed
	}
	if q.mode == "query" && q.answers.idToken { // it would end up in logs
		q.mode = "fragment"
		return refuse(90023, "response_mode")
	}
	q.nonce, q.prompt = f.Get("nonce"), f.Get("prompt")
	q.loginHint, q.domainHint = f.Get("login_hint"), f.Get("domain_hint")
	q.clientInfo = f.Get("client_info") == "1"
	if e := q.parsePrompt(); e != nil {
		return e
	}
	if e := q.parseChallenge(f); e != nil {
		return e
	}
	if e := q.parseClaims(f); e != nil {
		return e
	}
	if e := s.parseTargets(q, f); e != nil {
		return e
	}
	return q.checkAnswers()
}

func (q *request) parsePrompt() *refusal {
	known := []string{"", "login", "none", "consent", "select_account"}
	if q.version == 1 {
		known = append(known, "admin_consent")
	}
	if !slices.Contains(known, q.prompt) {
		return refuse(90023, "prompt")
	}
	return nil
}

// parseChallenge reads the PKCE parameters (RFC 7636).
func (q *request) parseChallenge(f url.Values) *refusal {
	q.challenge, q.method = f.Get("code_challenge"), f.Get("code_challenge_method")
	if q.challenge == "" {
		if q.method != "" || q.spa && q.answers.code {
			return refuse(50147)
		}
		return nil
	}
	if q.method == "" {
		q.method = "plain"
	}
	if q.method != "plain" && q.method != "S256" || len(q.challenge) < 43 || len(q.challenge) > 128 {
		return refuse(50147)
	}
	return nil
}

// claimsRequest is the claims parameter (OpenID Connect Core, 5.5), as far as
// it means something here. Clients put other things into it as well; they ask
// for nothing.
type claimsRequest struct {
	IDToken     map[string]*claimRequest `json:"id_token"`
	AccessToken map[string]*claimRequest `json:"access_token"`
}

type claimRequest struct {
	Essential bool     `json:"essential"`
	Value     any      `json:"value"`
	Values    []string `json:"values"`
}

func (c *claimRequest) all() []string {
	if c == nil {
		return nil
	}
	if v, ok := c.Value.(string); ok {
		return append([]string{v}, c.Values...)
	}
	return c.Values
}

func parseClaims(raw string) (claimsRequest, *refusal) {
	var c claimsRequest
	if raw == "" {
		return c, nil
	}
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return c, refuse(90023, "claims")
	}
	return c, nil
}

// acrs are the authentication contexts asked for.
func (c claimsRequest) acrs() []string {
	return append(c.AccessToken["acrs"].all(), c.IDToken["acrs"].all()...)
}

// continuous reports whether the client can answer claims challenges, and so
// gets longer-lived tokens ("Continuous access evaluation").
func (c claimsRequest) continuous() bool {
	return slices.ContainsFunc(c.AccessToken["xms_cc"].all(), func(v string) bool { return strings.EqualFold(v, "cp1") })
}

func (q *request) parseClaims(f url.Values) *refusal {
	c, e := parseClaims(f.Get("claims"))
	if e != nil {
		return e
	}
	q.acrs = c.acrs()
	_, q.authTime = c.IDToken["auth_time"]
	q.wantsMFA = slices.Contains(strings.FieldsFunc(f.Get("amr_values"), func(r rune) bool { return r == ' ' || r == ',' }), "mfa") ||
		slices.Contains(c.IDToken["amr"].all(), "mfa") || slices.Contains(c.AccessToken["amr"].all(), "mfa") || len(q.acrs) > 0
	return nil
}

func (s *Server) parseTargets(q *request, f url.Values) (e *refusal) {
	if q.version == 2 {
		if f.Has("resource") {
			return refuse(901002)
		}
		if f.Get("scope") == "" {
			return refuse(900144, "scope")
		}
		q.ask, e = s.parseScope(f.Get("scope"))
		return e
	}
	q.resource = f.Get("resource")
	if q.resource == "" {
		return nil
	}
	_, e = s.parseResource(q.resource, s.tenantName(q.tenant))
	return e
}

// finish ends a sign-in that succeeded.
func (s *Server) finish(w http.ResponseWriter, ix *interaction) {
	switch {
	case ix.request.device != nil:
		s.decide(w, ix.request.device, ix, nil)
	case ix.request.admin:
		s.sendAdminConsent(w, ix)
	default:
		if e := s.refusedRequest(ix.request, fault.EndpointAuthorize, ix.tenant, ix.user.UPN); e != nil {
			s.sendOrdered(w, ix.request, e)
			return
		}
		s.sendAnswer(w, ix)
	}
}

// sendError sends the browser back to the client with an error.
func (s *Server) sendError(w http.ResponseWriter, q *request, e *refusal) {
	switch {
	case q.device != nil:
		s.decide(w, q.device, nil, e)
		return
	case q.admin:
		s.sendAdminRefusal(w, q, e)
		return
	}
	v := url.Values{
		"error":             {e.name(q.version)},
		"error_description": {e.description(q.trace, s.cfg.Dials.Now())},
		"error_uri":         {s.errorURI(e.code)},
	}
	s.sendBack(w, q, v)
}

// sendAnswer sends the browser back to the client with what it asked for.
func (s *Server) sendAnswer(w http.ResponseWriter, ix *interaction) {
	q := ix.request
	v := url.Values{"session_state": {s.cfg.Chance.GUID()}}
	if q.answers.code {
		v.Set("code", s.newCode(ix))
	}
	if e := s.addTokens(v, ix); e != nil {
		s.sendError(w, q, e)
		return
	}
	if q.version == 1 && q.prompt == "admin_consent" {
		v.Set("admin_consent", "True")
	}
	if q.clientInfo {
		v.Set("client_info", clientInfo(ix.user))
	}
	s.sendBack(w, q, v)
}

func (s *Server) newCode(ix *interaction) string {
	id := "1." + s.cfg.Chance.Text(96)
	c := &code{request: ix.request, user: ix.user, tenant: ix.tenant, signIn: ix.signIn(), issued: s.cfg.Dials.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(c.issued)
	s.codes[id] = c
	return id
}

// sendBack delivers the answer in the response mode asked for.
func (s *Server) sendBack(w http.ResponseWriter, q *request, v url.Values) {
	if q.state != "" {
		v.Set("state", q.state)
	}
	if q.mode == "form_post" {
		s.formPost(w, q.redirectURI, v)
		return
	}
	sep := "?"
	if q.mode == "fragment" {
		sep = "#"
	} else if strings.Contains(q.redirectURI, "?") {
		sep = "&"
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Location", q.redirectURI+sep+v.Encode())
	w.WriteHeader(http.StatusFound)
}
