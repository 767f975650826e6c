package entra

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// An interaction is one sign-in under way: what was asked, and what the person
// in front of the browser has said so far. Which page comes next follows from
// that alone; see [Server.step].
type interaction struct {
	id      string
	browser [32]byte // hash of the cookie's value
	request *request

	user     directory.User // zero: not chosen
	tenant   string         // id of the tenant that the token will be for
	signedIn time.Time      // zero: not yet
	mfa      bool           // second factor shown
	mfaSkip  bool           // "continue without"
	otp      string         // the code that the page prints
	consent  bool           // accepted
	notice   string         // shown on the next page
}

// A session remembers a sign-in for the next authorization request of the
// same browser.
type session struct {
	user     directory.User
	signedIn time.Time
	mfa      bool
}

// Cookies. The prefix makes browsers insist on Secure, Path=/ and no Domain.
const (
	browserCookie = "__Host-emulator-signin"
	sessionCookie = "__Host-emulator-session"
)

// Steps of a sign-in.
const (
	stepAccount  = "account"
	stepSignIn   = "signin"
	stepMFA      = "mfa"
	stepApproval = "approval"
	stepConsent  = "consent"
	stepDone     = "done"
)

func (s *Server) routeSignIn(mux *http.ServeMux) {
	for version, path := range map[int]string{1: "/{tenant}/oauth2/authorize", 2: "/{tenant}/oauth2/v2.0/authorize"} {
		h := func(w http.ResponseWriter, r *http.Request) { s.authorize(w, r, version) }
		mux.HandleFunc("GET "+path, h)
		mux.HandleFunc("POST "+path, h)
	}
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /error", s.explain)
	mux.HandleFunc("/", s.elsewhere)
}

// signInPages serves the pages of interactions. They have a mux of their own
// because "signin" might be a tenant's name in the patterns of the other one.
func (s *Server) signInPages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /signin/{id}", s.show)
	mux.Handle("POST /signin/{id}", s.protected(s.answer))
	mux.HandleFunc("/", s.elsewhere)
	return mux
}

// protected refuses what a page of another site makes a browser post.
func (s *Server) protected(h http.HandlerFunc) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.errorPageAs(w, r, refuse(9002313), http.StatusForbidden)
	}))
	return p.Handler(h)
}

// elsewhere answers what is not an address of this host, or not one for such
// a request: in the shape that the caller can read.
func (s *Server) elsewhere(w http.ResponseWriter, r *http.Request) {
	for _, end := range []string{"/token", "/devicecode"} {
		if strings.HasSuffix(r.URL.Path, end) {
			w.Header().Set("Allow", "POST")
			s.writeError(w, refuse(9002313), 2, s.trace(r))
			return
		}
	}
	s.errorPageAs(w, r, refuse(9002313), http.StatusNotFound)
}

// begin starts an interaction, and ends it at once if nobody need be asked.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, q *request) {
	ix := &interaction{id: s.cfg.Chance.Text(16), request: q, otp: s.otp()}
	s.resume(ix, r)
	s.hint(ix)
	if q.prompt == "none" {
		s.silent(w, ix)
		return
	}
	if s.step(ix) == stepDone {
		s.finish(w, ix)
		return
	}
	ix.browser = s.browser(w, r)
	s.mu.Lock()
	s.expire(s.cfg.Dials.Now())
	s.interactions[ix.id] = ix
	s.mu.Unlock()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "/signin/"+ix.id, http.StatusSeeOther)
}

// otp makes up the six digits that the MFA page prints and asks for.
func (s *Server) otp() string { return strconv.Itoa(100_000 + s.cfg.Chance.Intn(900_000)) }

// browser returns the hash of the cookie that ties interactions to the
// browser, setting the cookie if there is none.
func (s *Server) browser(w http.ResponseWriter, r *http.Request) [32]byte {
	if c, err := r.Cookie(browserCookie); err == nil && c.Value != "" {
		return sha256.Sum256([]byte(c.Value))
	}
	v := s.cfg.Chance.Text(32)
	http.SetCookie(w, &http.Cookie{Name: browserCookie, Value: v, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return sha256.Sum256([]byte(v))
}

// resume takes over the browser's earlier sign-in, unless the request wants a
// fresh one or another account.
func (s *Server) resume(ix *interaction, r *http.Request) {
	c, err := r.Cookie(sessionCookie)
	if err != nil || ix.request.prompt == "login" || ix.request.prompt == "select_account" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.sessions[c.Value]
	if !ok {
		return
	}
	u, ok := s.cfg.Directory.UserByID(old.user.ID)
	hint := ix.request.loginHint
	if !ok || u.ValidFrom.After(old.signedIn) || hint != "" && !strings.EqualFold(hint, u.UPN) && !strings.EqualFold(hint, u.Mail) {
		return
	}
	if e := s.choose(ix, u); e == nil {
		ix.signedIn, ix.mfa = old.signedIn, old.mfa
	}
}

// hint skips the account picker if the request names the account.
func (s *Server) hint(ix *interaction) {
	q := ix.request
	if ix.user.ID != "" || q.loginHint == "" || q.prompt == "select_account" {
		return
	}
	if u, ok := s.find(ix, q.loginHint); ok {
		s.choose(ix, u) // a refusal shows up when the person chooses
	}
}

// silent answers prompt=none: a code, or what a page would have asked.
func (s *Server) silent(w http.ResponseWriter, ix *interaction) {
	switch s.step(ix) {
	case stepDone:
		s.finish(w, ix)
	case stepMFA:
		s.sendError(w, ix.request, refuse(50076, ix.request.client.ID).as("interaction_required"))
	case stepConsent, stepApproval:
		s.sendError(w, ix.request, refuse(65001, ix.request.client.ID).as("consent_required"))
	default:
		s.sendError(w, ix.request, refuse(50058))
	}
}

// step says which page comes next.
func (s *Server) step(ix *interaction) string {
	switch {
	case ix.user.ID == "":
		return stepAccount
	case ix.signedIn.IsZero():
		return stepSignIn
	case s.asksMFA(ix):
		return stepMFA
	case ix.consent || !s.asksConsent(ix):
		return stepDone
	case s.needsAdmin(ix) && !s.cfg.Directory.MayManage(ix.user, ix.tenant):
		return stepApproval
	}
	return stepConsent
}

// asksMFA: a user with a second factor shows it if the request asks for it or
// the tenant demands it.
func (s *Server) asksMFA(ix *interaction) bool {
	if ix.mfa || ix.mfaSkip || !s.hasMFA(ix.user) {
		return false
	}
	return ix.request.wantsMFA || s.mustMFA(ix)
}

// mustMFA: a demand of the tenant's is tied to resources, so a v1 request that
// names none does not meet it.
func (s *Server) mustMFA(ix *interaction) bool {
	q := ix.request
	return s.demandsMFA(ix.tenant) && (q.version == 2 || q.resource != "" || q.admin)
}

func (s *Server) asksConsent(ix *interaction) bool {
	if p := ix.request.prompt; p == "consent" || p == "admin_consent" || ix.request.admin {
		return true
	}
	return len(s.missing(ix)) > 0 || !s.cfg.Directory.Installed(ix.tenant, ix.request.client.ID)
}

// missing lists the permissions asked for that are not yet consented.
func (s *Server) missing(ix *interaction) []permission {
	var list []permission
	for _, p := range s.wanted(ix.request) {
		have := s.cfg.Directory.Consented(ix.tenant, ix.request.client.ID, ix.user.ID, p.resource.ID)
		if !contains(have, p.scope.Name) {
			list = append(list, p)
		}
	}
	return list
}

func (s *Server) needsAdmin(ix *interaction) bool {
	if ix.request.prompt == "admin_consent" || ix.request.admin {
		return true
	}
	for _, p := range s.wanted(ix.request) {
		if p.scope.Admin {
			return true
		}
	}
	return len(s.wantedRoles(ix.request, ix.tenant)) > 0
}

func contains(list []string, name string) bool {
	for _, s := range list {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// signIn is what the interaction's code stands for.
func (ix *interaction) signIn() token.SignIn {
	q := ix.request
	amr := []string{"pwd"}
	var acrs []string
	if ix.mfa {
		amr = append(amr, "mfa")
		acrs = append([]string{"p1"}, q.acrs...)
	}
	return token.SignIn{
		User: ix.user.ID, Tenant: ix.user.Tenant, Client: q.client.ID,
		AMR: amr, ACRs: acrs, Time: ix.signedIn, Nonce: q.nonce, AuthTime: q.authTime, Resource: q.first(),
	}
}

// first is the name of the resource that the request asked for first.
func (q *request) first() string {
	if q.version == 1 {
		return q.resource
	}
	if len(q.ask.targets) > 0 {
		return q.ask.targets[0].audience
	}
	return ""
}

// lookup returns the interaction of the path, if it belongs to the browser.
// The caller holds s.mu.
func (s *Server) lookup(r *http.Request) (*interaction, bool) {
	ix, ok := s.interactions[r.PathValue("id")]
	c, err := r.Cookie(browserCookie)
	// A missing cookie must not match a missing value.
	if !ok || err != nil || c.Value == "" {
		return nil, false
	}
	sum := sha256.Sum256([]byte(c.Value))
	return ix, subtle.ConstantTimeCompare(sum[:], ix.browser[:]) == 1
}

// show renders the page that the interaction has come to.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ix, ok := s.lookup(r)
	var shown interaction
	if ok {
		shown = *ix
		ix.notice = ""
	}
	s.mu.Unlock()
	if !ok {
		s.errorPage(w, r, refuse(50089))
		return
	}
	s.page(w, s.step(&shown), &shown)
}

// answer takes what a page sent, and either shows the next page or sends the
// browser back to the client. An interaction ends exactly once.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		s.errorPage(w, r, refuse(9002313))
		return
	}
	s.mu.Lock()
	ix, ok := s.lookup(r)
	var e *refusal
	done := false
	if ok {
		e = s.take(ix, r.PostForm)
		if done = e != nil || s.step(ix) == stepDone; done {
			delete(s.interactions, ix.id)
		}
	}
	s.mu.Unlock()
	switch {
	case !ok:
		s.errorPage(w, r, refuse(50089))
	case e != nil:
		s.sendError(w, ix.request, e)
	case done:
		s.remember(w, ix)
		s.finish(w, ix)
	default:
		http.Redirect(w, r, "/signin/"+ix.id, http.StatusSeeOther)
	}
}

// remember opens a session for the browser.
func (s *Server) remember(w http.ResponseWriter, ix *interaction) {
	id := s.cfg.Chance.Text(32)
	s.mu.Lock()
	s.sessions[id] = &session{user: ix.user, signedIn: ix.signedIn, mfa: ix.mfa}
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode})
}
