package entra

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// consumers is the tenant of personal accounts. It has metadata and no user.
const consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"

func (s *Server) routeDiscovery(mux *http.ServeMux) {
	mux.HandleFunc("GET /common/discovery/instance", s.instance)
	mux.HandleFunc("OPTIONS /common/discovery/instance", preflight)
	for _, v := range []struct {
		metadata, keys string
		version        int
	}{
		{"/.well-known/openid-configuration", "/discovery/keys", 1},
		{"/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys", 2},
	} {
		mux.HandleFunc("GET /{tenant}"+v.metadata, func(w http.ResponseWriter, r *http.Request) { s.metadata(w, r, v.version) })
		mux.HandleFunc("GET /{tenant}"+v.keys, func(w http.ResponseWriter, r *http.Request) { s.keys(w, r, v.version) })
		mux.HandleFunc("OPTIONS /{tenant}"+v.metadata, preflight)
		mux.HandleFunc("OPTIONS /{tenant}"+v.keys, preflight)
	}
	mux.HandleFunc("GET /{tenant}/openid/userinfo", s.userInfo)
	mux.HandleFunc("POST /{tenant}/openid/userinfo", s.userInfo)
}

// preflight allows the pages of any site to read what is public anyway.
func preflight(w http.ResponseWriter, r *http.Request) {
	cacheable(w)
	w.Header().Set("Access-Control-Allow-Headers", "*")
	w.Header().Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// cacheable marks an answer as public, for browsers' applications too.
func cacheable(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
}

// writePublic sends what everybody may read and keep for a day, as Entra's
// metadata, keys and instances.
func (s *Server) writePublic(w http.ResponseWriter, r *http.Request, body any) {
	cacheable(w)
	t := s.trace(r)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "max-age=86400, private")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("x-ms-request-id", t.id)
	h.Set("x-ms-ests-server", estsServer)
	json.NewEncoder(w).Encode(body) // an error here is the client's hang-up
}

// instance answers instance discovery. The authority that is asked about must
// be this host; some clients drop its port.
func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	u, err := url.Parse(r.FormValue("authorization_endpoint"))
	if err != nil || !s.isOurHost(u) {
		s.instanceError(w, r)
		return
	}
	tenant := "common"
	if parts := strings.Split(strings.Trim(u.Path, "/"), "/"); parts[0] != "" {
		tenant = parts[0]
	}
	host := s.host()
	s.writePublic(w, r, map[string]any{
		"tenant_discovery_endpoint": s.cfg.URL + "/" + url.PathEscape(tenant) + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []map[string]any{{
			"preferred_network": host, "preferred_cache": host, "aliases": []string{host},
		}},
	})
}

func (s *Server) host() string { return strings.TrimPrefix(s.cfg.URL, "https://") }

func (s *Server) isOurHost(u *url.URL) bool {
	ours, _ := url.Parse(s.cfg.URL)
	return u.Scheme == "https" && slices.Contains([]string{ours.Host, ours.Hostname()}, strings.ToLower(u.Host))
}

func (s *Server) instanceError(w http.ResponseWriter, r *http.Request) {
	t := s.trace(r)
	e := refuse(50049)
	cacheable(w)
	writeJSON(w, http.StatusBadRequest, t, s.errorBody(e, 2, t))
}

// authority is a tenant as metadata shows it: how its URLs and its issuer
// name it.
type authority struct{ segment, issuer string }

// authority looks up the tenant of a path. Domains come back as ids.
func (s *Server) authority(name string) (authority, *refusal) {
	name = strings.ToLower(name)
	switch {
	case shared(name):
		return authority{name, "{tenantid}"}, nil
	case name == "consumers" || name == consumers:
		return authority{"consumers", consumers}, nil
	}
	id, e := s.resolve(name)
	return authority{id, id}, e
}

func (s *Server) metadata(w http.ResponseWriter, r *http.Request, version int) {
	a, e := s.authority(r.PathValue("tenant"))
	if e != nil {
		cacheable(w)
		s.writeError(w, e.as("invalid_tenant"), version, s.trace(r))
		return
	}
	s.writePublic(w, r, s.document(a, version))
}

// document is the metadata of a tenant. PKCE is supported and, as in Entra,
// not announced.
func (s *Server) document(a authority, version int) map[string]any {
	base := s.cfg.URL + "/" + a.segment
	oauth := base + "/oauth2"
	if version == 2 {
		oauth += "/v2.0"
	}
	d := map[string]any{
		"issuer":                                s.issuer(a.issuer, version),
		"authorization_endpoint":                oauth + "/authorize",
		"token_endpoint":                        oauth + "/token",
		"device_authorization_endpoint":         oauth + "/devicecode",
		"end_session_endpoint":                  oauth + "/logout",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"request_uri_parameter_supported":       false,
		"http_logout_supported":                 true,
		"frontchannel_logout_supported":         true,
		"claims_supported":                      strings.Fields("sub iss cloud_instance_name cloud_instance_host_name cloud_graph_host_name msgraph_host aud exp iat auth_time acr nonce preferred_username name tid ver at_hash c_hash email"),
		"kerberos_endpoint":                     base + "/kerberos",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"userinfo_endpoint":                     s.cfg.Graph + "/oidc/userinfo",
		"tenant_region_scope":                   nil,
		"cloud_instance_name":                   s.host(),
		"cloud_graph_host_name":                 "graph.windows.net",
		"msgraph_host":                          "graph.microsoft.com",
		"rbac_url":                              "https://pas.windows.net",
	}
	if version == 1 {
		s.asV1(d, base)
	}
	return d
}

// asV1 changes what the v1 document says differently.
func (s *Server) asV1(d map[string]any, base string) {
	d["jwks_uri"] = s.cfg.URL + "/common/discovery/keys"
	d["response_types_supported"] = []string{"code", "id_token", "code id_token", "token id_token", "token"}
	d["scopes_supported"] = []string{"openid"}
	d["claims_supported"] = append(d["claims_supported"].([]string), "amr", "given_name", "family_name", "nickname")
	d["userinfo_endpoint"] = base + "/openid/userinfo"
	d["microsoft_multi_refresh_token"] = true
	d["check_session_iframe"] = base + "/oauth2/checksession"
}

func (s *Server) keys(w http.ResponseWriter, r *http.Request, version int) {
	if _, e := s.authority(r.PathValue("tenant")); e != nil {
		cacheable(w)
		s.writeError(w, e.as("invalid_tenant"), version, s.trace(r))
		return
	}
	issuer := ""
	if version == 2 {
		issuer = s.issuer("{tenantid}", 2)
	}
	s.writePublic(w, r, map[string]any{"keys": []token.JWK{s.cfg.Key.JWK(issuer)}})
}
