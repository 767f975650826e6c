package entra

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/directory"
)

func (s *Server) routeSignOut(mux *http.ServeMux) {
	for _, path := range []string{"/{tenant}/oauth2/logout", "/{tenant}/oauth2/v2.0/logout"} {
		mux.HandleFunc("GET "+path, s.signOut)
		mux.HandleFunc("POST "+path, s.signOut)
	}
	mux.HandleFunc("GET /common/userrealm/{upn}", s.userRealm)
}

// signOut ends the browser's session ("OpenID Connect RP-Initiated Logout").
// Refresh tokens outlive it.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		s.errorPage(w, r, refuse(9002313))
		return
	}
	if _, e := s.resolve(r.PathValue("tenant")); e != nil {
		s.errorPage(w, r, e)
		return
	}
	if c, err := r.Cookie(sessionCookie); err == nil {
		s.mu.Lock()
		delete(s.sessions, c.Value)
		s.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode})
	if uri, ok := s.afterSignOut(r.Form); ok {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Location", uri)
		w.WriteHeader(http.StatusFound)
		return
	}
	s.render(w, http.StatusOK, "signed_out", view{ID: "page-signed_out", Title: "You signed out of your account"}, "")
}

// afterSignOut is where the browser goes: a redirect URI of the application
// that the request names, or of any if it names none. Elsewhere it is not
// sent, or this host would lend its name to anybody.
func (s *Server) afterSignOut(f url.Values) (string, bool) {
	uri := f.Get("post_logout_redirect_uri")
	if uri == "" {
		return "", false
	}
	known := s.cfg.Directory.Applications()
	if id := f.Get("client_id"); id != "" {
		app, _ := s.cfg.Directory.Application(id)
		known = []directory.Application{app}
	}
	if !slices.ContainsFunc(known, func(a directory.Application) bool {
		return slices.Contains(a.RedirectURIs, uri) || slices.Contains(a.SPARedirectURIs, uri)
	}) {
		return "", false
	}
	if state := f.Get("state"); state != "" {
		sep := "?"
		if strings.Contains(uri, "?") {
			sep = "&"
		}
		uri += sep + url.Values{"state": {state}}.Encode()
	}
	return uri, true
}

// userRealm says where the accounts of a domain sign in. Everyone here does so
// on this host.
func (s *Server) userRealm(w http.ResponseWriter, r *http.Request) {
	_, domain, _ := strings.Cut(r.PathValue("upn"), "@")
	body := map[string]any{"ver": "1.0", "account_type": "Unknown", "cloud_instance_name": s.host()}
	if t, ok := s.cfg.Directory.Tenant(domain); ok && domain != "" {
		body["account_type"], body["domain_name"] = "Managed", t.Domain
		body["cloud_audience_urn"] = "urn:federation:MicrosoftOnline"
	}
	cacheable(w)
	writeJSON(w, http.StatusOK, s.trace(r), body)
}
