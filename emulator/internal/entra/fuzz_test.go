package entra

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever is posted, the answer is an error of the token endpoint's shape.
func FuzzTokenRequest(f *testing.F) {
	h := testServer(f).Handler()
	f.Add("contoso.example", "v2.0/token", "grant_type=refresh_token&client_id=a0000000-0000-4000-8000-00000000c0de&client_secret=emulator-only-not-a-secret&refresh_token=x&scope=User.Read", "")
	f.Add("common", "token", "grant_type=authorization_code&code=%00&resource=&resource=", "Basic Og==")
	f.Add("adatum.example", "token", "grant_type=client_credentials&claims={%22access_token%22:null}&resource=//", "Bearer x")
	f.Add("%2e%2e", "token", "%zz", "")
	f.Fuzz(func(t *testing.T, tenant, path, body, authorization string) {
		if strings.Trim(tenant, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || path != "token" && path != "v2.0/token" || tenant == "" || strings.Trim(tenant, ".") == "" {
			return // not a path to the endpoint
		}
		r := httptest.NewRequest("POST", testURL+"/"+tenant+"/oauth2/"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var e errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || len(e.Codes) != 1 || !Known(e.Codes[0]) {
			t.Fatalf("got %d %s, %v", w.Code, w.Body, err)
		}
		if w.Code < 400 || w.Code > 429 || !strings.HasPrefix(e.Description, "AADSTS") || strings.Contains(e.Description, "%!") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

// Whatever is asked for, the browser stays here unless the redirect URI is
// the registered one.
func FuzzAuthorize(f *testing.F) {
	h := testServer(f).Handler()
	const good = "client_id=a0000000-0000-4000-8000-00000000c0de&response_type=code&redirect_uri=https%3A%2F%2F127.0.0.1%3A8443%2Fcallback"
	f.Add(good + "&scope=User.Read&state=%0d%0aX:y")
	f.Add(good + "&scope=openid&prompt=none&response_mode=form_post")
	f.Add(strings.Replace(good, "127.0.0.1", "evil.example", 1))
	f.Add("&&;%")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", testURL+"/contoso.example/oauth2/v2.0/authorize", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		loc := w.Header().Get("Location")
		if loc != "" && !strings.HasPrefix(loc, "/signin/") && !strings.HasPrefix(loc, "https://127.0.0.1:8443/callback?") && !strings.HasPrefix(loc, "https://127.0.0.1:8443/callback#") {
			t.Errorf("the browser is sent to %q", loc)
		}
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}
