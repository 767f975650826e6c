package entra

import (
	"net/http"
	"net/url"
	"strings"
)

func (s *Server) routeAdminConsent(mux *http.ServeMux) {
	mux.HandleFunc("GET /{tenant}/adminconsent", func(w http.ResponseWriter, r *http.Request) { s.adminConsent(w, r, 1) })
	mux.HandleFunc("GET /{tenant}/v2.0/adminconsent", func(w http.ResponseWriter, r *http.Request) { s.adminConsent(w, r, 2) })
}

// adminConsent asks an administrator to consent for everyone in the tenant. In
// v1 that is to what the registration says, in v2 to what the scope says.
func (s *Server) adminConsent(w http.ResponseWriter, r *http.Request, version int) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		s.errorPage(w, r, refuse(9002313))
		return
	}
	q := &request{version: version, admin: true, trace: s.trace(r)}
	e := s.identify(q, r)
	if e == nil && version == 2 && strings.EqualFold(r.PathValue("tenant"), "common") {
		e = refuse(50059)
	}
	if e != nil {
		s.errorPage(w, r, e)
		return
	}
	if version == 2 {
		e = s.parseTargets(q, r.Form)
	}
	if e != nil {
		s.sendError(w, q, e)
		return
	}
	s.begin(w, r, q)
}

// sendAdminConsent tells the application which tenant has consented. There is
// no code: the application gets its tokens by other requests.
func (s *Server) sendAdminConsent(w http.ResponseWriter, ix *interaction) {
	v := url.Values{"admin_consent": {"True"}, "tenant": {ix.tenant}}
	if q := ix.request; q.version == 2 {
		v.Set("scope", s.consentedScope(q))
	}
	s.sendBack(w, ix.request, v)
}

// consentedScope names the permissions with their resources.
func (s *Server) consentedScope(q *request) string {
	var list []string
	for _, p := range s.wanted(q) {
		list = append(list, p.resource.URIs[0]+"/"+p.scope.Name)
	}
	return strings.Join(append(list, q.ask.oidc...), " ")
}

// sendAdminRefusal tells the application that there is no consent. A v1
// application learns no code.
func (s *Server) sendAdminRefusal(w http.ResponseWriter, q *request, e *refusal) {
	canceled := e.code == 65004 || e.code == 90094
	v := url.Values{"error": {e.name(q.version)}, "error_description": {e.description(q.trace, s.cfg.Dials.Now())}}
	switch {
	case canceled && q.version == 1:
		v = url.Values{"error": {"permission_denied"}, "error_description": {"The admin canceled the request"}}
	case canceled:
		v.Set("error", "consent_required")
	}
	if q.version == 2 {
		v.Set("admin_consent", "True")
	}
	s.sendBack(w, q, v)
}
