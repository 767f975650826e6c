package entra

import (
	"bytes"
	"cmp"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

//go:embed html/pages.html
var files embed.FS

var pages = template.Must(template.ParseFS(files, "html/pages.html"))

// A view is what the templates show. Pages use what they need of it.
type view struct {
	ID, Title, Nonce, Notice, Tenant string
	Action, App, Publisher, OTP      string
	Text, Code, Correlation          string
	MaySkip, MayOrganization         bool
	User                             directory.User
	Groups                           []accountGroup
	Permissions                      []permissionGroup
	Fields                           []field
}

type accountGroup struct {
	Name  string // of the tenant, if there are several
	Users []directory.User
}

type permissionGroup struct {
	Resource string
	Scopes   []directory.Scope
}

type field struct{ Name, Value string }

// page renders a step of an interaction.
func (s *Server) page(w http.ResponseWriter, step string, ix *interaction) {
	q := ix.request
	v := view{
		ID:     "page-" + step,
		Notice: ix.notice,
		Action: "/signin/" + ix.id,
		App:    q.client.Name, Publisher: q.client.Publisher,
		User: ix.user, OTP: ix.otp,
	}
	if id := cmp.Or(ix.tenant, q.tenant); id != "" {
		v.Tenant = s.tenantName(id)
	}
	switch step {
	case stepAccount:
		v.Title, v.Groups = "Choose an account", s.accounts(q)
	case stepSignIn:
		v.Title = "Sign in"
	case stepMFA:
		v.Title, v.MaySkip = "Show that it is you", !s.mustMFA(ix)
	case stepConsent:
		v.Title, v.Permissions, v.MayOrganization = "Permissions requested", group(append(s.wanted(q), s.wantedRoles(q, ix.tenant)...)), !q.admin && s.cfg.Directory.MayManage(ix.user, ix.tenant)
	case stepApproval:
		v.Title = "Need administrator approval"
	}
	s.render(w, http.StatusOK, step, v, origin(q.redirectURI))
}

// maxAccounts bounds the account picker; others can be typed.
const maxAccounts = 12

// accounts lists who may sign in: the tenant's users, or those of every
// tenant that the domain hint allows.
func (s *Server) accounts(q *request) []accountGroup {
	if q.tenant != "" {
		return []accountGroup{{"", s.cfg.Directory.Users(q.tenant, maxAccounts)}}
	}
	if q.domainHint != "" && q.domainHint != "organizations" {
		t, ok := s.cfg.Directory.Tenant(q.domainHint)
		if !ok || !strings.EqualFold(q.domainHint, t.Domain) {
			return nil
		}
		return []accountGroup{{t.Name, s.cfg.Directory.Users(t.ID, maxAccounts)}}
	}
	var groups []accountGroup
	for _, t := range s.cfg.Directory.FirstTenants(maxAccounts) {
		groups = append(groups, accountGroup{t.Name, s.cfg.Directory.Users(t.ID, maxAccounts)})
	}
	return groups
}

func group(list []permission) []permissionGroup {
	var groups []permissionGroup
	for _, p := range list {
		i := slices.IndexFunc(groups, func(g permissionGroup) bool { return g.Resource == p.resource.Name })
		if i < 0 {
			groups = append(groups, permissionGroup{Resource: p.resource.Name})
			i = len(groups) - 1
		}
		groups[i].Scopes = append(groups[i].Scopes, p.scope)
	}
	return groups
}

// formPost renders the page that posts the answer to the client by itself
// ("OAuth 2.0 Form Post Response Mode").
func (s *Server) formPost(w http.ResponseWriter, uri string, values url.Values) {
	v := view{ID: "page-form_post", Title: "Returning to the application", Action: uri}
	for _, name := range []string{"code", "id_token", "access_token", "token_type", "expires_in", "scope", "error", "error_description", "error_uri", "state", "session_state", "client_info", "admin_consent"} {
		if values.Has(name) {
			v.Fields = append(v.Fields, field{name, values.Get(name)})
		}
	}
	s.render(w, http.StatusOK, "form_post", v, origin(uri))
}

// errorPage shows an error that must not be sent to the redirect URI.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, e *refusal) {
	s.errorPageAs(w, r, e, http.StatusBadRequest)
}

func (s *Server) errorPageAs(w http.ResponseWriter, r *http.Request, e *refusal, status int) {
	s.errorPageFor(w, s.trace(r).correlation, e, status)
}

func (s *Server) errorPageFor(w http.ResponseWriter, correlation string, e *refusal, status int) {
	s.render(w, status, "error", view{
		ID: "page-error", Title: "Sorry, but we’re having trouble signing you in",
		Text: e.text(), Code: strconv.Itoa(e.code), Correlation: correlation,
	}, "")
}

// explain answers the error_uri of an error.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("code"))
	if !Known(n) {
		s.errorPageAs(w, r, refuse(9002313), http.StatusNotFound)
		return
	}
	s.render(w, http.StatusOK, "error", view{ID: "page-explain", Title: "What the code means", Text: refuse(n).text(), Code: strconv.Itoa(n)}, "")
}

func (s *Server) home(w http.ResponseWriter, r *http.Request) {
	s.render(w, http.StatusOK, "home", view{ID: "page-home", Title: "Sign-in host"}, "")
}

// render executes a template into a buffer first, so that an error in it does
// not end up half on the page. Besides the page's own origin a form may only
// go to client, which also covers the redirect that follows it.
func (s *Server) render(w http.ResponseWriter, status int, name string, v view, client string) {
	v.Nonce = s.cfg.Chance.Text(16)
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, v); err != nil {
		s.cfg.Log.Error("render page", "page", name, "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", strings.Join([]string{
		"default-src 'none'",
		"style-src 'nonce-" + v.Nonce + "'",
		"script-src 'nonce-" + v.Nonce + "'",
		strings.TrimSpace("form-action 'self' " + client),
		"frame-ancestors 'none'",
		"base-uri 'none'",
	}, "; "))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// origin is the scheme, host and port of a URL.
func origin(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
