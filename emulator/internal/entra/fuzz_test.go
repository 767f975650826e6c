package entra

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// Whatever is posted, the answer is an error of the token endpoint's shape.
// The device code endpoint may also answer with a code.
func FuzzTokenRequest(f *testing.F) {
	s := testServer(f)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	app.Public, app.SPARedirectURIs, app.Exposes = true, []string{"https://spa.example/"}, []directory.Scope{{Name: "x"}}
	if err := s.cfg.Directory.Register(app); err != nil {
		f.Fatal(err)
	}
	h := s.Handler()
	const client = "client_id=a0000000-0000-4000-8000-00000000c0de&client_secret=emulator-only-not-a-secret"
	const obo = "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&requested_token_use=on_behalf_of&resource=https://graph.microsoft.com&"
	f.Add("contoso.example", "v2.0/token", "grant_type=refresh_token&"+client+"&refresh_token=x&scope=User.Read", "")
	f.Add("common", "token", "grant_type=authorization_code&code=%00&resource=&resource=", "Basic Og==")
	f.Add("adatum.example", "token", "grant_type=client_credentials&claims={%22access_token%22:null}&resource=//", "Bearer x")
	f.Add("%2e%2e", "token", "%zz", "")
	f.Add("contoso.example", "token", obo+client+"&assertion=e30.e30.e30", "")
	f.Add("contoso.example", "v2.0/token", "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&"+client+"&assertion=..", "")
	f.Add("common", "v2.0/token", "grant_type=device_code&device_code=x&client_id=a0000000-0000-4000-8000-00000000c0de", "")
	f.Add("common", "token", "grant_type=urn:ietf:params:oauth:grant-type:device_code&code=%ff&client_id=a0000000-0000-4000-8000-00000000c0de", "")
	f.Add("common", "devicecode", client+"&resource=https://graph.microsoft.com", "")
	f.Add("organizations", "v2.0/devicecode", client+"&scope=User.Read%20openid&claims=[]", "")
	f.Add("-", "v2.0/devicecode", "scope=a//b&client_id=%00", "")
	f.Fuzz(func(t *testing.T, tenant, path, body, authorization string) {
		if strings.Trim(tenant, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || tenant == "" || strings.Trim(tenant, ".") == "" {
			return // not a path to the endpoint
		}
		if !slices.Contains([]string{"token", "v2.0/token", "devicecode", "v2.0/devicecode"}, path) {
			return
		}
		r := httptest.NewRequest("POST", testURL+"/"+tenant+"/oauth2/"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var e errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatalf("got %d %s, %v", w.Code, w.Body, err)
		}
		if strings.HasSuffix(path, "devicecode") && w.Code == http.StatusOK && strings.Contains(w.Body.String(), `"device_code"`) {
			return
		}
		if len(e.Codes) != 1 || !Known(e.Codes[0]) {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		if w.Code < 400 || w.Code > 429 || !strings.HasPrefix(e.Description, "AADSTS") || strings.Contains(e.Description, "%!") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

// Whatever is asked for, the browser stays here unless the redirect URI is
// the registered one.
func FuzzAuthorize(f *testing.F) {
	s := testServer(f)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	app.IssueIDTokens, app.IssueAccessTokens = true, true
	if err := s.cfg.Directory.Register(app); err != nil {
		f.Fatal(err)
	}
	h := s.Handler()
	const good = "client_id=a0000000-0000-4000-8000-00000000c0de&response_type=code&redirect_uri=https%3A%2F%2F127.0.0.1%3A8443%2Fcallback"
	f.Add("/oauth2/v2.0/authorize", good+"&scope=User.Read&state=%0d%0aX:y")
	f.Add("/oauth2/v2.0/authorize", good+"&scope=openid&prompt=none&response_mode=form_post")
	f.Add("/oauth2/v2.0/authorize", strings.Replace(good, "127.0.0.1", "evil.example", 1))
	f.Add("/oauth2/authorize", "&&;%")
	f.Add("/oauth2/authorize", strings.Replace(good, "=code", "=code%20id_token", 1)+"&nonce=n&prompt=none")
	f.Add("/oauth2/v2.0/authorize", strings.Replace(good, "=code", "=id_token%20token", 1)+"&nonce=n&scope=openid")
	f.Add("/adminconsent", good)
	f.Add("/v2.0/adminconsent", good+"&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default&state=%0a")
	f.Add("/oauth2/logout", "post_logout_redirect_uri=https%3A%2F%2F127.0.0.1%3A8443%2Fcallback&state=%0d%0aX")
	f.Add("/oauth2/v2.0/logout", "post_logout_redirect_uri=https%3A%2F%2Fevil.example")
	f.Fuzz(func(t *testing.T, path, query string) {
		if !slices.Contains([]string{"/oauth2/authorize", "/oauth2/v2.0/authorize", "/adminconsent", "/v2.0/adminconsent", "/oauth2/logout", "/oauth2/v2.0/logout"}, path) {
			return
		}
		r := httptest.NewRequest("GET", testURL+"/contoso.example"+path, nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		loc := w.Header().Get("Location")
		callback, home := strings.CutPrefix(loc, "https://127.0.0.1:8443/callback")
		if loc != "" && !strings.HasPrefix(loc, "/signin/") && (!home || callback != "" && callback[0] != '?' && callback[0] != '#') {
			t.Errorf("the browser is sent to %q", loc)
		}
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

// Whatever is typed as a user code, the answer is a page.
func FuzzUserCode(f *testing.F) {
	h := testServer(f).Handler()
	f.Add("user_code=ABC-DEF")
	f.Add("user_code=%00")
	f.Add("&&;%")
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", testURL+"/devicelogin", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError || !strings.Contains(w.Body.String(), `<main id="page-`) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

// Whatever a path is, the answer is a page or JSON, and no panic.
func FuzzPath(f *testing.F) {
	h := testServer(f).Handler()
	for _, seed := range []string{"/common/userrealm/a@contoso.example", "/common/userrealm/%", "/x/.well-known/openid-configuration", "/signin/", "/a/oauth2/token", "/error?code=-1"} {
		f.Add("GET", seed)
	}
	f.Add("OPTIONS", "/common/discovery/keys")
	f.Add("PUT", "/common/oauth2/v2.0/devicecode")
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"}, method) || !strings.HasPrefix(path, "/") {
			return
		}
		r := httptest.NewRequest(method, testURL+"/", nil)
		r.URL = u
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= http.StatusInternalServerError || strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

// No token of another issuer is accepted without its signature.
func FuzzFederated(f *testing.F) {
	s := testServer(f)
	client := newSigner(f, false)
	app, _ := s.cfg.Directory.Application(directory.ApplicationID)
	keys := encode(f, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &client.key.PublicKey, KeyID: "k"}}})
	app.Federated = []directory.Federated{{Issuer: "https://i.example", Subject: "s", Keys: keys}}
	head := bare.EncodeToString([]byte(`{"alg":"RS256","kid":"k"}`))
	body := bare.EncodeToString([]byte(`{"iss":"https://i.example","sub":"s","aud":"api://AzureADTokenExchange","exp":9999999999}`))
	f.Add(head + "." + body + ".AAAA")
	f.Add(head + ".e30.")
	f.Add(bare.EncodeToString([]byte(`{"alg":"none"}`)) + "." + body + ".")
	f.Fuzz(func(t *testing.T, raw string) {
		if s.checkAssertion(raw, app, directory.ContosoTenant, time.Now()) == nil {
			t.Errorf("accepted %q", raw)
		}
	})
}
